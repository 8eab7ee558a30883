"""Columns of shards become columns of a table that hold the same values, or are refused by name."""

import pyarrow as pa
import pytest

from sf_ray.errors import UsageError
from sf_ray.output.commits.columns import cast_batch, common_schema, fitted
from sf_ray.storage.table_names import TableKind


def common(kind: TableKind, *types: pa.DataType) -> pa.DataType:
    shards = [(f"{i}.parquet", pa.schema([("c", found)])) for i, found in enumerate(types)]
    return common_schema(kind, shards).field("c").type


def words(index: pa.DataType) -> pa.DataType:
    return pa.dictionary(index, pa.string())


@pytest.mark.parametrize(
    ("found", "iceberg", "delta"),
    [
        (pa.int8(), pa.int32(), pa.int8()),
        (pa.uint8(), pa.int32(), pa.int16()),
        (pa.uint32(), pa.int64(), pa.int64()),
        (pa.uint64(), pa.decimal128(20, 0), pa.decimal128(20, 0)),
        (pa.float16(), pa.float32(), pa.float32()),
        (pa.large_string(), pa.string(), pa.string()),
        (pa.string_view(), pa.string(), pa.string()),
        (words(pa.int8()), pa.string(), pa.string()),
        (pa.binary(4), pa.binary(4), pa.binary()),
        (pa.date64(), pa.date32(), pa.date32()),
        (
            pa.timestamp("s", "Europe/Paris"),
            pa.timestamp("us", "UTC"),
            pa.timestamp("us", "UTC"),
        ),
        (pa.decimal256(30, 2), pa.decimal128(30, 2), pa.decimal128(30, 2)),
        (pa.json_(), pa.string(), pa.string()),
        (pa.list_(pa.float32(), 3), pa.list_(pa.float32()), pa.list_(pa.float32())),
        (
            pa.large_list(pa.struct([("role", words(pa.int8())), ("n", pa.uint8())])),
            pa.list_(pa.struct([("role", pa.string()), ("n", pa.int32())])),
            pa.list_(pa.struct([("role", pa.string()), ("n", pa.int16())])),
        ),
        (pa.map_(pa.string(), pa.uint16()),) + (pa.map_(pa.string(), pa.int32()),) * 2,
    ],
)
def test_a_type_becomes_one_that_holds_the_same_values(
    found: pa.DataType, iceberg: pa.DataType, delta: pa.DataType
) -> None:
    assert common("iceberg", found) == iceberg
    assert common("delta", found) == delta


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("iceberg", pa.timestamp("ns")),
        ("delta", pa.timestamp("ns")),
        ("iceberg", pa.time64("ns")),
        ("delta", pa.time32("s")),
        ("iceberg", pa.duration("s")),
        ("delta", pa.decimal256(50, 2)),
        ("iceberg", pa.struct([])),
        ("iceberg", pa.struct([("a", pa.int8()), ("a", pa.int8())])),
        ("delta", pa.dense_union([pa.field("a", pa.int8())])),
        ("delta", pa.list_(pa.uuid())),
    ],
)
def test_a_type_that_no_table_holds_is_refused_by_the_name_of_its_column(
    kind: TableKind, found: pa.DataType
) -> None:
    with pytest.raises(UsageError, match=r"^0\.parquet: column 'c' has the type .* no \w+ table"):
        common(kind, found)


@pytest.mark.parametrize(
    ("kind", "names", "problem"),
    [
        ("iceberg", ["a", "a"], "is there twice"),
        ("delta", ["a", "A"], "is there twice"),
        ("iceberg", [""], "has no name"),
        ("iceberg", ["a.b"], "has a point in its name"),
        ("delta", ["a b"], "has one of the characters"),
    ],
)
def test_a_name_that_no_table_holds_is_refused(
    kind: TableKind, names: list[str], problem: str
) -> None:
    schema = pa.schema([pa.field(name, pa.string()) for name in names])
    with pytest.raises(UsageError, match=problem):
        common_schema(kind, [("s", schema)])
    if names == ["a", "A"]:
        assert common_schema("iceberg", [("s", schema)]).names == names


def test_shards_with_other_columns_are_one_table() -> None:
    first = pa.schema([pa.field("a", pa.int32(), nullable=False), ("n", pa.null())])
    second = pa.schema([("b", pa.string()), ("a", pa.int64()), ("n", pa.list_(pa.null()))])
    third = pa.schema([("n", pa.list_(pa.int8()))])
    found = common_schema("delta", [("1", first), ("2", second), ("3", third)])
    assert found == pa.schema([("a", pa.int64()), ("n", pa.list_(pa.int8())), ("b", pa.string())])
    assert all(field.nullable for field in found)
    struct = pa.struct([("x", pa.int32())])
    assert common("delta", struct, pa.struct([("x", pa.null())])) == struct
    for other in (pa.string(), pa.struct([("y", pa.int32())]), pa.struct([("x", pa.string())])):
        with pytest.raises(UsageError, match=r"column 'c' is struct.* in 0\.parquet and"):
            common("delta", struct, other)


def test_columns_take_the_types_of_a_table_that_is_there() -> None:
    ours = pa.schema([("a", pa.int32()), ("n", pa.null()), ("new", pa.string()), ("e", pa.null())])
    there = pa.schema([("x", pa.date32()), ("n", pa.int64()), ("a", pa.int64())])
    found = fitted("delta", "t", ours, there)
    assert found.schema == pa.schema(
        [("a", pa.int64()), ("n", pa.int64()), ("new", pa.string()), ("e", pa.string())]
    )
    assert (found.added, found.untyped) == (("new", "e"), ("e",))
    narrower = pa.schema([("a", pa.int16())])
    with pytest.raises(UsageError, match="its column 'a' is int16, and the rows have int32"):
        fitted("delta", "t", ours, narrower)


def test_rows_are_cast_and_null_where_they_have_no_column() -> None:
    batch = pa.record_batch(
        {
            "chat": pa.array(
                [[{"role": "a", "text": None}], None],
                pa.list_(pa.struct([("role", pa.large_string()), ("text", pa.null())])),
            ),
            "big": pa.array([2**64 - 1, 0], pa.uint64()),
            "word": pa.array(["x", None]).dictionary_encode(),
        }
    )
    schema = fitted("iceberg", "t", common_schema("iceberg", [("s", batch.schema)]), pa.schema([]))
    wanted = schema.schema.append(pa.field("more", pa.int8()))
    rows = cast_batch(batch, wanted).to_pylist()
    assert rows == [
        {"chat": [{"role": "a", "text": None}], "big": 2**64 - 1, "word": "x", "more": None},
        {"chat": None, "big": 0, "word": None, "more": None},
    ]
