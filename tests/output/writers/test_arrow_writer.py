"""Filtered Arrow shards, from the reader through the writer, as other libraries read them."""

import datetime
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import duckdb
import numpy as np
import pandas
import polars
import pyarrow as pa
import pyarrow.feather
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sf_ray.corpus.planning import plan_corpus
from sf_ray.output.shard_writer import write_shard
from sf_ray.output.writers.held_rows import RowGroupSize
from sf_ray.output.writers.shard_form import AskedForm
from sf_ray.storage.location import Location
from tests.support.arrow_types import arrays, cells

ROWS = 40
KEEP = np.arange(ROWS) % 3 == 1
IFD = np.linspace(0, 1, ROWS)
AS_BEFORE = AskedForm()
FORMS = pytest.mark.parametrize("is_file", [False, True], ids=["stream", "file"])


def store(
    path: Path, table: pa.Table, is_file: bool, codec: str | None = None, **options: Any
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = pa.ipc.new_file if is_file else pa.ipc.new_stream
    how = pa.ipc.IpcWriteOptions(compression=codec)
    with new(path, table.schema, options=how, **options) as writer:
        writer.write_table(table, max_chunksize=7)


def load(path: Path) -> pa.Table:
    is_file = path.read_bytes()[:6] == b"ARROW1"
    return (pa.ipc.open_file if is_file else pa.ipc.open_stream)(path).read_all()


def filtered(folder: Path, keep: np.ndarray = KEEP, asked: AskedForm = AS_BEFORE) -> Path:
    """Plans folder/in, and writes its one shard into folder/out."""
    corpus = plan_corpus(Location(str(folder / "in")))
    (shard,) = corpus.shards
    ifd = np.linspace(0, 1, shard.rows)
    out = Location(str(folder / "out"))
    written = write_shard(corpus.location, shard, ifd, keep, out, "ifd", asked)
    assert written.rows == keep.sum()
    return folder / "out" / written.relative


def everyday_table() -> pa.Table:
    """Columns of types that all readers know."""
    labels = pa.DictionaryArray.from_arrays(
        pa.array([i % 3 for i in range(ROWS)], pa.int8()), ["low", "mid", "high"], ordered=True
    )
    stamp = datetime.datetime(2024, 2, 29, 12, 0, 0, 1)
    columns = {
        "text": pa.array([None if i % 5 == 0 else f"row {i}, ünïcode" for i in range(ROWS)]),
        "large": pa.array(["x" * i for i in range(ROWS)], pa.large_string()),
        "chat": [[{"role": "user", "content": f"{i}"}] * (i % 3) for i in range(ROWS)],
        "label": labels,
        "time": pa.array([stamp] * ROWS, pa.timestamp("us", "UTC")),
        "bytes": pa.array([bytes([i]) for i in range(ROWS)]),
        "small": pa.array(range(ROWS), pa.uint8()),
    }
    table = pa.table(columns)
    required = table.schema.field("small").with_nullable(False).with_metadata({"unit": "rows"})
    fields = [*list(table.schema)[:-1], required]
    return table.cast(pa.schema(fields, metadata={"made by": "hand"}))


@FORMS
@pytest.mark.parametrize("codec", [None, "lz4", "zstd"])
def test_what_comes_out_is_what_went_in_less_rows_plus_ifd(
    tmp_path: Path, is_file: bool, codec: str | None
) -> None:
    table = everyday_table()
    footer = {"metadata": {b"footer": b"its own"}} if is_file else {}
    store(tmp_path / "in/a.arrow", table, is_file, codec, **footer)
    out = filtered(tmp_path)
    expected = table.append_column("ifd", pa.array(IFD)).filter(pa.array(KEEP))
    written = load(out)
    assert written.equals(expected)
    assert written.schema.equals(expected.schema, check_metadata=True)
    if is_file:
        assert pa.ipc.open_file(out).metadata == {b"footer": b"its own"}
    else:
        assert out.read_bytes()[:4] == b"\xff" * 4
    # The codec of the values: the same bytes as when the rows are written so at once.
    store(tmp_path / "expected", expected.combine_chunks(), is_file, codec, **footer)
    with pa.ipc.RecordBatchFileReader(out) if is_file else pa.ipc.open_stream(out) as reader:
        batches = [reader.get_batch(0)] if is_file else list(reader)
    assert len(batches) == 1  # few rows of each batch are kept: they are joined
    new = pa.ipc.new_file if is_file else pa.ipc.new_stream
    options = pa.ipc.IpcWriteOptions(compression=codec)
    with new(tmp_path / "same", expected.schema, options=options, **footer) as writer:
        writer.write_batch(batches[0])
    assert out.read_bytes() == (tmp_path / "same").read_bytes()


Seen = tuple[dict[str, str], list[tuple[Any, ...]]]  # column -> type, and the rows


def of_pandas(path: Path) -> Seen:
    frame = load(path).to_pandas()
    rows = [
        tuple(value.tolist() if isinstance(value, np.ndarray) else value for value in row)
        for row in frame.itertuples(index=False, name=None)
    ]
    return {name: str(dtype) for name, dtype in frame.dtypes.items()}, rows


def of_polars(path: Path) -> Seen:
    is_file = path.read_bytes()[:6] == b"ARROW1"
    read = polars.read_ipc if is_file else polars.read_ipc_stream
    frame = read(path.read_bytes())
    return {name: str(dtype) for name, dtype in frame.schema.items()}, frame.rows()


def of_duckdb(path: Path) -> Seen:
    rows = duckdb.from_arrow(load(path))
    types = dict(zip(rows.columns, map(str, rows.types), strict=True))
    return types, rows.fetchall()


def of_datasets(path: Path) -> Seen:
    rows = datasets.load_dataset(
        "arrow", data_files=str(path), split="train", cache_dir=str(path.parent.parent / "cache")
    )
    types = {name: str(feature) for name, feature in rows.features.items()}
    return types, [tuple(row.values()) for row in rows]


@FORMS
@pytest.mark.parametrize("read", [of_pandas, of_polars, of_duckdb, of_datasets])
def test_each_reader_sees_the_kept_rows_of_what_it_saw_before(
    tmp_path: Path, is_file: bool, read: Callable[[Path], Seen]
) -> None:
    store(tmp_path / "in/a.arrow", everyday_table(), is_file)
    types_before, before = read(tmp_path / "in/a.arrow")
    types_after, after = read(filtered(tmp_path))
    assert list(types_after) == [*types_before, "ifd"]
    del types_after["ifd"]
    assert types_after == types_before
    assert [row[:-1] for row in after] == list(itertools.compress(before, KEEP))
    assert [row[-1] for row in after] == list(IFD[KEEP])


def test_pandas_gets_its_index_and_its_types_back(tmp_path: Path) -> None:
    frame = pandas.DataFrame(
        {"text": [f"{i}" for i in range(ROWS)], "kind": pandas.Categorical(["a", "b"] * 20)},
        index=pandas.Index([f"id {i}" for i in range(ROWS)], name="id"),
    )
    store(tmp_path / "in/a.arrow", pa.Table.from_pandas(frame), is_file=True)
    read = load(filtered(tmp_path)).to_pandas()
    pandas.testing.assert_frame_equal(read, frame[KEEP].assign(ifd=IFD[KEEP]))


def test_features_of_datasets_know_the_added_column(tmp_path: Path) -> None:
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["a", "b"]),
            "grid": datasets.Array2D((2, 2), "float32"),
            "tools": datasets.Json(),
        }
    )
    rows = {
        "text": [f"{i}" for i in range(ROWS)],
        "label": [0, 1] * 20,
        "grid": [np.full((2, 2), i, np.float32) for i in range(ROWS)],
        "tools": [{"a": i} if i % 2 else [i] for i in range(ROWS)],
    }
    dataset = datasets.Dataset.from_dict(rows, features)
    dataset.save_to_disk(tmp_path / "in")
    out = filtered(tmp_path)
    expected = {**features, "ifd": datasets.Value("float64")}
    read = datasets.Dataset.from_file(str(out))
    assert read.features == expected
    assert read.remove_columns("ifd")[:] == dataset.select(np.flatnonzero(KEEP))[:]
    assert read["ifd"][:] == list(IFD[KEEP])


