"""Whether Arrow data that a file brought is safe to look at, before a value of it is read.

Arrow takes offsets, sizes and indices as a file has them. One that points outside of its buffer
makes a reader give out memory of its own process as text, or ends the process. Pure functions over
schemas and batches: no files.
"""

from collections.abc import Callable, Sequence

import pyarrow as pa
from pyarrow import types

# As deep as Arrow's own IPC reader goes.
_MOST_DEPTH = 64


def check_schema(schema: pa.Schema) -> None:
    """Refuses types that are nested too deeply, and names that are no text.

    Raises:
        pa.ArrowInvalid: Says what is wrong.
    """
    try:
        for field in schema:
            _check_field(field, 0)
    except UnicodeDecodeError as error:
        raise pa.ArrowInvalid(f"a name in its schema is not valid UTF-8: {error}") from error


def _check_field(field: pa.Field, depth: int) -> None:
    if depth > _MOST_DEPTH:
        raise pa.ArrowInvalid(f"its types are nested over {_MOST_DEPTH} levels deep")
    assert isinstance(field.name, str)  # Arrow decodes it here
    str(field.type)  # has the names of time zones and of extensions
    inside = field.type
    while isinstance(inside, pa.BaseExtensionType):
        inside = inside.storage_type
    if types.is_dictionary(inside):
        _check_field(pa.field("", inside.value_type), depth + 1)
    for number in range(inside.num_fields):
        _check_field(inside.field(number), depth + 1)


def check_batch(batch: pa.RecordBatch) -> None:
    """Refuses a batch of which a value lies outside of the batch, at any depth.

    Values that are odd and lie inside pass, because they are copied as they are and judged row by
    row: text that is no UTF-8, a time past midnight, a decimal with too many digits.

    Args:
        batch: As it was read: no part of a larger one.

    Raises:
        pa.ArrowInvalid: Says what is wrong.
    """
    batch.validate()  # the sizes of all buffers, without which not even a type may be changed
    try:
        batch.validate(full=True)
    except (pa.ArrowInvalid, pa.ArrowIndexError):
        # It tells the first fault only, which may be an odd value with a wrong offset behind it.
        for column in batch.columns:
            _check_layout(column)


def _check_layout(column: pa.Array) -> None:
    try:
        _without_meaning(column).validate(full=True)
    except pa.ArrowIndexError as error:
        raise pa.ArrowInvalid(str(error)) from error


def _without_meaning(array: pa.Array) -> pa.Array:
    """The same buffers as values of types whose every bit pattern is valid.

    Arrow's full validation then checks where values lie, and nothing of what they are.
    """
    value_type = array.type
    if isinstance(value_type, pa.BaseExtensionType):
        return _without_meaning(array.storage)
    if types.is_dictionary(value_type):
        return pa.DictionaryArray.from_arrays(
            array.indices, _without_meaning(array.dictionary), ordered=False, safe=True
        )
    for is_type, plain in _PLAIN:
        if is_type(value_type):
            return _as(array, plain(value_type), 3, [])
    if types.is_string_view(value_type):
        return _as(array, pa.binary_view(), None, [])
    for is_type, own_buffers, parts in _NESTED:
        if is_type(value_type):
            children = [_without_meaning(part) for part in parts(array)]
            return _as(array, _with_children(value_type, children), own_buffers, children)
    return array


def _as(
    array: pa.Array, value_type: pa.DataType, own: int | None, children: Sequence[pa.Array]
) -> pa.Array:
    return pa.Array.from_buffers(
        value_type, len(array), array.buffers()[:own], -1, array.offset, children
    )


def _with_children(value_type: pa.DataType, children: Sequence[pa.Array]) -> pa.DataType:
    """A nested type with the types of other children."""
    names = [value_type.field(number).name for number in range(value_type.num_fields)]
    fields = [pa.field(name, part.type) for name, part in zip(names, children, strict=False)]
    if types.is_struct(value_type):
        return pa.struct(fields)
    if types.is_union(value_type):
        return pa.union(fields, value_type.mode, value_type.type_codes)
    if types.is_run_end_encoded(value_type):
        return pa.run_end_encoded(children[0].type, children[1].type)
    if types.is_fixed_size_list(value_type):
        return pa.list_(children[0].type, value_type.list_size)
    if types.is_list_view(value_type):
        return pa.list_view(children[0].type)
    if types.is_large_list_view(value_type):
        return pa.large_list_view(children[0].type)
    if types.is_large_list(value_type):
        return pa.large_list(children[0].type)
    return pa.list_(children[0].type)  # a map is a list of entries


def _fields(array: pa.Array) -> list[pa.Array]:
    return [array.field(number) for number in range(array.type.num_fields)]


def _entries(array: pa.MapArray) -> list[pa.Array]:
    entry = pa.struct([pa.field("key", array.keys.type), pa.field("value", array.items.type)])
    children = [array.keys, array.items]
    return [pa.Array.from_buffers(entry, len(array.keys), [None], children=children)]


_PLAIN: list[tuple[Callable[[pa.DataType], bool], Callable[[pa.DataType], pa.DataType]]] = [
    (types.is_string, lambda _: pa.binary()),
    (types.is_large_string, lambda _: pa.large_binary()),
    (types.is_date64, lambda _: pa.int64()),
    (types.is_time32, lambda _: pa.int32()),
    (types.is_time64, lambda _: pa.int64()),
    (types.is_decimal, lambda value_type: pa.binary(value_type.byte_width)),
]
# How to know a nested type, how many buffers it has itself, and what is inside.
_NESTED: list[tuple[Callable[[pa.DataType], bool], int, Callable[[pa.Array], list[pa.Array]]]] = [
    (types.is_struct, 1, _fields),
    (types.is_map, 2, _entries),
    (types.is_list, 2, lambda array: [array.values]),
    (types.is_large_list, 2, lambda array: [array.values]),
    (types.is_list_view, 3, lambda array: [array.values]),
    (types.is_large_list_view, 3, lambda array: [array.values]),
    (types.is_fixed_size_list, 1, lambda array: [array.values]),
    (types.is_run_end_encoded, 1, lambda array: [array.run_ends, array.values]),
    (
        lambda value_type: types.is_union(value_type) and value_type.mode == "sparse",
        2,
        _fields,
    ),
    (types.is_union, 3, _fields),
]
