"""A filtered Parquet shard is the input, less rows, plus IFD: bit by bit, and for every reader."""

import datetime
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import fastparquet
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from sf_ray.corpus.planning import plan_corpus
from sf_ray.corpus.readers.parquet import StoredParquetReader
from sf_ray.corpus.readers.parquet_footer import (
    ElementField,
    FileField,
    chunks_of,
    decode_footer,
    decode_row_groups,
)
from sf_ray.corpus.readers.thrift_compact import I32, LIST, STRUCT, Struct, encode
from sf_ray.output.shard_writer import write_shard
from sf_ray.storage.listing import list_files
from sf_ray.storage.location import Location
from sf_ray.storage.versioned_file import open_bytes

KEEP = np.array([True, False, True, True, False, True, False, True])
ROWS = len(KEEP)
IFD = np.arange(ROWS) / 10


def filtered(path: Path) -> Path:
    """The path of the filtered shard."""
    corpus = plan_corpus(Location(str(path)))
    out = path.parent / "out"
    write_shard(corpus.location, corpus.shards[0], IFD, KEEP, Location(str(out)), "ifd")
    return out / path.name


def footer_of(path: Path) -> bytes:
    data = path.read_bytes()
    return data[-8 - int.from_bytes(data[-8:-4], "little") : -8]


def stored_rows(path: Path) -> pa.Table:
    """All rows by their stored values, the last column by its name."""
    location = Location(str(path))
    (file,) = list_files(location)
    with open_bytes(location, file) as handle:
        reader = StoredParquetReader(file, handle)
        return pa.Table.from_batches(reader.batches(3), reader.schema)


def assert_faithful(path: Path) -> Path:
    """Filters a shard, and compares both files by what they store; returns the new one."""
    out = filtered(path)
    _, before = decode_footer(footer_of(path))
    _, after = decode_footer(footer_of(out))
    assert after.elements[1:-1] == before.elements[1:]
    assert after.leaves[:-1] == before.leaves
    assert after.elements[-1][ElementField.NAME][1] == b"ifd"
    described = {b"ARROW:schema", b"pandas", b"huggingface"}
    for stored, written in zip(before.key_values or (), after.key_values or (), strict=True):
        assert written[1] == stored[1]
        assert written == stored or stored[1][1] in described
    rows, kept = stored_rows(path).filter(pa.array(KEEP)), stored_rows(out)
    assert kept[-1].to_pylist() == list(IFD[KEEP])
    for stored_column, written_column in zip(rows.columns, kept.columns[:-1], strict=True):
        assert written_column.equals(stored_column)
    return out


def assert_equal_in_arrow(path: Path, out: Path) -> None:
    """Compares values of types that Arrow cannot filter."""
    read, kept = pq.read_table(path), pq.read_table(out)
    assert kept.schema.remove(len(kept.schema) - 1).equals(read.schema)
    for read_column, kept_column in zip(read.columns, kept.columns[:-1], strict=True):
        wanted = list(itertools.compress(read_column.to_pylist(), KEEP))
        assert kept_column.to_pylist() == wanted


VALUES: list[tuple[pa.DataType, Any]] = [
    (pa.bool_(), True),
    (pa.int8(), -3),
    (pa.uint8(), 200),
    (pa.uint32(), 4_000_000_000),
    (pa.uint64(), 2**64 - 1),
    (pa.float16(), np.float16(1.5)),
    (pa.float32(), -0.0),
    (pa.float64(), float("inf")),
    (pa.string(), "é"),
    (pa.large_string(), "x" * 100),
    (pa.string_view(), "view"),
    (pa.binary(), b"\xff\0"),
    (pa.binary_view(), b"view"),
    (pa.binary(3), b"abc"),
    (pa.date32(), datetime.date(9999, 12, 31)),
    (pa.time32("ms"), datetime.time(1)),
    (pa.time64("us"), datetime.time(23, 59)),
    (pa.time64("ns"), 1000),
    (pa.timestamp("ms"), datetime.datetime(9999, 12, 31)),
    (pa.timestamp("us", "Europe/Berlin"), 1),
    (pa.timestamp("ns"), 1000),
    (pa.duration("us"), 5000),
    (pa.decimal32(5, 2), "-1.25"),
    (pa.decimal128(30, 2), "-1.25"),
    (pa.decimal256(60, 2), "1.25"),
    (pa.dictionary(pa.int8(), pa.string()), "category"),
    (pa.dictionary(pa.int8(), pa.string(), True), "category"),
    (pa.null(), None),
    (pa.json_(), '{"a": 1}'),
    (pa.uuid(), b"0123456789abcdef"),
    (pa.bool8(), 1),
]
NESTINGS: dict[str, Callable[[pa.DataType, Any], tuple[pa.DataType, Any]]] = {
    "list": lambda kind, value: (pa.list_(kind), [value, None, value]),
    "large_list": lambda kind, value: (pa.large_list(kind), [value]),
    "list_of_required": lambda kind, value: (
        pa.list_(pa.field("array", kind, nullable=False)),
        [value],
    ),
    "fixed_size_list": lambda kind, value: (pa.list_(kind, 2), [value, value]),
    "struct": lambda kind, value: (pa.struct({"a.b": kind, "c": pa.int32()}), {"a.b": value}),
    "map": lambda kind, value: (pa.map_(pa.string(), kind), [("k", value), ("l", None)]),
}


