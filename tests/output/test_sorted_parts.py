"""Kept rows in the order of their IFD, cut into parts and written. No Ray."""

from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sf_ray.corpus.planning import Corpus, plan_corpus
from sf_ray.corpus.readers.arrow import STREAM, IpcForm
from sf_ray.corpus.readers.file_types import FileType
from sf_ray.corpus.units import Place, units_of
from sf_ray.errors import SfRayError
from sf_ray.output.shard_writer import kept_schema
from sf_ray.output.sorted_parts import output_columns, part_names, read_parts, write_part
from sf_ray.output.writers.shard_form import ShardForm
from sf_ray.selection.chunks import Chunk, ChunkRows, Kept
from sf_ray.selection.cutoffs import Cutoff
from sf_ray.storage.location import Location

IFD = np.array([0.3, np.nan, 0.9, 0.3, 0.5, np.nan, 0.9])


class KeptByHand:
    """Stands for `Kept`: rows with an IFD are kept."""

    def read(self, chunk: Chunk) -> ChunkRows:
        return ChunkRows(IFD[chunk.positions], IFD[chunk.positions], chunk.positions, None)


def chunk_of(corpus: Corpus) -> Chunk:
    return Chunk(
        [Place(shard, unit) for shard in corpus.shards for unit in units_of(shard.row_groups, 2)]
    )


def test_names_of_parts_are_in_their_order_and_of_the_file_type() -> None:
    assert part_names(FileType.PARQUET, 2) == ["part-00000.parquet", "part-00001.parquet"]
    assert part_names(FileType.ARROW, 1) == ["part-00000.arrow"]
    assert part_names(FileType.JSON, 1) == ["part-00000.jsonl"]


def test_parts_hold_the_kept_rows_between_two_cuts_best_first(tmp_path: Path) -> None:
    # The corpus has columns of the names that the tables add: places count, not names.
    for name, rows in (("a.parquet", range(3)), ("b.parquet", range(3, 7))):
        table = pa.table({"position": [f"row {row}" for row in rows]})
        pq.write_table(table, tmp_path / name, row_group_size=2)
    corpus = plan_corpus(Location(str(tmp_path)))
    schema, form = output_columns(corpus.location, corpus.shards[0], "ifd")
    kept, cuts = cast(Kept, KeptByHand()), [Cutoff(0.9, 6), Cutoff(0.3, 0)]
    parts = read_parts(corpus.location, schema, kept, cuts, chunk_of(corpus))
    out = Location(str(tmp_path / "out"))
    read = []
    for number, part in enumerate(parts):
        halves = [part.slice(0, 1), part.slice(1)]
        written = write_part(out, f"{number}.parquet", schema, halves, form)
        file = tmp_path / "out" / written.relative
        assert (written.rows, written.bytes) == (part.num_rows, file.stat().st_size)
        rows = pq.read_table(file)
        assert rows.schema.names == ["position", "ifd"]
        read.append(list(zip(*rows.to_pydict().values(), strict=True)))
    assert read == [
        [("row 2", 0.9), ("row 6", 0.9)],
        [("row 4", 0.5), ("row 0", 0.3)],
        [("row 3", 0.3)],
    ]


