"""Watches the pages of a Parquet file pass by as Arrow reads them, before Arrow unpacks them.

Only the header of a page says what the page unpacks to; what the footer says of it may be anything.
Arrow believes each, so a file of kilobytes may ask for gigabytes. The headers are looked at in the
bytes that Arrow fetches anyway: no request is added. Knows no schema and no values.

https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift has `PageHeader`
"""

import io
from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

from sf_ray.corpus.readers.row_limits import most_unpacked, size_text
from sf_ray.corpus.readers.thrift_compact import I32, CompactError, Struct, decode, decode_value

_TYPE, _UNPACKED, _PACKED = 1, 2, 3  # fields of `PageHeader`
_DICTIONARY_PAGE = 2
# Headers are small unless they hold statistics of long values. Arrow's own limit is the last one.
_HEADER_BYTES = (256, 1 << 16, 1 << 24)


@dataclass
class _Chunk:
    """The pages of a column in a row group: bytes [start, end) of the file.

    Attributes:
        next: Where the next header begins that was not seen yet.
        held: Bytes from there on that were seen, where the header is longer than they are.
    """

    start: int
    end: int
    next: int
    held: bytes = b""


class TooRepeatedError(Exception):
    """A dictionary is so large that the rows of a batch, referring to it, might fill the memory.

    Attributes:
        dictionary_bytes: Its size.
    """

    def __init__(self, dictionary_bytes: int) -> None:
        super().__init__(f"a dictionary of {dictionary_bytes:,} bytes")
        self.dictionary_bytes = dictionary_bytes


class PageGuard(io.RawIOBase):
    """A Parquet file for Arrow to read; reading fails where its pages unpack to too much.

    Args:
        handle: The file.
        size: Its size.
        chunks: (start, end) of the columns that will be read, in bytes.
        max_row_bytes: The largest row.
        most_dictionary_bytes: The largest dictionary that does not raise `TooRepeatedError`.
    """

    def __init__(
        self,
        handle: io.RawIOBase,
        size: int,
        chunks: Iterable[tuple[int, int]],
        max_row_bytes: int,
        most_dictionary_bytes: int,
    ) -> None:
        self._handle, self._size = handle, size
        self._chunks = [_Chunk(start, end, start) for start, end in chunks]
        self._max_row_bytes = max_row_bytes
        self._most_dictionary_bytes = most_dictionary_bytes
        self._unpacked = self._packed = 0
        self.problem: Exception | None = None  # Arrow may raise it as another class

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def tell(self) -> int:
        """The position in the file."""
        return self._handle.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Goes to a position."""
        return self._handle.seek(offset, whence)

    def read(self, size: int = -1) -> bytes:
        """Reads, and looks at the headers of the pages that come by.

        Raises:
            pa.ArrowInvalid: Pages unpack to too much.
            TooRepeatedError: A dictionary is too large for the rows of a batch.
        """
        start = self._handle.tell()
        left = max(0, self._size - start)  # Python takes the memory that is asked for first
        parts, missing = [], left if size < 0 else min(size, left)
        while missing and (part := self._handle.read(missing)):
            parts.append(part)
            missing -= len(part)
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        try:
            for chunk in self._chunks:
                if chunk.next < min(chunk.end, start + len(data)) and chunk.end > start:
                    self._watch(chunk, start, data)
        except (pa.ArrowInvalid, TooRepeatedError) as error:
            self.problem = self.problem or error
            raise
        return data

    def _watch(self, chunk: _Chunk, start: int, data: bytes) -> None:
        if chunk.held:
            if chunk.next + len(chunk.held) != start:
                return  # these bytes do not go on where the others ended
            start, data, chunk.held = chunk.next, chunk.held + data, b""
        if chunk.next < start:
            return
        end = start + len(data)
        while chunk.next < min(chunk.end, end):
            found = _header(data, chunk.next - start)
            if found is None:
                if end < chunk.end:
                    chunk.held = data[chunk.next - start :]
                else:
                    chunk.next = chunk.end  # damaged: Arrow says how
                return
            header, length = found
            packed = self._count(header)
            chunk.next += length + packed

    def _count(self, header: Struct) -> int:
        """Counts a page; returns how many bytes of it follow its header."""
        page_type, unpacked, packed = (
            _number(header, field) for field in (_TYPE, _UNPACKED, _PACKED)
        )
        if min(unpacked, packed) < 0:
            raise pa.ArrowInvalid("the size of a page in it is negative")
        self._unpacked += unpacked
        self._packed += packed
        if self._unpacked > most_unpacked(self._packed, self._max_row_bytes):
            raise pa.ArrowInvalid(
                f"{size_text(self._packed)} of its pages claim to unpack to "
                f"{size_text(self._unpacked)}, more than --max-row-bytes allows"
            )
        if page_type == _DICTIONARY_PAGE and unpacked > self._most_dictionary_bytes:
            raise TooRepeatedError(unpacked)
        return packed


def _header(data: bytes, at: int) -> tuple[Struct, int] | None:
    """A header and its length; None where the bytes end before it does, or are none."""
    for most in _HEADER_BYTES:
        try:
            return decode(data[at : at + most])
        except CompactError:
            if at + most >= len(data):
                return None
    return None


def _number(header: Struct, field: int) -> int:
    # A reader of Thrift passes over a field of another type, and takes the last one of this type.
    if field not in header or header[field][0] != I32:
        raise pa.ArrowInvalid("a page header in it is damaged")
    number: int = decode_value(*header[field])
    return number
