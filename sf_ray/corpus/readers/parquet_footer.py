"""A Parquet footer without the meaning of its values, so that they can be copied bit by bit.

A footer says for each column how its values are stored (the physical type and the nesting), and
what they mean (the logical type). Whoever copies rows needs only the first: read by their meaning,
values may change (a timestamp does not fit into 64 bits of nanoseconds), or have no Arrow type. So
rows are read with a footer that has no meanings, and `StoredColumns` keeps them for the file that
is written. Knows no files.

https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift has the numbers
of all fields.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from sf_ray.corpus.readers.thrift_compact import (
    BINARY,
    I32,
    LIST,
    STRUCT,
    CompactError,
    Struct,
    decode,
    decode_value,
    encode,
)


class FileField(IntEnum):
    """Fields of `FileMetaData`."""

    SCHEMA = 2
    ROW_GROUPS = 4
    KEY_VALUES = 5
    ENCRYPTION = 8


class ElementField(IntEnum):
    """Fields of `SchemaElement`."""

    TYPE = 1
    LENGTH = 2
    REPETITION = 3
    NAME = 4
    CHILDREN = 5
    CONVERTED = 6
    LOGICAL = 10


class ChunkField(IntEnum):
    """Fields of `ColumnMetaData`, which a row group has for each leaf."""

    TYPE = 1
    PATH = 3
    CODEC = 4
    VALUES = 5
    UNPACKED = 6
    PACKED = 7
    PAGES = 9
    DICTIONARY = 11
    STATISTICS = 12


_COLUMNS_OF_GROUP, _METADATA_OF_CHUNK = 1, 3
# Physical types.
_INT32, _INT64, INT96, BYTE_ARRAY, FIXED = 1, 2, 3, 6, 7
INT96_BYTES = 12
_OPTIONAL, _REPEATED = 1, 2
# Logical types, and the older converted types, whose values are in order where the stored ones are:
# text, enumerations, dates, times, signed integers, JSON, BSON and UUID.
_DECIMAL, _INTEGER = 5, 10
_ORDERED = {1, 4, 6, 7, 8, 12, 13, 14}
_ORDERED_CONVERTED = {0, 4, 6, 7, 8, 9, 10, 15, 16, 17, 18, 19, 20}
# What says how a value is stored, in an element; the rest says what it means.
_STORAGE = (
    ElementField.TYPE,
    ElementField.LENGTH,
    ElementField.REPETITION,
    ElementField.CHILDREN,
)


@contextmanager
def _damage_is_told() -> Iterator[None]:
    """Turns what becomes of a footer whose fields are absent, or of other types, into one error."""
    try:
        yield
    except (LookupError, TypeError, AttributeError, RecursionError) as error:
        raise CompactError("its columns are damaged") from error
    except ValueError as error:
        raise CompactError(f"its columns are damaged ({error})") from error


@dataclass(frozen=True)
class Leaf:
    """A column of values in a file.

    Attributes:
        path: Names from the top-level column down to the leaf.
        storage: Physical type, and the length where it is fixed.
        levels: (highest definition level, highest repetition level).
        is_ordered: Whether the stored values have the order of what they mean, so that the least
            and greatest stored ones are true statistics.
    """

    path: tuple[bytes, ...]
    storage: tuple[int, int]
    levels: tuple[int, int]
    is_ordered: bool


@dataclass(frozen=True)
class StoredColumns:
    """All that a footer says of the columns, and the key-value metadata of the file.

    Attributes:
        elements: `SchemaElement`s: the root, then its children, depth first.
        key_values: `KeyValue`s; None where the footer has no list of them.
    """

    elements: tuple[Struct, ...]
    key_values: tuple[Struct, ...] | None

    @property
    def leaves(self) -> list[Leaf]:
        """The leaves, in the order of the file."""
        leaves: list[Leaf] = []
        with _damage_is_told():
            end = _walk(self.elements, 0, (), (0, 0), leaves)
        if end != len(self.elements):
            raise CompactError("its schema has more elements than children")
        return leaves


def decode_footer(footer: bytes) -> tuple[Struct, StoredColumns]:
    """The fields of a footer, `Encoded`, and what it says of its columns.

    Raises:
        CompactError: The footer cannot be read.
    """
    fields, _ = decode(footer)
    elements = _decoded_list(fields, FileField.SCHEMA)
    if not elements:
        raise CompactError("it has no schema")
    key_values = _decoded_list(fields, FileField.KEY_VALUES)
    return fields, StoredColumns(tuple(elements), None if key_values is None else tuple(key_values))


def is_encrypted(footer: bytes) -> bool:
    """Whether some columns are encrypted although the footer is not.

    Raises:
        CompactError: The footer cannot be read.
    """
    return FileField.ENCRYPTION in decode(footer)[0]


def without_meaning(footer: bytes) -> tuple[bytes, StoredColumns]:
    """The footer with which to copy rows, and what was taken out of it.

    Elements are called by their number, so that no name can be there twice or need an escape.

    Raises:
        CompactError: The footer cannot be read.
    """
    fields, stored = decode_footer(footer)
    with _damage_is_told():
        return _encoded_without_meaning(fields, stored), stored


def _encoded_without_meaning(fields: Struct, stored: StoredColumns) -> bytes:
    elements: list[Struct] = []
    for number, element in enumerate(stored.elements):
        plain: Struct = {field: element[field] for field in _STORAGE if field in element}
        plain[ElementField.NAME] = (BINARY, str(number).encode())
        if _is_int96(element):
            # Arrow reads INT96 as a timestamp; as bytes it is stored in the same way.
            plain[ElementField.TYPE] = (I32, FIXED)
            plain[ElementField.LENGTH] = (I32, INT96_BYTES)
        elements.append(plain)
    fields[FileField.SCHEMA] = (LIST, (STRUCT, elements))
    fields.pop(FileField.KEY_VALUES, None)  # an Arrow schema there would bring meaning back
    if any(map(_is_int96, stored.elements)):
        row_groups = _decoded_list(fields, FileField.ROW_GROUPS) or []
        for chunk in chunks_of(row_groups):
            if chunk[ChunkField.TYPE][1] == INT96:
                chunk[ChunkField.TYPE] = (I32, FIXED)
                chunk.pop(ChunkField.STATISTICS, None)
        fields[FileField.ROW_GROUPS] = (LIST, (STRUCT, row_groups))
    return encode(fields)


class Chunk(NamedTuple):
    """Where the values of a leaf in a row group lie, and what they take.

    Attributes:
        start: The first byte of its first page.
        packed_bytes: Its size in the file.
        unpacked_bytes: Its size before compression.
        values: How many values it has, nulls and elements of lists included.
        has_dictionary: Whether its first page has values that others refer to.
        physical: The physical type.
        codec: The number of the compression of its pages.
    """

    start: int
    packed_bytes: int
    unpacked_bytes: int
    values: int
    has_dictionary: bool
    physical: int
    codec: int


def located_chunks(footer: bytes, leaves: int) -> list[list[Chunk]]:
    """The chunks of each row group.

    Arrow would end the process where it is asked for a chunk whose statistics are damaged.

    Args:
        footer: The footer.
        leaves: How many leaves the schema has.

    Raises:
        CompactError: The footer cannot be read, or lacks chunks.
    """
    row_groups = decode_row_groups(decode(footer)[0])
    with _damage_is_told():
        located = [[*map(_located, chunks_of([row_group]))] for row_group in row_groups]
    if any(len(chunks) != leaves for chunks in located):
        raise CompactError("a row group in it has other columns than the schema")
    return located


def _located(chunk: Struct) -> Chunk:
    pages: int = chunk[ChunkField.PAGES][1]
    has_dictionary = ChunkField.DICTIONARY in chunk
    dictionary = chunk[ChunkField.DICTIONARY][1] if has_dictionary else pages
    return Chunk(
        start=min(pages, dictionary),
        packed_bytes=chunk[ChunkField.PACKED][1],
        unpacked_bytes=max(0, chunk[ChunkField.UNPACKED][1]),
        values=chunk[ChunkField.VALUES][1],
        has_dictionary=has_dictionary,
        physical=chunk[ChunkField.TYPE][1],
        codec=chunk[ChunkField.CODEC][1],
    )


def decode_row_groups(fields: Struct) -> list[Struct]:
    """The `RowGroup`s of a footer whose fields are `Encoded`.

    Raises:
        CompactError: They cannot be read.
    """
    return _decoded_list(fields, FileField.ROW_GROUPS) or []


def chunks_of(row_groups: list[Struct]) -> list[Struct]:
    """The `ColumnMetaData` of every leaf, row group after row group; may be changed in place."""
    return [
        column[_METADATA_OF_CHUNK][1]
        for row_group in row_groups
        for column in row_group[_COLUMNS_OF_GROUP][1][1]
        if _METADATA_OF_CHUNK in column
    ]


def _decoded_list(fields: Struct, number: int) -> list[Struct] | None:
    if number not in fields:
        return None
    element_type, structs = decode_value(*fields[number])
    if structs and element_type != STRUCT:
        raise CompactError("a list in it is none of structs")
    decoded: list[Struct] = structs
    return decoded


def _is_int96(element: Struct) -> bool:
    return ElementField.TYPE in element and element[ElementField.TYPE][1] == INT96


def _walk(
    elements: tuple[Struct, ...],
    at: int,
    path: tuple[bytes, ...],
    levels: tuple[int, int],
    leaves: list[Leaf],
) -> int:
    """Adds the leaves below element `at`; returns the number of the element behind them."""
    if at >= len(elements):
        raise CompactError("its schema has fewer elements than children")
    element = elements[at]
    if at:
        repetition = _integer(element, ElementField.REPETITION)
        definition = levels[0] + (repetition in (_OPTIONAL, _REPEATED))
        levels = definition, levels[1] + (repetition == _REPEATED)
        path = (*path, element[ElementField.NAME][1])
    if at and ElementField.TYPE in element:
        physical = _integer(element, ElementField.TYPE)
        length = _integer(element, ElementField.LENGTH) if physical == FIXED else 0
        leaves.append(Leaf(path, (physical, length), levels, _is_ordered(element)))
        return at + 1
    below = at + 1
    for _ in range(_integer(element, ElementField.CHILDREN)):
        below = _walk(elements, below, path, levels, leaves)
    return below


def _integer(element: Struct, field: ElementField) -> int:
    value: int = element[field][1] if field in element else 0
    return value


def _is_ordered(element: Struct) -> bool:
    physical = _integer(element, ElementField.TYPE)
    if physical == INT96:
        return False
    if ElementField.LOGICAL in element:
        ((logical, (_, parameters)),) = element[ElementField.LOGICAL][1].items()
        if logical == _INTEGER:
            return 2 in parameters and parameters[2][0] == 1  # isSigned
        if logical == _DECIMAL:
            return physical in (_INT32, _INT64)
        return logical in _ORDERED
    if ElementField.CONVERTED in element:
        converted = _integer(element, ElementField.CONVERTED)
        return converted in _ORDERED_CONVERTED or (
            converted == _DECIMAL and physical in (_INT32, _INT64)
        )
    return True
