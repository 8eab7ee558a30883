"""Picks rows out of Arrow batches of any types: what comes out has the types that came in.

Arrow's own `filter` and `take` know neither views (`string_view`, `binary_view`) nor run-end
encoding, at any depth of nesting. Columns that hold such a type are picked apart here, down to the
parts that Arrow can take. Pure functions over arrays: no files. Does not know why a row is kept.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import types

_Rows = NDArray[np.int64]
_VIEW_BYTES = 16  # each value: its length, then the text itself or where it lies


def filter_rows(batch: pa.RecordBatch, mask: NDArray[np.bool_]) -> pa.RecordBatch:
    """The rows where `mask` is true, in a batch of the same schema.

    Args:
        batch: Rows.
        mask: [batch.num_rows]
    """
    if all(_is_plain(column_type) for column_type in batch.schema.types):
        return batch.filter(pa.array(mask))
    return _taken(batch, np.flatnonzero(mask))


def filter_table(table: pa.Table, mask: NDArray[np.bool_]) -> pa.Table:
    """The rows where `mask` is true, in a table of the same schema and with as many chunks."""
    batches, start = [], 0
    for batch in table.to_batches():
        stop = start + batch.num_rows
        batches.append(filter_rows(batch, mask[start:stop]))
        start = stop
    return pa.Table.from_batches(batches, table.schema)


def take_rows(table: pa.Table, rows: _Rows) -> pa.Table:
    """Rows of a table in the order asked for, in as few batches as can hold them.

    Args:
        table: Its dictionaries must be the same in all chunks: see `Table.unify_dictionaries`.
        rows: [n] numbers of rows of the table.
    """
    if not len(rows):
        return table.slice(0, 0)
    try:
        return pa.Table.from_batches([_taken_from_chunks(table, rows)])
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        # More than one batch can count, e.g. 2 GiB of text, or 32,767 rows with run ends of 16
        # bits; or of a type that Arrow cannot join, e.g. runs of an extension type.
        if len(rows) == 1:
            raise
        half = len(rows) // 2
        return pa.concat_tables([take_rows(table, rows[:half]), take_rows(table, rows[half:])])


def uncopyable(schema: pa.Schema) -> list[str]:
    """The columns whose rows cannot be picked, each as the reason for an error.

    Args:
        schema: Columns of an Arrow shard.
    """
    return [
        f"column {field.name!r} is {field.type}: Arrow {pa.__version__} cannot copy the type "
        f"{bad}; convert the column or leave it out"
        for field in schema
        for bad in _untakable(field.type)[:1]
    ]


def _untakable(value_type: pa.DataType) -> list[pa.DataType]:
    """The types inside a type, or itself, that Arrow cannot take."""
    if isinstance(value_type, pa.BaseExtensionType):
        return _untakable(value_type.storage_type)
    if value_type.num_fields:
        children = [value_type.field(i).type for i in range(value_type.num_fields)]
        return [bad for child in children for bad in _untakable(child)]
    try:
        # Tried, because what Arrow can do changes from version to version.
        _take(pa.nulls(1, value_type), np.arange(1))
    except (pa.ArrowException, KeyError, TypeError):
        return [value_type]
    return []


def _taken_from_chunks(table: pa.Table, rows: _Rows) -> pa.RecordBatch:
    batches = table.to_batches()
    ends = np.cumsum([batch.num_rows for batch in batches], dtype=np.int64)
    source = np.searchsorted(ends, rows, side="right")  # [n] the batch of each row
    # Batch by batch: in one piece, they may together have more text than offsets can count.
    picked = [
        _taken(batches[number], rows[source == number] - ends[number] + batches[number].num_rows)
        for number in np.unique(source)
    ]
    order = np.argsort(source, kind="stable")
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return _taken(picked[0] if len(picked) == 1 else pa.concat_batches(picked), back)


def _taken(batch: pa.RecordBatch, rows: _Rows) -> pa.RecordBatch:
    columns = [_take(column, rows) for column in batch.columns]
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def _is_plain(value_type: pa.DataType) -> bool:
    """Whether Arrow can take values of a type."""
    if isinstance(value_type, pa.BaseExtensionType):
        return _is_plain(value_type.storage_type)
    if _is_view(value_type) or types.is_run_end_encoded(value_type):
        return False
    # A dictionary is plain whatever its values are: only the indices are taken.
    return all(_is_plain(value_type.field(i).type) for i in range(value_type.num_fields))


def _is_view(value_type: pa.DataType) -> bool:
    return bool(types.is_string_view(value_type) or types.is_binary_view(value_type))


def _take(array: pa.Array, rows: _Rows) -> pa.Array:
    """[len(rows)] some values of an array, in the order asked for; the type stays."""
    value_type = array.type
    if _is_plain(value_type):
        return array.take(pa.array(rows))
    if isinstance(value_type, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(value_type, _take(array.storage, rows))
    if types.is_struct(value_type):
        children = [_take(array.field(i), rows) for i in range(value_type.num_fields)]
        return _built(value_type, _validity(array, rows), [], children, len(rows))
    for is_type, take in _TAKE:
        if is_type(value_type):
            return take(array, rows)
    raise pa.ArrowNotImplementedError(f"cannot take values of type {value_type}")


def _take_views(array: pa.Array, rows: _Rows) -> pa.Array:
    validity, views, *data = array.buffers()
    fixed = pa.binary(_VIEW_BYTES)
    cells = pa.Array.from_buffers(fixed, len(array), [validity, views], offset=array.offset)
    cells = cells.take(pa.array(rows))
    picked = pa.Array.from_buffers(pa.binary_view(), len(cells), [*cells.buffers(), *data])
    # Twice cast, the values refer to nothing but themselves; before, to the text of all rows. As
    # bytes, because text may be no valid UTF-8: that comes out as it came in.
    compact = picked.cast(pa.large_binary()).cast(pa.binary_view())
    return pa.Array.from_buffers(array.type, len(rows), compact.buffers(), offset=compact.offset)


def _take_runs(array: pa.Array, rows: _Rows) -> pa.Array:
    ends = array.run_ends.to_numpy()  # of the whole array, even where this is a slice of it
    run = np.searchsorted(ends, rows + array.offset, side="right")
    # Rows of one run that follow each other stay one run.
    first = np.flatnonzero(np.diff(run, prepend=-1))
    new_ends = pa.array(np.append(first[1:], len(run))[: len(first)], array.type.run_end_type)
    children = [new_ends, _take(array.values, run[first])]
    return _built(array.type, None, [], children, len(rows))


def _take_lists(array: pa.Array, rows: _Rows) -> pa.Array:
    """Takes lists of every kind, and maps."""
    value_type, length = array.type, len(array)
    is_fixed = types.is_fixed_size_list(value_type)
    has_sizes = types.is_list_view(value_type) or types.is_large_list_view(value_type)
    if is_fixed:
        starts = (np.arange(length) + array.offset) * value_type.list_size
        sizes = np.full(length, value_type.list_size)
    else:
        offsets = array.offsets.to_numpy().astype(np.int64)
        starts = offsets[:length]
        sizes = array.sizes.to_numpy().astype(np.int64) if has_sizes else np.diff(offsets)
        # A null may stand on values, which nobody can see.
        sizes = np.where(_is_valid(array), sizes, 0)
    starts, sizes = starts[rows], sizes[rows]
    ends = np.cumsum(sizes)
    total = int(ends[-1]) if len(ends) else 0
    inner = np.repeat(starts - (ends - sizes), sizes) + np.arange(total)
    buffers = []
    if not is_fixed:
        is_large = types.is_large_list(value_type) or types.is_large_list_view(value_type)
        count_type = pa.int64() if is_large else pa.int32()
        begins = ends - sizes if has_sizes else np.concatenate([[0], ends])
        buffers.append(_buffer(begins, count_type))
        if has_sizes:
            buffers.append(_buffer(sizes, count_type))
    values = _entries(array) if types.is_map(value_type) else array.values
    return _built(value_type, _validity(array, rows), buffers, [_take(values, inner)], len(rows))


def _entries(array: pa.MapArray) -> pa.StructArray:
    """What the offsets of an array of maps point into."""
    entry_type = pa.struct([array.type.key_field, array.type.item_field])
    children = [array.keys, array.items]
    return pa.Array.from_buffers(entry_type, len(array.keys), [None], children=children)


def _take_unions(array: pa.UnionArray, rows: _Rows) -> pa.Array:
    value_type = array.type
    # From the buffers: `type_codes` and `offsets` forget where a slice begins.
    _, code_buffer, *offset_buffer = array.buffers()[: 2 + (value_type.mode == "dense")]
    codes = np.frombuffer(code_buffer or b"", np.int8)[array.offset :][rows]
    fields = range(value_type.num_fields)
    if value_type.mode == "sparse":
        children = [_take(array.field(i), rows) for i in fields]
        return _built(value_type, None, [_buffer(codes, pa.int8())], children, len(rows))
    offsets = np.frombuffer(offset_buffer[0] or b"", np.int32)[array.offset :][rows]
    children, new_offsets = [], np.zeros(len(rows), np.int64)
    for i in fields:
        mine = codes == value_type.type_codes[i]
        children.append(_take(array.field(i), offsets[mine].astype(np.int64)))
        new_offsets[mine] = np.arange(mine.sum())
    buffers = [_buffer(codes, pa.int8()), _buffer(new_offsets, pa.int32())]
    return _built(value_type, None, buffers, children, len(rows))


def _is_list(value_type: pa.DataType) -> bool:
    return bool(
        types.is_list(value_type)
        or types.is_large_list(value_type)
        or types.is_list_view(value_type)
        or types.is_large_list_view(value_type)
        or types.is_fixed_size_list(value_type)
        or types.is_map(value_type)
    )


_TAKE: list[tuple[Callable[[pa.DataType], bool], Callable[[pa.Array, _Rows], pa.Array]]] = [
    (_is_view, _take_views),
    (types.is_run_end_encoded, _take_runs),
    (_is_list, _take_lists),
    (types.is_union, _take_unions),
]


def _built(
    value_type: pa.DataType,
    validity: pa.Buffer | None,
    buffers: Sequence[pa.Buffer],
    children: Sequence[pa.Array],
    length: int,
) -> pa.Array:
    return pa.Array.from_buffers(value_type, length, [validity, *buffers], children=children)


def _is_valid(array: pa.Array) -> NDArray[np.bool_]:
    valid: NDArray[np.bool_] = array.is_valid().to_numpy(zero_copy_only=False)
    return valid


def _validity(array: pa.Array, rows: _Rows) -> pa.Buffer | None:
    return pa.array(_is_valid(array)[rows]).buffers()[1] if array.null_count else None


def _buffer(numbers: NDArray[np.signedinteger], count_type: pa.DataType) -> pa.Buffer:
    return pa.array(numbers, count_type).buffers()[1]  # raises where a number is too large
