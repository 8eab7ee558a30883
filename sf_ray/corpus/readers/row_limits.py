"""How large a row and what a file unpacks to may be: a small file must not fill a machine.

Pure functions over numbers and batches: no files.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import types

from sf_ray.storage.location import MAX_ROW_BYTES as MAX_ROW_BYTES  # for readers without a place

# What is unpacked at a time may be this much larger than a row, or than its packed bytes: text
# shrinks to a fifth, rarely to a thirtieth.
_ROWS_AT_ONCE, _PACKED_TIMES = 16, 64
# Rows of a file, at most: so many, and so many for each byte. Columns of one value take no bytes
# for a row, but text does.
_ROWS_A_FILE, _ROWS_A_BYTE = 1 << 20, 1024
# Values that take no bytes of their own, nulls and runs, inside of one array.
_MOST_FREE_VALUES = 1 << 24
# What a Python object takes, about, beside its content.
_OBJECT_BYTES = 8
_VIEW_NUMBERS = 4  # of 32 bits, in a view: its length first

_Sizes = NDArray[np.int64]
_TEXTS = (
    types.is_string,
    types.is_binary,
    types.is_large_string,
    types.is_large_binary,
    types.is_string_view,
    types.is_binary_view,
)


def size_text(size: int) -> str:
    """A number of bytes, for an error."""
    return f"{size / (1 << 20):,.0f} MiB" if size >= 1 << 20 else f"{size:,} bytes"


def most_unpacked(packed: int, max_row_bytes: int) -> int:
    """What some packed bytes may unpack to, as they are held in memory together.

    Args:
        packed: How many there are.
        max_row_bytes: The largest row.
    """
    return max(_ROWS_AT_ONCE * max_row_bytes, _PACKED_TIMES * packed)


def rows_problem(row_groups: tuple[int, ...], file_bytes: int) -> str:
    """What is wrong with the numbers of rows that a file claims; "" where nothing is.

    Args:
        row_groups: Of each row group.
        file_bytes: Size of the file.
    """
    rows = sum(row_groups)
    if any(group < 0 for group in row_groups):
        return f"it claims a row group of {min(row_groups):,} rows"
    if rows > _ROWS_A_FILE + _ROWS_A_BYTE * file_bytes:
        return f"it claims {rows:,} rows in {file_bytes:,} bytes"
    return ""


def split(
    batch: pa.RecordBatch, first_row: int, max_row_bytes: int, most_rows: int, most_bytes: int
) -> Iterator[pa.RecordBatch]:
    """Cuts a batch into pieces whose values take about `most_bytes` at most, as Python values.

    Text that many rows refer to, as in a dictionary, counts for each of them.

    Args:
        batch: A batch that passed `arrow_checks.check_batch`.
        first_row: The number of its first row, for an error.
        max_row_bytes: The largest row.
        most_rows: Rows of a piece, at most.
        most_bytes: Bytes of a piece, about; one row may have more.

    Raises:
        pa.ArrowInvalid: A row is larger than `max_row_bytes`.
    """
    if batch.num_rows > _MOST_FREE_VALUES * _OBJECT_BYTES:
        raise pa.ArrowInvalid(f"a record batch in it has {batch.num_rows:,} rows")
    if (
        batch.num_rows <= most_rows
        and _has_own_bytes(batch.schema)
        and (batch.nbytes <= min(most_bytes, max_row_bytes))
    ):
        yield batch
        return
    sizes = _sizes_of_rows(batch)
    if len(sizes) and (largest := int(sizes.max())) > max_row_bytes:
        raise pa.ArrowInvalid(
            f"row {first_row + int(sizes.argmax())} takes {size_text(largest)}, more than "
            f"--max-row-bytes {max_row_bytes}"
        )
    ends, start = np.cumsum(sizes), 0
    while start < batch.num_rows:
        before = int(ends[start - 1]) if start else 0
        fitting = int(np.searchsorted(ends, before + most_bytes, side="right"))
        stop = min(max(fitting, start + 1), start + most_rows, batch.num_rows)
        yield batch.slice(start, stop - start)
        start = stop


def size_of(batch: pa.RecordBatch) -> int:
    """About the bytes that all rows of a batch take as Python values."""
    if _has_own_bytes(batch.schema):
        return int(batch.nbytes)
    return int(_sizes_of_rows(batch).sum())


def _has_own_bytes(schema: pa.Schema) -> bool:
    """Whether every value of a batch has bytes of its own, which no other value shares."""
    return all(map(_is_owner, schema.types))


def _is_owner(value_type: pa.DataType) -> bool:
    if types.is_list(value_type) or types.is_large_list(value_type) or types.is_struct(value_type):
        inside = [value_type.field(number).type for number in range(value_type.num_fields)]
        return bool(inside) and all(map(_is_owner, inside))
    return bool(
        types.is_string(value_type)
        or types.is_large_string(value_type)
        or types.is_binary(value_type)
        or types.is_large_binary(value_type)
        or (types.is_primitive(value_type) and value_type.bit_width > 1)
    )


def _sizes_of_rows(batch: pa.RecordBatch) -> _Sizes:
    sizes = np.zeros(batch.num_rows, np.int64)
    for column in batch.columns:
        sizes += _sizes(column)
    return sizes


def _sizes(array: pa.Array) -> _Sizes:
    """[len(array)] about the bytes that each value takes as a Python value."""
    value_type = array.type
    if isinstance(value_type, pa.BaseExtensionType):
        return _sizes(array.storage)
    _refuse_free(array)
    if types.is_run_end_encoded(value_type):
        ends = array.run_ends.to_numpy()
        run = np.searchsorted(ends, np.arange(len(array)) + array.offset, side="right")
        of_runs: _Sizes = _sizes(array.values)[run]
        return of_runs
    if types.is_dictionary(value_type):
        values = np.append(_sizes(array.dictionary), _OBJECT_BYTES)
        places = array.indices.cast(pa.int64()).fill_null(len(array.dictionary))
        of_places: _Sizes = values[places.to_numpy()]
        return of_places
    if types.is_string_view(value_type) or types.is_binary_view(value_type):
        lengths = _numbers(array, np.int32, len(array), _VIEW_NUMBERS)[::_VIEW_NUMBERS]
        of_views: _Sizes = np.where(_is_valid(array), lengths.astype(np.int64), 0) + _OBJECT_BYTES
        return of_views
    return _sizes_of_offsets(array)


def _refuse_free(array: pa.Array) -> None:
    is_free = types.is_null(array.type) or types.is_run_end_encoded(array.type)
    if is_free and len(array) > _MOST_FREE_VALUES:
        raise pa.ArrowInvalid(f"it has {len(array):,} values that take no bytes")


def _numbers(array: pa.Array, number: type, count: int, each: int = 1) -> NDArray[Any]:
    """The numbers in the second buffer of an array that belong to `count` of its values.

    A stranger's buffer may end anywhere behind them.

    Args:
        array: An array that passed `arrow_checks.check_batch`.
        number: Type of the numbers.
        count: How many values.
        each: Numbers of each value.
    """
    if not count:
        return np.zeros(0, number)
    size = np.dtype(number).itemsize * each
    return np.frombuffer(array.buffers()[1], number, count * each, array.offset * size)


def _sizes_of_offsets(array: pa.Array) -> _Sizes:
    value_type, count = array.type, len(array)
    is_large = types.is_large_string(value_type) or types.is_large_binary(value_type)
    if is_large or types.is_string(value_type) or types.is_binary(value_type):
        number = np.int64 if is_large else np.int32
        if not count:
            return np.zeros(0, np.int64)
        own = _numbers(array, number, count + 1).astype(np.int64)
        return np.diff(own) + _OBJECT_BYTES
    if types.is_struct(value_type):
        sizes = np.full(count, _OBJECT_BYTES, np.int64)
        for part in range(value_type.num_fields):
            sizes += _sizes(array.field(part))
        return sizes
    if types.is_union(value_type):
        # Whichever it is: no more than the largest of each member, which is no more than a row.
        parts = [_sizes(array.field(part)) for part in range(value_type.num_fields)]
        largest = max((int(part.max()) for part in parts if len(part)), default=0)
        return np.full(count, largest + _OBJECT_BYTES, np.int64)
    if (size := _fixed_size(value_type)) is not None:
        return np.full(count, size, np.int64)
    if types.is_fixed_size_list(value_type):
        inside = np.concatenate([[0], np.cumsum(_sizes(array.values))])
        starts = (np.arange(count) + array.offset) * value_type.list_size
        of_lists: _Sizes = inside[starts + value_type.list_size] - inside[starts] + _OBJECT_BYTES
        return of_lists
    return _sizes_of_lists(array)


def _fixed_size(value_type: pa.DataType) -> int | None:
    """What each value of a type takes as a Python value; None where that depends on the value."""
    if isinstance(value_type, pa.BaseExtensionType):
        return _fixed_size(value_type.storage_type)
    if types.is_fixed_size_list(value_type):
        size = _fixed_size(value_type.value_type)
        return None if size is None else _OBJECT_BYTES + value_type.list_size * size
    if types.is_struct(value_type):
        sizes = [_fixed_size(value_type.field(part).type) for part in range(value_type.num_fields)]
        known = [size for size in sizes if size is not None]
        return _OBJECT_BYTES + sum(known) if len(known) == len(sizes) else None
    has_own_size = (
        types.is_nested(value_type)
        or types.is_dictionary(value_type)
        or types.is_run_end_encoded(value_type)
        or any(is_text(value_type) for is_text in _TEXTS)
    )
    return None if has_own_size else max(_OBJECT_BYTES, _width(value_type))


def _sizes_of_lists(array: pa.Array) -> _Sizes:
    """Sizes of lists of changing lengths, and maps; views of lists may overlap."""
    value_type, count = array.type, len(array)
    offsets = array.offsets.to_numpy().astype(np.int64)
    starts = offsets[:count]
    if types.is_list_view(value_type) or types.is_large_list_view(value_type):
        ends = starts + array.sizes.to_numpy()
    else:
        ends = offsets[1 : count + 1]
    valid = _is_valid(array)  # a null may stand on any numbers
    starts, ends = np.where(valid, starts, 0), np.where(valid, ends, 0)
    # Elements may be far more than rows, and take a bit each, or nothing: no number for each then.
    parts = [array.keys, array.items] if types.is_map(value_type) else [array.values]
    sizes: _Sizes = np.full(count, _OBJECT_BYTES, np.int64)
    for part in parts:
        _refuse_free(part)
        if (size := _fixed_size(part.type)) is not None:
            sizes += (ends - starts) * size
        else:
            inside = np.concatenate([[0], np.cumsum(_sizes(part))])
            sizes += inside[ends] - inside[starts]
    return sizes


def _width(value_type: pa.DataType) -> int:
    if types.is_null(value_type) or value_type.bit_width < 8:
        return 1
    return int(value_type.byte_width)


def _is_valid(array: pa.Array) -> NDArray[np.bool_]:
    valid: NDArray[np.bool_] = array.is_valid().to_numpy(zero_copy_only=False)
    return valid
