import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sf_ray.corpus.planning import plan_corpus
from sf_ray.corpus.readers.json_lines import LINE, LINES
from sf_ray.errors import SfRayError
from sf_ray.output.shard_writer import WrittenShard, kept_schema, write_shard, writer_for
from sf_ray.output.writers.shard_form import ShardForm
from sf_ray.storage.location import Location


@pytest.mark.parametrize("field", [b'"ifd"', b'"\\u0069fd"'])
def test_a_row_that_has_the_added_field_is_named(tmp_path: Path, field: bytes) -> None:
    lines = [b'{"a": 1}', b'{"b": {"ifd": "\\u0069"}}', b"{" + field + b": 1}"]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    corpus = plan_corpus(Location(str(tmp_path)))
    out = Location(str(tmp_path / "out"))
    ifd = np.full(3, 0.5)
    with pytest.raises(SfRayError, match="row 2 of a.jsonl has a field 'ifd' already"):
        write_shard(corpus.location, corpus.shards[0], ifd, np.ones(3, bool), out, "ifd")
    assert not (tmp_path / "out/a.jsonl").exists()
    without = np.array([True, True, False])
    assert write_shard(corpus.location, corpus.shards[0], ifd, without, out, "ifd").rows == 2


def rows_to_write(*texts: bytes) -> pa.RecordBatch:
    schema = kept_schema(LINES, "ifd")
    return pa.record_batch({LINE: list(texts), "ifd": [0.5] * len(texts)}, schema=schema)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        (b'{"a": 1}', b'{"a": 1, "ifd": 0.5}'),
        (b'{"a": 1 } ', b'{"a": 1, "ifd": 0.5 } '),
        (b"{ }", b'{"ifd": 0.5 }'),
        (b'{"a": "}"}\r', b'{"a": "}", "ifd": 0.5}\r'),
        (b'{\n  "a": 1\n}', b'{   "a": 1, "ifd": 0.5 }'),
    ],
)
def test_a_field_is_added_and_every_other_byte_stays(
    tmp_path: Path, text: bytes, written: bytes
) -> None:
    with writer_for("a.jsonl", tmp_path / "a", kept_schema(LINES, "ifd"), ShardForm()) as writer:
        writer.write(rows_to_write(text))
    assert (tmp_path / "a").read_bytes() == written + b"\n"


def test_an_array_stays_one(tmp_path: Path) -> None:
    schema = kept_schema(LINES, "ifd")
    with writer_for("a.json", tmp_path / "a", schema, ShardForm(is_array=True)) as writer:
        for text in (b'{\n  "a": 1\n}', b"{}"):
            writer.write(rows_to_write(text))
    assert (tmp_path / "a").read_bytes() == (b'[\n{\n  "a": 1, "ifd": 0.5\n},\n{"ifd": 0.5}\n]\n')


@pytest.mark.parametrize("name", ["a.arrow", "a.jsonl.gz", "a.json.zst"])
def test_the_same_rows_make_the_same_bytes(tmp_path: Path, name: str) -> None:
    written = set()
    for path in (tmp_path / "x", tmp_path / "y"):
        with writer_for(name, path, kept_schema(LINES, "ifd"), ShardForm()) as writer:
            for _ in range(50):
                writer.write(rows_to_write(*[b'{"a": 1}'] * 100))
        written.add(path.read_bytes())
    assert len(written) == 1


def test_what_a_failing_writer_raises_is_not_blamed_on_the_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"a": 1}\n')
    corpus = plan_corpus(Location(str(tmp_path)))

    class Full(io.RawIOBase):
        def write(self, data: object) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("sf_ray.output.writers.json_writer.packed_file", lambda path, codec: Full())
    with pytest.raises(SfRayError, match="out/a.jsonl: no space is left"):
        write_shard(
            corpus.location, corpus.shards[0], np.ones(1), np.ones(1, bool),
            Location(str(tmp_path / "out")), "ifd",
        )  # fmt: skip


def test_a_shard_of_which_nothing_is_kept_leaves_no_file(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": ["x"] * 3}), tmp_path / "a.parquet")
    corpus, out = plan_corpus(Location(str(tmp_path))), Location(str(tmp_path / "out"))
    ifd, nothing = np.full(3, 0.5), np.zeros(3, bool)
    written = write_shard(corpus.location, corpus.shards[0], ifd, nothing, out, "ifd")
    assert written == WrittenShard("a.parquet", 0, 0)
    assert not (tmp_path / "out").exists()


def test_columns_of_one_name_all_come_out(tmp_path: Path) -> None:
    columns = [pa.array([1, 2]), pa.array(["x", "y"]), pa.array([3, 4])]
    pq.write_table(pa.Table.from_arrays(columns, ["id", "text", "id"]), tmp_path / "a.parquet")
    corpus, out = plan_corpus(Location(str(tmp_path))), Location(str(tmp_path / "out"))
    ifd, keep = np.array([0.5, 0.6]), np.array([False, True])
    write_shard(corpus.location, corpus.shards[0], ifd, keep, out, "ifd")
    rows = pq.ParquetFile(tmp_path / "out/a.parquet").read()
    assert rows.column_names == ["id", "text", "id", "ifd"]
    assert [column.to_pylist() for column in rows.columns] == [[2], ["y"], [4], [0.6]]
