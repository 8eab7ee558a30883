"""Columns of shards -> columns of a table. Types only: no rows, no table, no file.

Arrow has more types than a table format. A type becomes one that holds the same values, or the
column is refused by its name. Shards may have different columns: a row has null where its shard
lacks one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from sf_ray.errors import UsageError, first_line
from sf_ray.storage.table_names import TableKind
from sf_ray.text.printable import printable

# Without these characters in names, no reader of a Delta table needs its column mapping.
_NOT_IN_DELTA = " ,;{}()\n\t="
_UNSIGNED = {
    pa.uint8(): pa.int16(),
    pa.uint16(): pa.int32(),
    pa.uint32(): pa.int64(),
    pa.uint64(): pa.decimal128(20, 0),
}
# In the same table, a value of the first type is as good as one of the second.
_WIDER = {
    (pa.int8(), pa.int16()), (pa.int8(), pa.int32()), (pa.int8(), pa.int64()),
    (pa.int16(), pa.int32()), (pa.int16(), pa.int64()), (pa.int32(), pa.int64()),
    (pa.float32(), pa.float64()),
}  # fmt: skip


class UnfitError(Exception):
    """A type that a table cannot hold; the text says why."""


@dataclass(frozen=True)
class Fitted:
    """Columns of ours, as a table that is there takes them.

    Attributes:
        schema: Our columns, in the table's types where it has them.
        added: The names of those that it has not.
        untyped: Those among them that hold nothing but null, and so are text.
    """

    schema: pa.Schema
    added: tuple[str, ...] = ()
    untyped: tuple[str, ...] = ()


def common_schema(kind: TableKind, shards: Iterable[tuple[str, pa.Schema]]) -> pa.Schema:
    """The columns of all shards, in types that a table holds, all nullable.

    A column of which all shards have nothing but null has Arrow's null type still: see `fitted`.

    Args:
        kind: The format of the table.
        shards: Name -> schema of each shard, or of one shard for each schema.

    Raises:
        UsageError: Names the column that fits no table, or that two shards have in two types.
    """
    columns: dict[str, tuple[pa.DataType, str]] = {}
    for shard, schema in shards:
        _refuse_names(kind, shard, schema.names)
        for field in schema:
            found = _fit(kind, shard, field)
            known = columns.setdefault(field.name, (found, shard))
            if (wider := _wider(known[0], found)) is None:
                raise UsageError(
                    f"column {field.name!r} is {known[0]} in {printable(known[1])} and {found} in "
                    f"{printable(shard)}, so that no table can hold both: write the corpus with "
                    "one type, or leave --commit-to out"
                )
            columns[field.name] = (wider, shard)
    return pa.schema([pa.field(name, found) for name, (found, _) in columns.items()])


def fitted(kind: TableKind, where: str, ours: pa.Schema, theirs: pa.Schema) -> Fitted:
    """Our columns, as a table that is there takes them.

    Args:
        kind: The format of the table.
        where: Its name, for errors.
        ours: From `common_schema`.
        theirs: Its columns; none where the table is made.

    Raises:
        UsageError: A column has another type there, or is one that the table must have.
    """
    required = [f.name for f in theirs if not f.nullable]
    if required:
        raise UsageError(
            f"{where}: its column {required[0]!r} must not be null, which rows of a corpus do not "
            "promise: make it optional there, or commit to another table"
        )
    fields, added = [], []
    for field in ours:
        at = theirs.get_field_index(field.name)
        if at < 0:
            added.append(field)
            fields.append(pa.field(field.name, _typed(field.type)))
            continue
        wanted = theirs.field(at).type
        if not _is_as_good(field.type, _normal(kind, wanted)):
            raise UsageError(
                f"{where}: its column {field.name!r} is {wanted}, and the rows have {field.type} "
                "there: name another table, or rename the column of the corpus (the added one by "
                "--ifd-column)"
            )
        fields.append(pa.field(field.name, wanted))
    untyped = [field.name for field in added if pa.types.is_null(field.type)]
    return Fitted(pa.schema(fields), tuple(field.name for field in added), tuple(untyped))


def cast_batch(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Rows with the columns of `schema`, null where they have none.

    Raises:
        ArrowException: A value does not fit the type; see `common_schema`, which asks types alone.
    """
    columns = []
    for field in schema:
        at = batch.schema.get_field_index(field.name)
        columns.append(
            pa.nulls(batch.num_rows, field.type) if at < 0 else _cast(batch.column(at), field.type)
        )
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _cast(values: pa.Array, wanted: pa.DataType) -> pa.Array:
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    return values.cast(wanted)


def _refuse_names(kind: TableKind, shard: str, names: Sequence[str]) -> None:
    folded = [name.casefold() for name in names] if kind == "delta" else list(names)
    for name, key in zip(names, folded, strict=True):
        problem = None
        if not name:
            problem = "has no name"
        elif folded.count(key) > 1:
            problem = "is there twice"
        elif kind == "iceberg" and "." in name:
            problem = "has a point in its name, which stands for a nested column there"
        elif kind == "delta" and any(letter in name for letter in _NOT_IN_DELTA):
            problem = f"has one of the characters {_NOT_IN_DELTA!r} in its name"
        if problem:
            raise UsageError(
                f"{printable(shard)}: column {name!r} {problem}, so that no {kind} table can hold "
                "it: rename it in the corpus, or leave --commit-to out"
            )