def column(kind: pa.DataType, value: Any, is_required: bool = False) -> pa.Array:
    values = [value] * ROWS if is_required else [value, None] * (ROWS // 2)
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, column(kind.storage_type, value, is_required))
    if pa.types.is_decimal(kind):
        return pa.array(values).cast(kind)
    return pa.array(values, kind)


def simple(kind: pa.DataType) -> bool:
    """Whether `pa.array` makes nested values of a type from Python's."""
    return not (isinstance(kind, pa.BaseExtensionType) or pa.types.is_decimal(kind))


def nested_columns(depth: int) -> list[tuple[str, pa.DataType, Any]]:
    nested = []
    orders = list(itertools.product(NESTINGS, repeat=depth))
    for names in orders[:: 1 if depth < 3 else 7]:  # 7 shares no factor with the nestings
        kinds = [pair for pair in VALUES if simple(pair[0]) and not pa.types.is_null(pair[0])]
        if "list_of_required" in names or "fixed_size_list" in names:
            kinds = kinds[::6]
        for kind, value in kinds if depth == 1 else kinds[8::11]:
            for name in names:
                kind, value = NESTINGS[name](kind, value)
            nested.append((".".join(names), kind, value))
    return nested


@pytest.mark.parametrize("page_version", ["1.0", "2.0"])
@pytest.mark.parametrize("options", [
    {"store_schema": True, "compression": "snappy", "row_group_size": 3},
    {"store_schema": False, "compression": "none", "use_dictionary": False},
    {"store_schema": True, "compression": "brotli", "store_decimal_as_integer": True},
    {"store_schema": False, "compression": "gzip", "use_deprecated_int96_timestamps": True},
])  # fmt: skip
def test_flat_columns_of_every_type_come_out_bit_by_bit(
    tmp_path: Path, options: dict[str, Any], page_version: str
) -> None:
    fields, columns = [], []
    for kind, value in VALUES:
        for is_required in {False, not pa.types.is_null(kind)}:
            metadata = {"PARQUET:field_id": str(len(fields) * 3)} if is_required else {"k": "v"}
            name = f"{kind} {'required' if is_required else 'optional'}"
            fields.append(pa.field(name, kind, not is_required, metadata))
            columns.append(column(kind, value, is_required))
    schema = pa.schema(fields, metadata={"k": "v", "empty": ""})
    table = pa.Table.from_arrays(columns, schema=schema)
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, data_page_version=page_version, **options)
    out = assert_faithful(path)
    assert_equal_in_arrow(path, out)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_nested_columns_come_out_bit_by_bit(tmp_path: Path, depth: int) -> None:
    nested = nested_columns(depth)
    names = [f"{number} {name}" for number, (name, _, _) in enumerate(nested)]
    table = pa.table([column(kind, value) for _, kind, value in nested], names)
    path = tmp_path / "a.parquet"
    pq.write_table(table, path)
    assert_equal_in_arrow(path, assert_faithful(path))


# (physical type, its length, {field of `SchemaElement`: value}): what Arrow does not write.
CONVERTED = {"ENUM": 4, "DECIMAL": 5, "BSON": 20, "INTERVAL": 21, "UINT_32": 13}
BY_HAND: dict[str, tuple[pa.Array, Struct]] = {
    "enum": (pa.array([b"a"] * ROWS), {6: (I32, CONVERTED["ENUM"])}),
    "logical_enum": (pa.array([b"a"] * ROWS), {10: (STRUCT, {4: (STRUCT, {})})}),
    "bson": (pa.array([b"\x05\0\0\0\0"] * ROWS), {6: (I32, CONVERTED["BSON"])}),
    "interval": (pa.array([b"123456789012"] * ROWS, pa.binary(12)),
                 {6: (I32, CONVERTED["INTERVAL"])}),
    "time_not_adjusted": (pa.array([1] * ROWS, pa.int64()), {
        10: (STRUCT, {7: (STRUCT, {1: (2, None), 2: (STRUCT, {2: (STRUCT, {})})})})}),
    "decimal_in_int32": (pa.array([-5] * ROWS, pa.int32()),
                         {6: (I32, CONVERTED["DECIMAL"]), 7: (I32, 2), 8: (I32, 5)}),
    "decimal_in_int64": (pa.array([-5] * ROWS, pa.int64()),
                         {6: (I32, CONVERTED["DECIMAL"]), 7: (I32, 2), 8: (I32, 12)}),
    "decimal_in_bytes": (pa.array([b"\xff\x01"] * ROWS),
                         {6: (I32, CONVERTED["DECIMAL"]), 7: (I32, 2), 8: (I32, 4)}),
    "unsigned": (pa.array([-1] * ROWS, pa.int32()), {6: (I32, CONVERTED["UINT_32"])}),
    "field_id": (pa.array([1] * ROWS, pa.int32()), {9: (I32, 0)}),
    "unknown_type_of_tomorrow": (pa.array([b"a"] * ROWS), {10: (STRUCT, {18: (STRUCT, {})})}),
}  # fmt: skip


