"""The rows of a data file, under the names and types that its table has today.

A table may rename, add, drop and widen columns without writing its files again. Which column of a
file is which, its ids say (Iceberg) or the name that the table keeps for it (Delta); a name alone
says nothing: two columns may have changed names. Knows no table format.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sf_ray.corpus.readers.parquet import ParquetReader
from sf_ray.corpus.tables.snapshot import DataFile, TableColumns
from sf_ray.corpus.units import Footer
from sf_ray.errors import BadShardError, first_line

# Keys of a field's metadata. The id of a column, as Parquet files have it too.
FIELD_ID = b"PARQUET:field_id"
# The name that files have for a column, whatever it is called today.
STORED_NAME = b"delta.columnMapping.physicalName"
# Names, as JSON, that a column may have in files without ids.
OTHER_NAMES = b"sf_ray.names"
# The value, as JSON, of a column that is younger than a file.
DEFAULT = b"sf_ray.default"


def stored_at(wanted: pa.Field, stored: Sequence[pa.Field]) -> int | None:
    """The place of a column among those of a file, or of a field among those of a struct.

    Args:
        wanted: The column, as the table has it.
        stored: What the file has.

    Returns:
        None where the file has no such column: it is younger than the file.
    """
    known = wanted.metadata or {}
    if STORED_NAME in known:
        names = [known[STORED_NAME].decode()]
    elif FIELD_ID in known and any(FIELD_ID in (field.metadata or {}) for field in stored):
        ids = [(field.metadata or {}).get(FIELD_ID) for field in stored]
        return ids.index(known[FIELD_ID]) if known[FIELD_ID] in ids else None
    else:
        names = json.loads(known[OTHER_NAMES]) if OTHER_NAMES in known else [wanted.name]
    return next((place for place, field in enumerate(stored) if field.name in names), None)


def without_keys(schema: pa.Schema) -> pa.Schema:
    """The columns without what says how files call them."""
    return pa.schema([_plain(field) for field in schema])


def live_footer(file: DataFile, footer: Footer) -> Footer:
    """The footer of a file, without the rows that a deletion vector removes.

    Raises:
        BadShardError: The file is not the one that the table speaks of.
    """
    rows = sum(footer.row_groups)
    if file.rows is not None and rows != file.rows:
        raise BadShardError(
            file.relative, f"has {rows:,} rows, and its table says that it has {file.rows:,}"
        )
    columns = file.columns
    if columns.refuse_without_ids and not _has_ids(footer.schema):
        raise BadShardError(file.relative, columns.refuse_without_ids)
    for field in columns.schema:
        place = stored_at(field, list(footer.schema))
        if place is not None:
            _check(file, footer.schema.field(place), field)
    if columns.kept is None:
        return footer
    kept = np.split(_bits(columns.kept, rows), np.cumsum(footer.row_groups)[:-1])
    return replace(footer, row_groups=tuple(int(of_group.sum()) for of_group in kept))


class TableReader:
    """The rows of a data file as its table has them; a `ShardReader`."""

    def __init__(self, file: DataFile, reader: ParquetReader) -> None:
        self._file, self._reader = file, reader
        self._columns: TableColumns = file.columns
        self.schema: pa.Schema = without_keys(file.columns.schema)

    def batches(
        self,
        rows: int,
        columns: Sequence[str] | None = None,
        groups: range | None = None,
        offset: int = 0,
    ) -> Iterator[pa.RecordBatch]:
        """See `ShardReader.batches`. Ignores `offset`: the footer says where row groups begin."""
        names = self.schema.names if columns is None else list(dict.fromkeys(columns))
        stored = list(self._reader.schema)
        wanted = [self._columns.schema.field(name) for name in names]
        places = [stored_at(field, stored) for field in wanted]
        # The rows must be counted, also where all columns are younger than the file.
        to_read = [stored[place].name for place in places if place is not None] or [stored[0].name]
        row = sum(self._reader.row_groups[: groups.start]) if groups else 0
        kept = self._kept()
        schema = pa.schema([self.schema.field(name) for name in names])
        for batch in self._reader.batches(rows, to_read, groups):
            arrays = [
                self._made(field, None if place is None else stored[place], batch)
                for field, place in zip(wanted, places, strict=True)
            ]
            made = pa.RecordBatch.from_arrays(arrays, schema=schema)
            if kept is not None:
                made = made.filter(pa.array(kept[row : row + batch.num_rows]))
            row += batch.num_rows
            yield made

    def _kept(self) -> NDArray[np.bool_] | None:
        if self._columns.kept is None:
            return None
        return _bits(self._columns.kept, sum(self._reader.row_groups))

    def _made(self, wanted: pa.Field, stored: pa.Field | None, batch: pa.RecordBatch) -> pa.Array:
        if stored is not None:
            with _unreadable_column_is_bad(self._file, stored, wanted):
                column = batch.column(batch.schema.names.index(stored.name))
                return _converted(column, stored, wanted)
        value = self._columns.constants.get(wanted.name)
        return _missing(wanted, batch.num_rows, value)


@contextmanager
def _unreadable_column_is_bad(file: DataFile, stored: pa.Field, wanted: pa.Field) -> Iterator[None]:
    """Turns errors of Arrow about a column into a `BadShardError`."""
    try:
        yield
    except (pa.ArrowException, ValueError) as error:
        raise BadShardError(
            file.relative,
            f"its column {stored.name!r} has the type {stored.type}, and the table has "
            f"{wanted.type} as {wanted.name!r} ({first_line(error)})",
        ) from error


def _check(file: DataFile, stored: pa.Field, wanted: pa.Field) -> None:
    """Refuses a column that cannot become what its table has, before a row is read."""
    with _unreadable_column_is_bad(file, stored, wanted):
        _converted(pa.nulls(0, stored.type), stored, wanted)


def _converted(column: pa.Array, stored: pa.Field, wanted: pa.Field) -> pa.Array:
    """A column of a file as its table has it, also inside of structs, lists and maps.

    Raises:
        pa.ArrowException: A value does not fit.
    """
    target = _plain(wanted).type
    types = pa.types
    if types.is_struct(wanted.type) and types.is_struct(stored.type):
        fields = list(stored.type)
        parts = column.flatten()  # nulls of the struct are nulls of its parts
        made = []
        for field in wanted.type:
            place = stored_at(field, fields)
            made.append(
                _missing(field, len(column), None)
                if place is None
                else _converted(parts[place], fields[place], field)
            )
        names = [pa.field(field.name, _plain(field).type) for field in wanted.type]
        mask = column.is_null() if column.null_count else None
        return pa.StructArray.from_arrays(made, fields=names, mask=mask).cast(target)
    if _is_list(wanted.type) and _is_list(stored.type):
        inside = _converted(column.flatten(), stored.type.value_field, wanted.type.value_field)
        sizes = column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
        offsets = pa.array(np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]), pa.int64())
        mask = column.is_null() if column.null_count else None
        return pa.LargeListArray.from_arrays(offsets, inside, mask=mask).cast(target)
    # Arrow itself gives null for a field of another name, and does not say so.
    if not _has_same_fields(stored.type, wanted.type):
        raise ValueError("fields inside of a map were renamed, added or dropped; write it anew")
    return column if column.type.equals(target) else column.cast(target)


def _has_same_fields(stored: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether each field, at any depth, is at the same place and under the same name."""
    types = pa.types
    if types.is_map(stored) and types.is_map(wanted):
        return _has_same_fields(stored.key_type, wanted.key_type) and _has_same_fields(
            stored.item_type, wanted.item_type
        )
    if _is_list(stored) and _is_list(wanted):
        return _has_same_fields(stored.value_type, wanted.value_type)
    if types.is_struct(stored) and types.is_struct(wanted):
        fields = list(stored)
        return len(fields) == wanted.num_fields and all(
            stored_at(field, fields) == place
            and fields[place].name == field.name
            and _has_same_fields(fields[place].type, field.type)
            for place, field in enumerate(wanted)
        )
    return True


