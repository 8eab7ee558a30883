"""JSON Lines, and JSON arrays, as one column of text: a row keeps every byte that it has.

Nothing is made into Arrow types here, so nothing of a row can be lost or be of the wrong type. In a
`.json` file whose first character is `[`, the elements of that array are the rows; in all others
the lines that are not blank. Knows neither fields nor formats; no Ray, no model.
"""

import codecs
import io
import json
import re
from collections.abc import Iterator, Sequence

import pyarrow as pa

from sf_ray.corpus.readers.file_types import codec_of, may_be_array
from sf_ray.corpus.units import Footer
from sf_ray.errors import BadShardError
from sf_ray.storage.files import File
from sf_ray.storage.versioned_file import unreadable_is_bad

# Binary, since a line may not be the UTF-8 that it should be.
LINE = "_line"
LINES = pa.schema([pa.field(LINE, pa.large_binary(), nullable=False)])

# Where reading may begin. What is compressed is unpacked up to there, so it has fewer of them.
_GROUP_ROWS, _GROUP_BYTES = 4096, 16 << 20
_PACKED_GROUP_ROWS, _PACKED_GROUP_BYTES = 65536, 256 << 20
_BATCH_BYTES = 16 << 20
_BUFFER_BYTES = 1 << 20
# An error this near to the end of what was read (or in a string without an end) may be no error.
_NEAR_CHARS = 16

_BLANK = re.compile(r"[ \t\r\n]*")
_BLANKS = b" \t\r\n"
_DECODER = json.JSONDecoder()


class JsonReader:
    """The rows of a JSON shard."""

    schema = LINES

    def __init__(self, file: File, handle: io.RawIOBase) -> None:
        self._file, self._codec = file, codec_of(file.relative)
        self._packed: io.BufferedReader = io.BufferedReader(handle, _BUFFER_BYTES)
        self._array: bool | None = None

    def is_array(self) -> bool:
        """Whether the rows are elements of an array."""
        if self._array is None:
            with unreadable_is_bad(self._file):
                first = _skip_blanks(self._unpacked()) if may_be_array(self._file.relative) else b""
            self._array = first == b"["
        return self._array

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
        """As `shards.Reader` has it, to the end of the file; there is only one column to read."""
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
        """Where a row is found in an editor: "line 7", or "element 7" of an array."""
        if self.is_array():
            return f"element {row + 1}"
        seen = -1
        with unreadable_is_bad(self._file):
            for number, line in enumerate(self._unpacked(), start=1):
                seen += not _is_blank(_without_mark(line) if number == 1 else line)
                if seen == row:
                    return f"line {number}"
        raise BadShardError(self._file.relative, f"ends before row {row}")

    def _rows(self, offset: int) -> Iterator[tuple[int, bytes]]:
        """Where each row begins in the unpacked file, and its text, from that of `offset` on."""
        is_array = self.is_array()
        stream = self._unpacked()
        if is_array and not offset:
            _skip_blanks(stream)
            yield from self._elements(_Text(stream, stream.tell()))
        elif is_array:
            stream.seek(offset)
            yield from self._elements(_Text(stream, offset))
        else:
            stream.seek(offset)
            yield from _lines(stream, offset)

    def _elements(self, text: "_Text") -> Iterator[tuple[int, bytes]]:
        """The elements of an array, from any of them on."""
        try:
            while (following := text.next_character()) != "]":
                start, element = text.offset, text.value()
                yield start, element
                following = text.next_character()
                if following == ",":
                    text.skip(1)
                    if text.next_character() == "]":
                        raise ValueError("a comma before the end")
                elif following != "]":
                    raise ValueError("expected a comma or ]")
            text.skip(1)
            if text.next_character():
                raise ValueError("something follows its end")
        except (ValueError, RecursionError) as error:
            reason = getattr(error, "msg", None) or str(error)
            raise BadShardError(
                self._file.relative, f"no valid JSON array at byte {text.offset:,} ({reason})"
            ) from error

    def _unpacked(self) -> io.BufferedReader:
        """The file from its beginning."""
        self._packed.seek(0)
        if self._codec is None:
            return self._packed
        if not self._file.size:
            raise BadShardError(self._file.relative, f"empty, which is no {self._codec} file")
        return io.BufferedReader(_Unpacked(self._packed, self._codec), _BUFFER_BYTES)


class _Unpacked(io.RawIOBase):
    """What a compressed file holds; seeks forward by unpacking what lies between."""

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
    """A stream for Arrow, which closes what it is given; the lender still needs it."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self._lent = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        return self._lent.readinto(buffer)


class _Text:
    """An array's text, of which no more is held than the element that is being read needs.

    Attributes:
        offset: Where what follows begins in the unpacked file.
    """

    def __init__(self, stream: io.BufferedReader, offset: int) -> None:
        self.offset = offset
        self._stream = stream
        # What is not UTF-8 passes through and comes out as it was.
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._text, self._at, self._ended = "", 0, False

    def next_character(self) -> str:
        """The next one that is not blank; "" at the end."""
        while True:
            blanks = _BLANK.match(self._text, self._at)
            assert blanks is not None, "it matches nothing, too"
            self.skip(blanks.end() - self._at)
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def skip(self, ascii_characters: int) -> None:
        """Passes over what was looked at."""
        self._at += ascii_characters
        self.offset += ascii_characters

    def value(self) -> bytes:
        """Takes the next value.

        Raises:
            ValueError: There is none.
        """
        while True:
            try:
                _, end = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                is_cut = error.msg.startswith("Unterminated string")
                is_cut |= error.pos >= len(self._text) - _NEAR_CHARS
                if not (is_cut and self._more()):
                    raise
                continue
            if end < len(self._text) or not self._more():  # a number may go on
                value = self._text[self._at : end].encode("utf-8", "surrogateescape")
                self._at = end
                self.offset += len(value)
                return value

    def _more(self) -> bool:
        if self._ended:
            return False
        # At least as much as is held: a long element is not tried again for every buffer of it.
        data = self._stream.read(max(_BUFFER_BYTES, len(self._text) - self._at))
        self._ended = not data
        self._text = self._text[self._at :] + self._decoder.decode(data, self._ended)
        self._at = 0
        return True


def _lines(stream: io.BufferedReader, offset: int) -> Iterator[tuple[int, bytes]]:
    for line in stream:
        start, offset = offset, offset + len(line)
        text = line if start else _without_mark(line)
        if not _is_blank(text):
            # A carriage return stays: it is blank to JSON, and goes out as it came in.
            yield start, text.removesuffix(b"\n")


def _is_blank(line: bytes) -> bool:
    return not line or line.isspace()


def _without_mark(line: bytes) -> bytes:
    return line.removeprefix(codecs.BOM_UTF8)


def _skip_blanks(stream: io.BufferedReader) -> bytes:
    """Takes the first byte that is not blank, from the beginning of a stream."""
    if stream.peek(3).startswith(codecs.BOM_UTF8):
        stream.read(3)
    while (byte := stream.read(1)) and byte in _BLANKS:
        pass
    return byte


def _batch(texts: list[bytes]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array(texts, pa.large_binary())], schema=LINES)