def put_footer(path: Path, footer: bytes) -> None:
    data = path.read_bytes()
    rows = data[: -8 - len(footer_of(path))]
    path.write_bytes(rows + footer + len(footer).to_bytes(4, "little") + b"PAR1")


def test_meanings_that_arrow_does_not_write_stay(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table([array for array, _ in BY_HAND.values()], list(BY_HAND))
    pq.write_table(table, path, store_schema=False, write_statistics=False)
    fields, stored = decode_footer(footer_of(path))
    meanings = [meaning for _, meaning in BY_HAND.values()]
    elements = [stored.elements[0]]
    elements += [
        element | meaning for element, meaning in zip(stored.elements[1:], meanings, strict=True)
    ]
    fields[FileField.SCHEMA] = (LIST, (STRUCT, elements))
    no_value, twice = {1: (8, b"no value")}, {1: (8, b"twice"), 2: (8, b"\xff")}
    fields[FileField.KEY_VALUES] = (LIST, (STRUCT, [no_value, twice, twice]))
    put_footer(path, encode(fields))
    out = assert_faithful(path)
    # Where the stored order is not that of the meaning, statistics would be wrong.
    fields, _ = decode_footer(footer_of(out))
    chunks = chunks_of(decode_row_groups(fields))
    without = {name for name, chunk in zip(BY_HAND, chunks, strict=False) if 12 not in chunk}
    assert without == {"interval", "decimal_in_bytes", "unsigned", "unknown_type_of_tomorrow"}


def test_a_list_of_two_levels_stays_one(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    lists = pa.array([[1, 2], []] * (ROWS // 2), pa.list_(pa.field("e", pa.int32(), False)))
    struct = pa.StructArray.from_arrays([lists], fields=[pa.field("l", lists.type, False)])
    pq.write_table(pa.table({"s": struct}), path, store_schema=False)
    fields, stored = decode_footer(footer_of(path))
    root, s, _, repeated, element = stored.elements
    # A repeated value directly below the struct has the levels of the list of three levels.
    element = element | {ElementField.REPETITION: repeated[ElementField.REPETITION]}
    fields[FileField.SCHEMA] = (LIST, (STRUCT, [root, s, element]))
    put_footer(path, encode(fields))
    out = assert_faithful(path)
    assert pq.read_table(out)["s"].to_pylist()[:2] == [{"element": [1, 2]}, {"element": [1, 2]}]


def by_pyarrow(path: Path, table: pa.Table) -> None:
    pq.write_table(table, path, row_group_size=3)


def by_polars(path: Path, table: pa.Table) -> None:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    frame.with_columns(pl.col("source").cast(pl.Categorical)).write_parquet(path)


def by_duckdb(path: Path, table: pa.Table) -> None:
    with duckdb.connect() as database:
        database.register("rows", table)
        database.execute(
            "copy (select *, uuid() u, interval 3 day i, 'x'::enum('x', 'y') e, "
            f"1::hugeint h, map(['k'], [1]) m from rows) to '{path}' (format parquet)"
        )


def by_pandas(path: Path, table: pa.Table) -> None:
    frame = table.to_pandas()
    frame["source"] = pd.Categorical(frame["source"], ["c", "b", "a"], ordered=True)
    frame["when"] = frame["when"].dt.tz_localize("Europe/Berlin")
    frame.set_index(pd.Index([f"k{row}" for row in range(ROWS)], name="key")).to_parquet(path)


def by_fastparquet(path: Path, table: pa.Table) -> None:
    frame = table.drop_columns(["tags"]).to_pandas()
    fastparquet.write(str(path), frame, times="int96")


def by_datasets(path: Path, table: pa.Table) -> None:
    features = Features(
        {
            "instruction": Value("large_string"),
            "source": ClassLabel(names=["a", "b", "c"]),
            "tags": List(Value("string")),
            "when": Value("timestamp[us]"),
        }
    )
    Dataset.from_list(table.to_pylist(), features=features).to_parquet(path)


def by_int96(path: Path, table: pa.Table) -> None:
    years = pa.array([datetime.datetime(year, 12, 31) for year in (9999, 1, 1677, 2262) * 2])
    times = years.cast(pa.timestamp("ms"))
    # Arrow writes INT96 from nanoseconds only; so the days are set by hand, as Spark stores them.
    days = times.cast(pa.int64()).to_numpy() // 86_400_000 + 2_440_588
    stored = [bytes(8) + int(day).to_bytes(4, "little") for day in days]
    table = table.append_column("at", pa.array(stored, pa.binary(12)))
    pq.write_table(table, path, store_schema=False, write_statistics=False)
    fields, columns = decode_footer(footer_of(path))
    *elements, last = columns.elements
    last = {number: field for number, field in last.items() if number != ElementField.LENGTH}
    fields[FileField.SCHEMA] = (
        LIST, (STRUCT, [*elements, {**last, ElementField.TYPE: (I32, 3)}])
    )  # fmt: skip
    row_groups = decode_row_groups(fields)
    chunks_of(row_groups)[-1][1] = (I32, 3)
    fields[FileField.ROW_GROUPS] = (LIST, (STRUCT, row_groups))
    put_footer(path, encode(fields))


WRITERS = [by_pyarrow, by_polars, by_duckdb, by_pandas, by_fastparquet, by_datasets, by_int96]


@pytest.fixture(params=WRITERS, ids=lambda write: write.__name__)
def shard(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "a.parquet"
    table = pa.table(
        {
            "instruction": [f"Say {row}." for row in range(ROWS)],
            "source": ["a", "c", "b", "c"] * 2,
            "tags": [["x", None], [], None, ["y"]] * 2,
            "when": pa.array([datetime.datetime(2024, 5, 17, 1, 2, 3)] * ROWS),
        }
    )
    request.param(path, table)
    return path


def test_every_reader_sees_the_kept_rows_and_ifd(shard: Path) -> None:
    out = assert_faithful(shard)
    ifd = list(IFD[KEEP])

    read, kept = (pq.read_table(path, coerce_int96_timestamp_unit="us") for path in (shard, out))
    assert kept["ifd"].to_pylist() == ifd
    assert kept.drop_columns(["ifd"]).equals(read.filter(pa.array(KEEP)))
    assert kept.schema.remove(len(kept.schema) - 1).equals(read.schema)

    if b"duckdb" not in footer_of(shard):  # Polars does not read its interval
        frames = [pl.read_parquet(path) for path in (shard, out)]
        assert frames[1]["ifd"].to_list() == ifd
        assert frames[1].drop("ifd").equals(frames[0].filter(pl.Series(KEEP)))
        assert frames[1].drop("ifd").schema == frames[0].schema

    relations = [duckdb.read_parquet(str(path)) for path in (shard, out)]
    rows, kept_rows = (relation.fetchall() for relation in relations)
    wanted = [row for row, is_kept in zip(rows, KEEP, strict=True) if is_kept]
    assert kept_rows == [(*row, value) for row, value in zip(wanted, ifd, strict=True)]
    assert relations[1].types[:-1] == relations[0].types

    frame, kept_frame = (pd.read_parquet(path) for path in (shard, out))
    assert list(kept_frame.pop("ifd")) == ifd
    wanted_frame = frame[KEEP]
    if isinstance(frame.index, pd.RangeIndex):
        wanted_frame = wanted_frame.reset_index(drop=True)
    pd.testing.assert_frame_equal(kept_frame, wanted_frame)


def test_datasets_sees_its_features_and_ifd(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"instruction": ["x"] * ROWS, "source": ["a", "c"] * 4, "tags": [["t"]] * ROWS,
                      "when": pa.array([datetime.datetime(2024, 5, 17)] * ROWS)})  # fmt: skip
    by_datasets(path, table)
    out = filtered(path)
    before, after = (
        Dataset.from_parquet(str(file), cache_dir=str(tmp_path / "cache")) for file in (path, out)
    )
    assert after.features == {**before.features, "ifd": Value("float64")}
    assert after.remove_columns("ifd").to_list() == before.select(np.flatnonzero(KEEP)).to_list()


def test_int96_keeps_every_date(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    by_int96(path, pa.table({"a": ["x"] * ROWS}))
    kept = pq.read_table(assert_faithful(path), coerce_int96_timestamp_unit="us")["at"]
    assert [date.year for date in kept.to_pylist()] == [9999, 1677, 2262, 1, 2262]