def _missing(wanted: pa.Field, rows: int, value: object) -> pa.Array:
    """A column that a file lacks: its partition's value, its default, or nulls."""
    target = _plain(wanted).type
    if value is None and DEFAULT in (wanted.metadata or {}):
        value = json.loads(wanted.metadata[DEFAULT])
    if value is None:
        return pa.nulls(rows, target)
    return pa.repeat(pa.scalar(value).cast(target), rows)


def _is_list(column_type: pa.DataType) -> bool:
    return bool(pa.types.is_list(column_type) or pa.types.is_large_list(column_type))


def _has_ids(schema: pa.Schema) -> bool:
    return any(FIELD_ID in (field.metadata or {}) for field in schema)


def _bits(kept: bytes, rows: int) -> NDArray[np.bool_]:
    bits = np.unpackbits(np.frombuffer(kept, np.uint8), count=rows, bitorder="little")
    return bits.astype(np.bool_)


def _plain(field: pa.Field) -> pa.Field:
    """A field without metadata, at any depth; a column may be null, whatever its table promises."""
    return pa.field(field.name, _plain_type(field.type))


def _plain_type(column_type: pa.DataType) -> pa.DataType:
    types = pa.types
    if types.is_struct(column_type):
        return pa.struct([_plain(field) for field in column_type])
    if types.is_large_list(column_type):
        return pa.large_list(_plain(column_type.value_field))
    if types.is_list(column_type):
        return pa.list_(_plain(column_type.value_field))
    if types.is_map(column_type):
        return pa.map_(_plain_type(column_type.key_type), _plain_type(column_type.item_type))
    return column_type
