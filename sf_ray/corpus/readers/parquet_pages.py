"""Watches the pages of a Parquet file pass by as Arrow reads them, before Arrow unpacks them.

Only the pages say what they unpack to and how their values make rows; what the footer says of it
may be anything. Arrow believes each, so a file of kilobytes may ask for gigabytes. Looks at the
bytes that Arrow fetches anyway: no request is added. Knows no schema and no values.

https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift has `PageHeader`
"""

import io
from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

from sf_ray.corpus.readers.parquet_weights import (
    LargeRowsError,
    PageHeader,
    RowWeights,
    WatchedChunk,
    page_header,
)
from sf_ray.corpus.readers.row_limits import most_unpacked, size_text
from sf_ray.corpus.readers.thrift_compact import CompactError, decode

# Headers are small unless they hold statistics of long values. Arrow's own limit is the last one.
_HEADER_BYTES = (256, 1 << 16, 1 << 24)


@dataclass
class _Passing:
    """The pages of a column in a row group, as they pass.

    Attributes:
        chunk: Where they lie, and what they hold.
        next: Where the next page begins that was not seen yet.
        held: Bytes from there on that were seen, where more of the page is needed than they are.
    """

    chunk: WatchedChunk
    next: int
    held: bytes = b""


class PageGuard(io.RawIOBase):
    """A Parquet file for Arrow to read; reading fails where its pages unpack to too much.

    Args:
        handle: The file.
        size: Its size.
        chunks: The columns of row groups that will be read.
        rows: Rows of a batch.
        max_row_bytes: The largest row.

    Attributes:
        problem: What reading failed with. Arrow may raise it as another class.
    """

    def __init__(
        self,
        handle: io.RawIOBase,
        size: int,
        chunks: Iterable[WatchedChunk],
        rows: int,
        max_row_bytes: int,
    ) -> None:
        self._handle, self._size = handle, size
        self._passing = [_Passing(chunk, chunk.start) for chunk in chunks]
        self._max_row_bytes = max_row_bytes
        self._weights = RowWeights(rows, max_row_bytes)
        self._unpacked = self._packed = 0
        self.problem: Exception | None = None

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
        """Reads, and looks at the pages that come by.

        Raises:
            pa.ArrowInvalid: Pages unpack to too much.
            LargeRowsError: Rows are too large for as many of them in a batch.
        """
        start = self._handle.tell()
        left = max(0, self._size - start)  # Python takes the memory that is asked for first
        parts, missing = [], left if size < 0 else min(size, left)
        while missing and (part := self._handle.read(missing)):
            parts.append(part)
            missing -= len(part)
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        try:
            for passing in self._passing:
                end = passing.chunk.end
                if passing.next < min(end, start + len(data)) and end > start:
                    self._watch(passing, start, data)
        except (pa.ArrowException, OSError, LargeRowsError) as error:
            self.problem = error
            raise
        return data

    def _watch(self, passing: _Passing, start: int, data: bytes) -> None:
        if passing.held:
            if passing.next + len(passing.held) != start:
                return  # these bytes do not go on where the others ended
            start, data, passing.held = passing.next, passing.held + data, b""
        if passing.next < start:
            return
        end, last = start + len(data), passing.chunk.end
        while passing.next < min(last, end):
            at = passing.next - start
            found = _header(data, at)
            if found is None:
                if end < last:
                    passing.held = data[at:]
                else:
                    passing.next = last  # damaged: Arrow says how
                return
            header, length = found
            self._refuse_unpacked(header)
            body = at + length
            is_cut = body + header.packed > len(data) and end < last
            if is_cut and self._weights.needs_body(passing.chunk, header):
                passing.held = data[at:]
                return
            self._count(passing.chunk, header, data[body : body + header.packed])
            passing.next += length + header.packed

    def _count(self, chunk: WatchedChunk, header: PageHeader, body: bytes) -> None:
        self._unpacked += header.unpacked
        self._packed += header.packed
        self._weights.add(chunk, header, body)

    def _refuse_unpacked(self, header: PageHeader) -> None:
        """Refuses a page with which too much would be unpacked."""
        unpacked, packed = self._unpacked + header.unpacked, self._packed + header.packed
        if unpacked > most_unpacked(packed, self._max_row_bytes):
            raise pa.ArrowInvalid(
                f"{size_text(packed)} of its pages claim to unpack to {size_text(unpacked)}, more "
                "than --max-row-bytes allows"
            )


def _header(data: bytes, at: int) -> tuple[PageHeader, int] | None:
    """A header and its length; None where the bytes end before it does, or are none."""
    for most in _HEADER_BYTES:
        try:
            fields, length = decode(data[at : at + most])
        except CompactError:
            if at + most >= len(data):
                return None
        else:
            return page_header(fields), length
    return None
