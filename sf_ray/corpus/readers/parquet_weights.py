"""How much memory the rows of Parquet pages may take, judged before Arrow makes values of them.

Three things make rows far larger than what is stored: a text of a dictionary, to which any number
of values refer; a text that takes most of its bytes from the one before it; and a list, whose
number of values is a run of levels. Knows pages, and no file.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow as pa

from sf_ray.corpus.readers.parquet_levels import (
    RowRuns,
    longest_delta_text,
    longest_text,
    row_runs,
)
from sf_ray.corpus.readers.row_limits import size_text
from sf_ray.corpus.readers.thrift_compact import FALSE, I32, STRUCT, Struct, decode_value

# A batch has so few rows that they take no more than this even if each is as large as the largest.
REPEATED_BYTES = 512 << 20
# What a value takes in a list, however few bytes are stored for it.
VALUE_BYTES = 8
# Lists are not looked at while all that were read take no more: such a batch does no harm.
_FREE_BYTES = 128 << 20
# Few writers make a larger dictionary; of one that is, its size stands for the longest text.
_LOOKED_AT_BYTES = 4 << 20
# Of a page whose texts take bytes from each other: the size of a larger one stands for each text.
_DELTA_LOOKED_AT_BYTES = 64 << 20
_LENGTH_BYTES = 4
# Values of `PageType` and of `Encoding`.
_DATA, _DICTIONARY, _DATA_2 = 0, 2, 3
_PLAIN_DICTIONARY, _BIT_PACKED, _DELTA_BYTE_ARRAY, _RLE_DICTIONARY = 2, 4, 7, 8
# Arrow makes all such texts of a batch, and then copies of them.
_DELTA_TIMES = 4
# Values of `CompressionCodec`.
_CODECS = {1: "snappy", 2: "gzip", 4: "brotli", 6: "zstd", 7: "lz4_raw"}


class LargeRowsError(Exception):
    """Rows may be so large that a batch of them would fill the memory.

    Attributes:
        rows: How many rows may be read together.
    """

    def __init__(self, rows: int) -> None:
        super().__init__(f"{rows:,} rows must be read together at most")
        self.rows = rows


@dataclass
class WatchedChunk:
    """The pages of a column in a row group: bytes [start, end) of the file.

    Attributes:
        leaf: The number of the column.
        level_bits: Bits of a repetition level; 0 where the column is in no list.
        has_nulls: Its pages have definition levels.
        is_text: Its values have lengths of their own.
        codec: The number of the compression.
        value_bytes: What a value takes that is not stored with it: a text of the dictionary, once
            that was seen; the width of values that are null.
        values, row_bytes: Of the row that the last page ended in: how many, and what they take.
    """

    start: int
    end: int
    leaf: int
    level_bits: int
    has_nulls: bool
    is_text: bool
    codec: int
    value_bytes: int = 0
    values: int = 0
    row_bytes: int = 0


class PageHeader(NamedTuple):
    """What a page says of itself.

    Attributes:
        page_type: A `PageType`.
        unpacked, packed: Bytes behind the header, before and after compression.
        values: How many it has, nulls included.
        encoding: An `Encoding`, of the values.
        levels: Of the second version: bytes of repetition levels, which are never compressed; None
            for the first one.
        null_levels: Of the second version: bytes of definition levels, which follow these.
        has_bits: Levels are bits without runs, as old writers made them.
        is_plain: The page is not compressed, whatever its column is.
    """

    page_type: int
    unpacked: int
    packed: int
    values: int = 0
    encoding: int = 0
    levels: int | None = None
    null_levels: int = 0
    has_bits: bool = False
    is_plain: bool = False


def page_header(fields: Struct) -> PageHeader:
    """The header that some fields are.

    Raises:
        pa.ArrowInvalid: The header is damaged.
    """
    page_type, unpacked, packed = (_number(fields, number) for number in (1, 2, 3))
    if min(unpacked, packed) < 0:
        raise pa.ArrowInvalid("the size of a page in it is negative")
    header = PageHeader(page_type, unpacked, packed)
    if page_type == _DATA:
        values, encoding, by = (_number(_struct(fields, 5), number) for number in (1, 2, 4))
        header = PageHeader(
            page_type, unpacked, packed, values, encoding, has_bits=by == _BIT_PACKED
        )
    elif page_type == _DATA_2:
        inside = _struct(fields, 8)
        values, encoding, nulls, levels = (_number(inside, number) for number in (1, 4, 5, 6))
        is_plain = 7 in inside and inside[7][0] == FALSE
        header = PageHeader(
            page_type, unpacked, packed, values, encoding, levels, nulls, is_plain=is_plain
        )
    of_levels = header.levels or 0, header.null_levels
    if min(header.values, *of_levels) < 0 or sum(of_levels) > unpacked:
        raise pa.ArrowInvalid("a page header in it is damaged")
    return header


@dataclass
class RowWeights:
    """What the rows of the pages that were read may take.

    Attributes:
        rows: Rows of a batch.
        max_row_bytes: The largest row.
    """

    rows: int
    max_row_bytes: int
    _free: int = field(default_factory=lambda: _FREE_BYTES)
    _of_leaves: dict[int, int] = field(default_factory=dict)  # the largest row so far
    _row_bytes: int = 0  # of all leaves together

    def needs_body(self, chunk: WatchedChunk, header: PageHeader) -> bool:
        """Whether a page is judged by more than its header."""
        if header.page_type == _DICTIONARY:
            return chunk.is_text and header.unpacked <= _LOOKED_AT_BYTES
        is_delta = chunk.is_text and header.encoding == _DELTA_BYTE_ARRAY
        if is_delta and header.unpacked <= _DELTA_LOOKED_AT_BYTES:
            return True
        return bool(chunk.level_bits) and self._bytes_of(chunk, header) > self._free

    def add(self, chunk: WatchedChunk, header: PageHeader, body: bytes) -> None:
        """Counts a page.

        Args:
            chunk: To which it belongs.
            header: Its header.
            body: What follows the header; needed where `needs_body` says so.

        Raises:
            pa.ArrowInvalid: A row takes more than rows may.
            LargeRowsError: Fewer rows must be read together.
        """
        if header.page_type == _DICTIONARY:
            if chunk.is_text:
                chunk.value_bytes = _text_bytes(chunk, header, body)
        elif header.page_type in (_DATA, _DATA_2) and chunk.level_bits:
            self._add_lists(chunk, header, body)
        elif header.page_type in (_DATA, _DATA_2):
            values = None
            if self.needs_body(chunk, header):
                _, values = _levels_and_values(chunk, header, body)
            self._grow(chunk, _value_bytes(chunk, header, values))

    def _bytes_of(self, chunk: WatchedChunk, header: PageHeader) -> int:
        return header.values * (VALUE_BYTES + _value_bytes(chunk, header))

    def _add_lists(self, chunk: WatchedChunk, header: PageHeader, body: bytes) -> None:
        if not self.needs_body(chunk, header):
            self._free -= self._bytes_of(chunk, header)
            return
        levels, stored = _levels_and_values(chunk, header, body)
        each = VALUE_BYTES + _value_bytes(chunk, header, stored)
        runs = RowRuns(before=header.values)  # as if all were of one row
        if levels is not None:
            runs = row_runs(levels, header.values, chunk.level_bits)
        values = max(chunk.values + runs.before, runs.longest)
        largest = max(chunk.row_bytes + runs.before * each, runs.longest * each)
        if runs.last:
            chunk.values, chunk.row_bytes = runs.last, runs.last * each
        else:
            chunk.values += runs.before
            chunk.row_bytes += runs.before * each
        if values * VALUE_BYTES > self.max_row_bytes:
            raise pa.ArrowInvalid(
                f"a row in it has {values:,} values, more than --max-row-bytes allows"
            )
        self._grow(chunk, largest)

    def _grow(self, chunk: WatchedChunk, row_bytes: int) -> None:
        before = self._of_leaves.get(chunk.leaf, 0)
        if row_bytes <= before:
            return
        self._of_leaves[chunk.leaf] = row_bytes
        self._row_bytes += row_bytes - before
        if self._row_bytes * self.rows <= REPEATED_BYTES:
            return
        if self.rows > 1:
            # Half at most, so that rows are not read again for every page.
            fitting = REPEATED_BYTES // self._row_bytes
            raise LargeRowsError(max(1, min(self.rows // 2, fitting)))
        if self._row_bytes > max(REPEATED_BYTES, self.max_row_bytes * 16):
            raise pa.ArrowInvalid(
                f"a row in it may take {size_text(self._row_bytes)}, more than --max-row-bytes "
                "allows"
            )


def _value_bytes(chunk: WatchedChunk, header: PageHeader, values: bytes | None = None) -> int:
    """What a value may take that is stored elsewhere than with it; without `values`, at most."""
    if not chunk.is_text or header.encoding in (_PLAIN_DICTIONARY, _RLE_DICTIONARY):
        return chunk.value_bytes
    if header.encoding != _DELTA_BYTE_ARRAY:
        return 0
    longest = longest_delta_text(values) if values else None
    return _DELTA_TIMES * (header.unpacked if longest is None else longest)


def _levels_and_values(
    chunk: WatchedChunk, header: PageHeader, body: bytes
) -> tuple[bytes | None, bytes | None]:
    """Repetition levels and values of a page; None for what is not understood."""
    if header.levels is not None:
        behind = header.levels + header.null_levels
        values: bytes | None = body[behind:]
        if header.encoding == _DELTA_BYTE_ARRAY and not header.is_plain:
            values = _unpacked(chunk.codec, body[behind:], header.unpacked - behind)
        return body[: header.levels], values
    unpacked = None if header.has_bits else _unpacked(chunk.codec, body, header.unpacked)
    if unpacked is None:
        return None, None
    levels = b""
    if chunk.level_bits:
        levels, unpacked = _behind_length(unpacked)
    return levels, _behind_length(unpacked)[1] if chunk.has_nulls else unpacked


def _behind_length(data: bytes) -> tuple[bytes, bytes]:
    """Bytes whose length stands before them, and what follows."""
    end = _LENGTH_BYTES + int.from_bytes(data[:_LENGTH_BYTES], "little")
    return data[_LENGTH_BYTES:end], data[end:]


def _text_bytes(chunk: WatchedChunk, header: PageHeader, body: bytes) -> int:
    """Bytes of the longest text of a dictionary, or more."""
    if header.unpacked > _LOOKED_AT_BYTES:
        return header.unpacked
    unpacked = _unpacked(chunk.codec, body, header.unpacked)
    return header.unpacked if unpacked is None else longest_text(unpacked)


def _unpacked(codec: int, packed: bytes, size: int) -> bytes | None:
    """What was compressed to some bytes; None where only Arrow's reader knows the compression."""
    if not codec or not size:
        return packed
    if codec not in _CODECS:
        return None
    unpacked: bytes = pa.Codec(_CODECS[codec]).decompress(packed, size, asbytes=True)
    return unpacked


def _struct(fields: Struct, number: int) -> Struct:
    if number not in fields or fields[number][0] != STRUCT:
        raise pa.ArrowInvalid("a page header in it is damaged")
    inside: Struct = decode_value(*fields[number])
    return inside


def _number(fields: Struct, number: int) -> int:
    # A reader of Thrift passes over a field of another type, and takes the last one of this type.
    if number not in fields or fields[number][0] != I32:
        raise pa.ArrowInvalid("a page header in it is damaged")
    value = fields[number][1]
    found: int = decode_value(I32, value) if isinstance(value, bytes) else value
    return found
