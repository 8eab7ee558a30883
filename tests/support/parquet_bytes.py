"""Parquet files of a few bytes whose one column, `a`, says of itself what the test wants."""

import struct
from collections.abc import Sequence

import pyarrow as pa

from sf_ray.corpus.readers.thrift_compact import BINARY, I32, I64, LIST, STRUCT, Struct, encode

PLAIN, DELTA_BYTE_ARRAY, RLE_DICTIONARY = 0, 7, 8
INT32, TEXT = 1, 6
ZSTD = 6


def varint(number: int) -> bytes:
    """A number as Parquet's runs begin with one."""
    out = bytearray()
    while number >= 128:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def runs(*pairs: tuple[int, int]) -> bytes:
    """Levels in runs, with their length before them: (how many, which level), .... of a byte."""
    return with_length(b"".join(varint(count << 1) + bytes([level]) for count, level in pairs))


def with_length(data: bytes) -> bytes:
    """Bytes with their length before them."""
    return struct.pack("<I", len(data)) + data


def delta_packed(first: int, then: int, count: int) -> bytes:
    """`first`, and then `count` times the same other number, as DELTA_BINARY_PACKED."""

    def zigzag(number: int) -> bytes:
        return varint(number << 1 if number >= 0 else ~(number << 1))

    # A block of 128 differences for each number: the first block has a step, the others have none.
    width = abs(then - first).bit_length()
    least = min(then - first, 0)
    step = (then - first - least) | sum(-least << width * i for i in range(1, 32))
    blocks = [zigzag(least) + bytes([width] * 4) + step.to_bytes(4 * width, "little")]
    flat = sum(-least << width * i for i in range(32)).to_bytes(4 * width, "little")
    blocks[0] += flat * 3
    blocks += [zigzag(0) + bytes(4)] * (max(0, count - 1) // 128)
    return varint(128) + varint(4) + varint(count + 1) + zigzag(first) + b"".join(blocks)


def data_page(body: bytes, values: int, encoding: int = PLAIN, codec: int = 0) -> bytes:
    """A page of values: levels, then what the encoding makes of the values."""
    of_values: Struct = {1: (I32, values), 2: (I32, encoding), 3: (I32, 3), 4: (I32, 3)}
    return _page(0, 5, of_values, body, codec)


def dictionary_page(text: bytes, codec: int = 0) -> bytes:
    """A page of one text, to which values may refer."""
    return _page(2, 7, {1: (I32, 1), 2: (I32, PLAIN)}, with_length(text), codec)


def _page(page_type: int, field: int, inside: Struct, body: bytes, codec: int) -> bytes:
    packed = pa.compress(body, "zstd", asbytes=True) if codec == ZSTD else body
    sizes: Struct = {1: (I32, page_type), 2: (I32, len(body)), 3: (I32, len(packed))}
    return encode({**sizes, field: (STRUCT, inside)}) + packed


def parquet_bytes(
    pages: Sequence[bytes], rows: int, values: int, physical: int, *, is_list: bool, codec: int = 0
) -> bytes:
    """A file with the column `a`, optional at each level.

    Args:
        pages: Its pages; the first of several is a dictionary.
        rows, values: What the footer claims.
        physical: The physical type.
        is_list: The values are elements of lists.
        codec: The compression of the pages.
    """

    def element(name: str, **fields: int) -> Struct:
        numbers = {"physical": 1, "repetition": 3, "children": 5, "converted": 6}
        return {4: (BINARY, name.encode())} | {
            numbers[field]: (I32, value) for field, value in fields.items()
        }

    leaf = {"repetition": 1, "physical": physical} | ({"converted": 0} if physical == TEXT else {})
    elements = [element("root", children=1), element("a", **leaf)]
    path = [b"a"]
    if is_list:
        elements[1:] = [
            element("a", repetition=1, children=1, converted=3),
            element("list", repetition=2, children=1),
            element("element", **leaf),
        ]
        path = [b"a", b"list", b"element"]
    size, start = sum(map(len, pages)), 4
    has_dictionary = len(pages) > 1
    chunk: Struct = {
        1: (I32, physical),
        2: (LIST, (I32, [PLAIN, 3, DELTA_BYTE_ARRAY, RLE_DICTIONARY])),
        3: (LIST, (BINARY, path)),
        4: (I32, codec),
        5: (I64, values),
        6: (I64, size),
        7: (I64, size),
        9: (I64, start + has_dictionary * len(pages[0])),
    }
    if has_dictionary:
        chunk[11] = (I64, start)
    column: Struct = {2: (I64, start), 3: (STRUCT, chunk)}
    group: Struct = {1: (LIST, (STRUCT, [column])), 2: (I64, size), 3: (I64, rows)}
    footer = encode(
        {
            1: (I32, 1),
            2: (LIST, (STRUCT, elements)),
            3: (I64, rows),
            4: (LIST, (STRUCT, [group])),
        }
    )
    return b"PAR1" + b"".join(pages) + footer + struct.pack("<I", len(footer)) + b"PAR1"