def test_a_part_may_be_empty(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": ["x"] * 7}), tmp_path / "a.parquet")
    corpus = plan_corpus(Location(str(tmp_path)))
    schema, form = output_columns(corpus.location, corpus.shards[0], "ifd")
    cuts = [Cutoff(0.95, 0)]
    parts = read_parts(corpus.location, schema, cast(Kept, KeptByHand()), cuts, chunk_of(corpus))
    assert [part.num_rows for part in parts] == [0, 5]
    out = Location(str(tmp_path / "out"))
    assert write_part(out, "p.parquet", schema, parts[:1], form).rows == 0


def test_a_shard_that_stores_its_columns_otherwise_is_named(tmp_path: Path) -> None:
    times = pa.array([0] * 3, pa.timestamp("us"))
    pq.write_table(pa.table({"at": times}), tmp_path / "a.parquet")
    pq.write_table(
        pa.table({"at": times}), tmp_path / "b.parquet", use_deprecated_int96_timestamps=True
    )
    corpus = plan_corpus(Location(str(tmp_path)))
    schema, _ = output_columns(corpus.location, corpus.shards[0], "ifd")
    with pytest.raises(SfRayError, match="b.parquet: its columns are not stored as .* --order inp"):
        read_parts(corpus.location, schema, cast(Kept, KeptByHand()), [], chunk_of(corpus))


@pytest.mark.parametrize("first_is_plain", [True, False])
def test_shards_with_categories_and_without_go_into_one_file(
    tmp_path: Path, first_is_plain: bool
) -> None:
    texts = pa.array(["x", "y", "x"])
    tables = [pa.table({"a": texts}), pa.table({"a": texts.dictionary_encode()})]
    for name, table in zip("ab", tables if first_is_plain else tables[::-1], strict=True):
        pq.write_table(table, tmp_path / f"{name}.parquet")
    shards = [plan_corpus(Location(str(tmp_path / f"{name}.parquet"))).shards[0] for name in "ab"]
    schema, form = output_columns(Location(str(tmp_path)), shards[0], "ifd")
    parts = []
    for shard in shards:
        chunk = Chunk([Place(shard, unit) for unit in units_of(shard.row_groups, 3)])
        parts += read_parts(Location(str(tmp_path)), schema, cast(Kept, KeptByHand()), [], chunk)
    write_part(Location(str(tmp_path / "out")), "p.parquet", schema, parts, form)
    read = pq.read_table(tmp_path / "out/p.parquet")
    assert read["a"].to_pylist() == ["x", "x", "x", "x"]
    assert pa.types.is_dictionary(read["a"].type) is not first_is_plain


def test_a_json_row_that_has_the_added_field_is_named_by_its_shard_and_number(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n' * 3)
    (tmp_path / "b.jsonl").write_text('{"a": 1}\n' * 3 + '{"ifd": 1}\n')
    corpus = plan_corpus(Location(str(tmp_path)))
    schema, _ = output_columns(corpus.location, corpus.shards[0], "ifd")
    with pytest.raises(SfRayError, match=r"row 3 of b.jsonl has a field 'ifd' already"):
        read_parts(corpus.location, schema, cast(Kept, KeptByHand()), [], chunk_of(corpus))


@pytest.mark.parametrize("form", [STREAM, IpcForm(is_file=True, codec="zstd")])
def test_arrow_rows_of_every_kind_are_put_in_order(tmp_path: Path, form: IpcForm) -> None:
    def column(name: str) -> pa.Array:
        views = pa.array([f"text of row {name}{i}, which is long" for i in range(4)])
        kinds = pa.DictionaryArray.from_arrays(pa.array([0, 1, 1, 0], pa.int8()), [name, "both"])
        runs = pa.RunEndEncodedArray.from_arrays(pa.array([2, 4], pa.int16()), [name, None])
        fields = {"views": views.cast(pa.string_view()), "kinds": kinds, "runs": runs}
        return pa.StructArray.from_arrays(list(fields.values()), list(fields))

    new = pa.ipc.new_file if form.is_file else pa.ipc.new_stream
    for name in "ab":
        batch = pa.record_batch({"x": column(name)}).slice(0, 3 if name == "a" else 4)
        with new(tmp_path / f"{name}.arrow", batch.schema) as writer:
            writer.write_batch(batch)
    corpus = plan_corpus(Location(str(tmp_path)))
    schema = kept_schema(corpus.schema, "ifd")
    kept, cuts = cast(Kept, KeptByHand()), [Cutoff(0.9, 6)]
    parts = read_parts(corpus.location, schema, kept, cuts, chunk_of(corpus))
    read = []
    for number, part in enumerate(parts):
        write_part(
            Location(str(tmp_path / "out")), f"{number}.arrow", schema, [part], ShardForm(ipc=form)
        )
        file = tmp_path / f"out/{number}.arrow"
        rows = (pa.ipc.open_file if form.is_file else pa.ipc.open_stream)(file).read_all()
        rows.validate(full=True)
        assert rows.schema.equals(schema, check_metadata=True)
        read.append(
            [(row["x"]["views"], row["x"]["kinds"], row["ifd"]) for row in rows.to_pylist()]
        )
    assert read == [
        [(f"text of row {row}, which is long", kind, ifd) for row, kind, ifd in part]
        for part in (
            [("a2", "both", 0.9), ("b3", "b", 0.9)],
            [("b1", "both", 0.5), ("a0", "a", 0.3), ("b0", "b", 0.3)],
        )
    ]


def test_parquet_shards_that_are_stored_alike_go_into_one_part(tmp_path: Path) -> None:
    for name, text_type, rows in (("a", pa.string(), range(3)), ("b", pa.large_string(), range(4))):
        texts = pa.array([f"{name}{row}" for row in rows], text_type)
        numbers = pa.array(list(rows))
        table = pa.Table.from_arrays([numbers, texts, numbers], ["id", "text", "id"])
        pq.write_table(table, tmp_path / f"{name}.parquet")
    corpus = plan_corpus(Location(str(tmp_path)))
    schema, form = output_columns(corpus.location, corpus.shards[0], "ifd")
    (part,) = read_parts(corpus.location, schema, cast(Kept, KeptByHand()), [], chunk_of(corpus))
    write_part(Location(str(tmp_path / "out")), "p.parquet", schema, [part], form)
    rows = pq.ParquetFile(tmp_path / "out/p.parquet").read()
    assert rows.column_names == ["id", "text", "id", "ifd"]
    assert rows["text"].to_pylist() == ["a2", "b3", "b1", "a0", "b0"]