@settings(max_examples=30, deadline=None)
@given(data=st.data(), is_file=st.booleans(), codec=st.sampled_from([None, "lz4", "zstd"]))
def test_every_type_goes_through(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, is_file: bool, codec: str | None
) -> None:
    folder = tmp_path_factory.mktemp("types")
    column = data.draw(arrays(ROWS, 2))
    table = pa.Table.from_batches([pa.RecordBatch.from_arrays([column], ["a"])])
    store(folder / "in/a.arrow", table, is_file, codec)
    read = load(filtered(folder))
    read.validate(full=True)
    assert read.schema.field("a") == table.schema.field("a")
    before = [cell for part in table.to_batches() for cell in cells(part)]
    after = [cell for part in read.to_batches() for cell in cells(part)]
    assert after == list(itertools.compress(before, KEEP))


@pytest.mark.parametrize("is_nested", [False, True])
def test_dictionaries_of_a_stream_are_those_of_their_rows(tmp_path: Path, is_nested: bool) -> None:
    # Together they have more values than their indices can count.
    batches = []
    for at in range(4):
        values = [f"{at} {n}" for n in range(100)]
        array = pa.DictionaryArray.from_arrays(pa.array(range(10), pa.int8()), values, ordered=True)
        if is_nested:
            array = pa.ListArray.from_arrays(range(11), array)
        batches.append(pa.record_batch({"a": array}))
    (tmp_path / "in").mkdir()
    with pa.ipc.new_stream(tmp_path / "in/a.arrow", batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    read = load(filtered(tmp_path))
    expected = [value for batch in batches for value in batch["a"].to_pylist()]
    assert read["a"].to_pylist() == list(itertools.compress(expected, KEEP))
    assert read.schema.field("a") == batches[0].schema.field("a")


@FORMS
def test_rows_are_written_before_they_are_many_bytes(tmp_path: Path, is_file: bool) -> None:
    table = pa.table({"a": ["x" * 1000] * 1000})
    store(tmp_path / "in/a.arrow", table, is_file)
    asked = AskedForm(row_group=RowGroupSize(bytes=20_000))
    out = filtered(tmp_path, np.ones(1000, bool), asked)
    chunks = load(out)["a"].chunks
    assert 20_000 <= max(chunk.nbytes for chunk in chunks) < 30_000
