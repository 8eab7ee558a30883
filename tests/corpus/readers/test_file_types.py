import pytest

from sf_ray.corpus.readers.file_types import (
    FileType,
    codec_of,
    file_type_of,
    may_be_array,
    suffix_of,
)


@pytest.mark.parametrize(
    ("name", "kind", "codec"),
    [
        ("a/b.parquet", FileType.PARQUET, None),
        ("train/data-00000-of-00002.arrow", FileType.ARROW, None),
        ("a.jsonl", FileType.JSON, None),
        ("a.ndjson.gz", FileType.JSON, "gzip"),
        ("a.json.zst", FileType.JSON, "zstd"),
        ("a.jsonl.zstd", FileType.JSON, "zstd"),
        ("a.parquet.gz", None, "gzip"),
        ("a.csv", None, None),
        ("README.md", None, None),
        ("train/state.json", None, None),
        ("dataset_info.json", None, None),
        ("dataset_infos.json", None, None),
        ("dataset_dict.json", None, None),
        ("train/cache-0123456789abcdef.arrow", None, None),
        ("cache-7.jsonl", FileType.JSON, None),
    ],
)
def test_names_tell_what_a_shard_is(name: str, kind: FileType | None, codec: str | None) -> None:
    assert (file_type_of(name), codec_of(name)) == (kind, codec)


def test_only_json_may_be_an_array() -> None:
    assert may_be_array("a.json.gz")
    assert not may_be_array("a.jsonl")


def test_the_suffix_is_what_a_glob_needs() -> None:
    names = ["x/a.b.parquet", "x/a.jsonl.gz", "a.json"]
    assert [suffix_of(name) for name in names] == [".parquet", ".jsonl.gz", ".json"]