def _fit(kind: TableKind, shard: str, field: pa.Field) -> pa.DataType:
    """The type of a column in a table; tried, because Arrow cannot cast every type."""
    try:
        found = _normal(kind, field.type)
        _cast(pa.array([], field.type), _typed(found))
    except (UnfitError, pa.ArrowException) as error:
        raise UsageError(
            f"{printable(shard)}: column {field.name!r} has the type {field.type}, which no {kind} "
            f"table can hold ({first_line(error)}): write the corpus with another type, or leave "
            "--commit-to out"
        ) from None
    return found


def _normal(kind: TableKind, found: pa.DataType) -> pa.DataType:
    """One type for all that hold the same values.

    Raises:
        UnfitError: There is none.
    """
    if isinstance(found, pa.BaseExtensionType):
        return _normal(kind, found.storage_type)
    if pa.types.is_nested(found):
        return _normal_nested(kind, found)
    if pa.types.is_dictionary(found):
        return _normal(kind, found.value_type)
    if pa.types.is_null(found):
        return found
    if found in _UNSIGNED:
        return _normal(kind, _UNSIGNED[found])
    if pa.types.is_temporal(found):
        return _normal_time(kind, found)
    if pa.types.is_decimal(found):
        if found.precision > 38 or not 0 <= found.scale <= found.precision:
            raise UnfitError("more than 38 digits, or a negative scale")
        return pa.decimal128(found.precision, found.scale)
    if pa.types.is_fixed_size_binary(found):
        return found if kind == "iceberg" else pa.binary()
    for is_one, normal in (
        (pa.types.is_string, pa.string()),
        (pa.types.is_large_string, pa.string()),
        (pa.types.is_string_view, pa.string()),
        (pa.types.is_binary, pa.binary()),
        (pa.types.is_large_binary, pa.binary()),
        (pa.types.is_binary_view, pa.binary()),
        (pa.types.is_float16, pa.float32()),
    ):
        if is_one(found):
            return normal
    if kind == "iceberg" and found in (pa.int8(), pa.int16()):
        return pa.int32()  # the narrowest that it has
    if pa.types.is_boolean(found) or pa.types.is_integer(found) or pa.types.is_floating(found):
        return found
    raise UnfitError("no type of a table is like it")


def _normal_time(kind: TableKind, found: pa.DataType) -> pa.DataType:
    if pa.types.is_date(found):
        return pa.date32()
    if pa.types.is_timestamp(found):
        if found.unit == "ns":
            raise UnfitError("tables have microseconds, and these are nanoseconds")
        return pa.timestamp("us", tz="UTC" if found.tz else None)
    if pa.types.is_time(found) and kind == "iceberg":
        if found.unit == "ns":
            raise UnfitError("tables have microseconds, and these are nanoseconds")
        return pa.time64("us")
    raise UnfitError("no type of a table is like it")


def _normal_nested(kind: TableKind, found: pa.DataType) -> pa.DataType:
    if pa.types.is_struct(found):
        if not found.num_fields:
            raise UnfitError("a struct without fields")
        if len({field.name for field in found}) < found.num_fields:
            raise UnfitError("a struct with two fields of one name")
        return pa.struct([pa.field(f.name, _normal(kind, f.type)) for f in found])
    if pa.types.is_map(found):
        return pa.map_(_normal(kind, found.key_type), _normal(kind, found.item_type))
    if pa.types.is_union(found) or not hasattr(found, "value_type"):
        raise UnfitError("no type of a table is like it")
    return pa.list_(pa.field("element", _normal(kind, found.value_type)))


def _typed(found: pa.DataType) -> pa.DataType:
    """Text in the place of what is null in every row: no table has a type for that alone."""
    if pa.types.is_null(found):
        return pa.string()
    if pa.types.is_struct(found):
        return pa.struct([pa.field(f.name, _typed(f.type)) for f in found])
    if pa.types.is_map(found):
        return pa.map_(_typed(found.key_type), _typed(found.item_type))
    if pa.types.is_list(found):
        return pa.list_(pa.field("element", _typed(found.value_type)))
    return found


def _wider(first: pa.DataType, second: pa.DataType) -> pa.DataType | None:
    """The type that holds the values of both; None where there is none."""
    if _is_as_good(first, second):
        return second
    if _is_as_good(second, first):
        return first
    if pa.types.is_list(first) and pa.types.is_list(second):
        wider = _wider(first.value_type, second.value_type)
        return None if wider is None else pa.list_(pa.field("element", wider))
    if pa.types.is_struct(first) and pa.types.is_struct(second):
        fields = [(f.name, _wider(f.type, g.type)) for f, g in zip(first, second, strict=False)]
        if [f.name for f in first] != [g.name for g in second] or None in dict(fields).values():
            return None
        return pa.struct(fields)
    return None


def _is_as_good(ours: pa.DataType, theirs: pa.DataType) -> bool:
    """Whether a column of the second type holds values of the first."""
    if pa.types.is_struct(ours) and pa.types.is_struct(theirs):
        return [f.name for f in ours] == [f.name for f in theirs] and all(
            _is_as_good(f.type, g.type) for f, g in zip(ours, theirs, strict=True)
        )
    if pa.types.is_list(ours) and pa.types.is_list(theirs):
        return _is_as_good(ours.value_type, theirs.value_type)
    return ours == theirs or pa.types.is_null(ours) or (ours, theirs) in _WIDER
