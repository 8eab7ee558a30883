import pytest

from sf_ray.corpus.readers.file_types import (
    FileType,
    codec_of,
    file_type_of,
    may_be_array,
    suffix_of,
    why_not_read,
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
        ("a.jsonl.bz2", FileType.JSON, "bz2"),
        ("a.ndjson.xz", FileType.JSON, "xz"),
        ("a.json.lz4", FileType.JSON, "lz4"),
        ("B.JSONL", FileType.JSON, None),
        ("B.Json.GZ", FileType.JSON, "gzip"),
        ("B.PARQUET", FileType.PARQUET, None),
        ("B.pq", FileType.PARQUET, None),
        ("B.parq", FileType.PARQUET, None),
        ("Cache-7.Arrow", None, None),
        ("a.jsonl.lzo", None, None),
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
    names = ["x/a.b.parquet", "x/a.jsonl.gz", "a.json", "a.JSONL.Zst"]
    assert [suffix_of(name) for name in names] == [".parquet", ".jsonl.gz", ".json", ".JSONL.Zst"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.csv", "not read"),
        ("part-00000", "not read"),
        ("a.jsonl.lzo", "not read: unpack it"),
        ("a.zip", "not read: unpack it"),
        ("a.parquet.gz", "not read: only JSON is compressed as a whole file; unpack it"),
        ("a.jsonl.part", "not read: its name is that of an unfinished file"),
        ("x/README.md", None),
        ("LICENSE", None),
        ("dataset_info.json", None),
        ("cache-0123.arrow", None),
    ],
)
def test_what_is_passed_over_has_a_reason_unless_nobody_misses_it(
    name: str, words: str | None
) -> None:
    assert file_type_of(name) is None
    assert why_not_read(name) == words
