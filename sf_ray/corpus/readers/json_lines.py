"""Reads JSON shards as one column of text, in which a row keeps all of its bytes.

JSON is not converted into Arrow types, so that no part of a row is lost or has the wrong type. In a
`.json` file whose first character is `[`, each element of that array is a row; in every other file,
each line that is not blank. Does not parse fields, and knows no Ray and no model.
"""

import codecs
import io
from collections.abc import Iterator, Sequence

import pyarrow as pa

from sf_ray.corpus.readers.file_types import codec_of, may_be_array
from sf_ray.corpus.readers.json_array import ArrayError, array_elements
from sf_ray.corpus.units import Footer
from sf_ray.errors import BadShardError
from sf_ray.storage.files import File
from sf_ray.storage.versioned_file import unreadable_is_bad

# The only column of a JSON shard. Binary, because a line may not be valid UTF-8.
LINE = "_line"
LINES = pa.schema([pa.field(LINE, pa.large_binary(), nullable=False)])

# Most rows and bytes of a row group; reading may begin at each of them. To begin inside a
# compressed file, all bytes before must be unpacked, so such files have fewer and larger groups.
_GROUP_ROWS, _GROUP_BYTES = 4096, 16 << 20
_PACKED_GROUP_ROWS, _PACKED_GROUP_BYTES = 65536, 256 << 20
_BATCH_BYTES = 16 << 20
_BUFFER_BYTES = 1 << 20
_BLANKS = b" \t\r\n"


class JsonReader:
    """The rows of a JSON shard; a `ShardReader`.

    Attributes:
        schema: `LINES`, whatever the fields of the rows.
    """

    schema = LINES

    def __init__(self, file: File, handle: io.RawIOBase) -> None:
        self._file, self._codec = file, codec_of(file.relative)
        self._packed: io.BufferedReader = io.BufferedReader(handle, _BUFFER_BYTES)
        self._is_array: bool | None = None  # not known before the file is read

    def is_array(self) -> bool:
        """Whether the rows are the elements of an array."""
        if self._is_array is None:
            with unreadable_is_bad(self._file):
                first = _skip_blanks(self._unpacked()) if may_be_array(self._file.relative) else b""
            self._is_array = first == b"["
        return self._is_array

    def footer(self) -> Footer:
        """Counts the rows in one pass over the file."""
        most_rows = _PACKED_GROUP_ROWS if self._codec else _GROUP_ROWS
        most_bytes = _PACKED_GROUP_BYTES if self._codec else _GROUP_BYTES
        row_groups: list[int] = []
        starts: list[int] = []
        with unreadable_is_bad(self._file):
            for start, _ in self._rows(0):
                if not starts or row_groups[-1] == most_rows or start - starts[-1] >= most_bytes:
                    row_groups.append(0)
                    starts.append(start)
                row_groups[-1] += 1
        return Footer(tuple(row_groups), LINES, tuple(starts))

    def batches(
        self,
        rows: int,
        columns: Sequence[str] | None = None,
        groups: range | None = None,
        offset: int = 0,
    ) -> Iterator[pa.RecordBatch]:
        """See `ShardReader.batches`. Reads to the end of the file; there is only one column."""
        held: list[bytes] = []
        held_bytes = 0
        with unreadable_is_bad(self._file):
            for _, text in self._rows(offset):
                held.append(text)
                held_bytes += len(text)
                if len(held) == rows or held_bytes >= _BATCH_BYTES:
                    yield _batch(held)
                    held, held_bytes = [], 0
            if held:
                yield _batch(held)

    def place_of(self, row: int) -> str:
        """Where a person finds a row: "line 7" of an editor, or "element 7" of an array.

        Args:
            row: 0-based number of the row.
        """
        if self.is_array():
            return f"element {row + 1}"
        last_row = -1
        with unreadable_is_bad(self._file):
            for number, line in enumerate(self._unpacked(), start=1):
                last_row += not _is_blank(_without_mark(line) if number == 1 else line)
                if last_row == row:
                    return f"line {number}"
        raise BadShardError(self._file.relative, f"ends before row {row}")

    def _rows(self, offset: int) -> Iterator[tuple[int, bytes]]:
        """Reads rows from the one that begins at `offset`, or from the first one if that is 0.

        Yields:
            (byte of the unpacked file at which a row begins, text of the row).
        """
        is_array = self.is_array()
        stream = self._unpacked()
        if not is_array:
            stream.seek(offset)
            yield from _lines(stream, offset)
            return
        if offset:
            stream.seek(offset)
        else:
            _skip_blanks(stream)  # and takes the bracket
            offset = stream.tell()
        try:
            yield from array_elements(stream, offset)
        except ArrayError as error:
            raise BadShardError(
                self._file.relative,
                f"no valid JSON array at byte {error.offset:,} ({error.reason})",
            ) from error

    def _unpacked(self) -> io.BufferedReader:
        """The content of the file from its beginning, unpacked."""
        self._packed.seek(0)
        if self._codec is None:
            return self._packed
        if not self._file.size:
            raise BadShardError(self._file.relative, f"empty, which is no {self._codec} file")
        return io.BufferedReader(_Unpacked(self._packed, self._codec), _BUFFER_BYTES)


class _Unpacked(io.RawIOBase):
    """The content of a compressed file; seeks forward by unpacking all bytes up to the target."""

    def __init__(self, packed: io.BufferedReader, codec: str) -> None:
        self._stream = pa.CompressedInputStream(pa.PythonFile(_Lent(packed), mode="r"), codec)
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        assert whence == io.SEEK_SET, "only from the beginning"
        assert offset >= self._position, "only forward"
        while self._position < offset:
            data = self._stream.read(min(_BUFFER_BYTES, offset - self._position))
            if not data:
                break
            self._position += len(data)
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        read: int = self._stream.readinto(buffer)
        self._position += read
        return read


class _Lent(io.RawIOBase):
    """A stream for Arrow, which closes every stream that it gets: the one behind stays open."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self._lent = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        return self._lent.readinto(buffer)


def _lines(stream: io.BufferedReader, offset: int) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, and where each begins; `offset` is where the stream stands."""
    for line in stream:
        start, offset = offset, offset + len(line)
        text = line if start else _without_mark(line)
        if not _is_blank(text):
            # A carriage return stays: JSON takes it for a blank, and a row is written as it was
            # read.
            yield start, text.removesuffix(b"\n")


def _is_blank(line: bytes) -> bool:
    return not line or line.isspace()


def _without_mark(line: bytes) -> bytes:
    return line.removeprefix(codecs.BOM_UTF8)


def _skip_blanks(stream: io.BufferedReader) -> bytes:
    """Takes the first byte that is neither blank nor part of a byte order mark, and returns it."""
    if stream.peek(3).startswith(codecs.BOM_UTF8):
        stream.read(3)
    while (byte := stream.read(1)) and byte in _BLANKS:
        pass
    return byte


def _batch(texts: list[bytes]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array(texts, pa.large_binary())], schema=LINES)
