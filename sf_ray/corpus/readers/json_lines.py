"""Reads JSON shards as one column of text, in which a row keeps all of its bytes.

JSON is not converted into Arrow types, so that no part of a row is lost or has the wrong type. In a
`.json` file whose first character is `[`, each element of that array is a row; in every other file,
each line that is not blank. Does not parse fields, and knows no Ray and no model.
"""

import codecs
import io
import json
from collections.abc import Iterator, Sequence

import pyarrow as pa

from sf_ray.corpus.readers.codecs import unpacked
from sf_ray.corpus.readers.content import HEAD_BYTES, Content, content_of, is_json_text
from sf_ray.corpus.readers.file_types import codec_of, may_be_array
from sf_ray.corpus.readers.json_array import ArrayError, array_elements
from sf_ray.corpus.readers.json_shapes import LOOK_BYTES, problem_of
from sf_ray.corpus.readers.row_limits import MAX_ROW_BYTES
from sf_ray.corpus.units import Footer
from sf_ray.errors import BadShardError
from sf_ray.storage.listing import File
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

    def __init__(
        self, file: File, handle: io.RawIOBase, max_row_bytes: int = MAX_ROW_BYTES
    ) -> None:
        # By its name. Servers may have unpacked it on the way: then it is text all the same.
        self._file, self._codec = file, codec_of(file.relative)
        self._max_row_bytes = max_row_bytes
        self._packed: io.BufferedReader = io.BufferedReader(handle, _BUFFER_BYTES)
        self._is_array: bool | None = None  # not known before the file is read

    def is_array(self) -> bool:
        """Whether the rows are the elements of an array."""
        if self._is_array is None:
            with unreadable_is_bad(self._file):
                first = (
                    self._skip_blanks(self._unpacked())
                    if may_be_array(self._file.relative)
                    else b""
                )
            self._is_array = first == b"["
        return self._is_array

    def footer(self) -> Footer:
        """Counts the rows in one pass over the file.

        Raises:
            BadShardError: The rows of the file do not stand one a line; says how they do.
        """
        most_rows = _PACKED_GROUP_ROWS if self._codec else _GROUP_ROWS
        most_bytes = _PACKED_GROUP_BYTES if self._codec else _GROUP_BYTES
        row_groups: list[int] = []
        starts: list[int] = []
        first = b""
        with unreadable_is_bad(self._file):
            for start, text in self._rows(0):
                if not starts or row_groups[-1] == most_rows or start - starts[-1] >= most_bytes:
                    row_groups.append(0)
                    starts.append(start)
                row_groups[-1] += 1
                first = first or text
            if row_groups and not self.is_array():
                self._refuse_shape(first, sum(row_groups))
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
            for number, line in enumerate(self._lines(self._unpacked()), start=1):
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
            yield from self._filled_lines(stream, offset)
            return
        if offset:
            stream.seek(offset)
        else:
            self._skip_blanks(stream)  # and takes the bracket
            offset = stream.tell()
        try:
            yield from array_elements(stream, offset, self._max_row_bytes)
        except ArrayError as error:
            raise BadShardError(
                self._file.relative,
                f"no valid JSON array at byte {error.offset:,} ({error.reason})",
            ) from error

    def _filled_lines(self, stream: io.BufferedReader, offset: int) -> Iterator[tuple[int, bytes]]:
        """The lines that are not blank, and where each begins; the stream stands at `offset`."""
        for line in self._lines(stream, offset):
            start, offset = offset, offset + len(line)
            text = line if start else _without_mark(line)
            if not _is_blank(text):
                # A carriage return stays: JSON takes it for a blank, and a row is written as it
                # was read.
                yield start, text.removesuffix(b"\n")

    def _lines(self, stream: io.BufferedReader, offset: int = 0) -> Iterator[bytes]:
        """The lines of a stream, none of which is longer than a row may be.

        Blank lines count for the row behind them: a packed file may have any number of them.
        """
        most = self._max_row_bytes
        blank, number, at = 0, 0, offset
        while line := stream.readline(most + 1):
            number += 1
            blank = blank + len(line) if line.isspace() else 0
            if (len(line) > most and not line.endswith(b"\n")) or blank > most:
                # Numbers are those of an editor where all lines before were read too.
                raise self._too_long(f"the line at byte {at}" if offset else f"line {number}")
            at += len(line)
            yield line

    def _skip_blanks(self, stream: io.BufferedReader) -> bytes:
        """Takes the first byte that is neither blank nor part of a byte order mark; returns it."""
        if stream.peek(3).startswith(codecs.BOM_UTF8):
            stream.read(3)
        skipped = 0
        while ahead := stream.peek():
            filled = ahead.lstrip(_BLANKS)
            stream.read(len(ahead) - len(filled))
            if filled:
                return stream.read(1)
            skipped += len(ahead)
            if skipped > self._max_row_bytes:
                raise self._too_long("its beginning, of blanks only,")
        return b""

    def _too_long(self, place: str) -> BadShardError:
        return BadShardError(
            self._file.relative,
            f"{place} is longer than --max-row-bytes {self._max_row_bytes}",
        )

    def _refuse_shape(self, first: bytes, rows: int) -> None:
        """Refuses a file whose first line shows that its rows do not stand one a line."""
        if rows > 1 and first.lstrip().startswith(b"{") and _is_json(first):
            return
        data = self._unpacked().read(LOOK_BYTES + 1)
        name = self._file.relative.rpartition("/")[2]
        problem = problem_of(data[:LOOK_BYTES], len(data) <= LOOK_BYTES, rows, name)
        if problem:
            raise BadShardError(self._file.relative, problem)

    def _unpacked(self) -> io.BufferedReader:
        """The content of the file from its beginning, unpacked.

        Raises:
            BadShardError: The content is something else than the name says.
        """
        self._packed.seek(0)
        if self._codec is None:
            self._refuse_content(self._packed)
            return self._packed
        if not self._file.size:
            raise BadShardError(self._file.relative, f"empty, which is no {self._codec} file")
        head = self._packed.peek(HEAD_BYTES)[:HEAD_BYTES]
        if is_json_text(head):
            return self._packed
        content = content_of(head)
        if content is None or self._codec not in content.codecs:
            what = f"is {content.what}" if content else "is something else"
            raise BadShardError(
                self._file.relative,
                f"its name says {self._codec}, but its content {what}"
                + (f"; {_advice(self._file.relative, content)}" if content else ""),
            )
        stream = unpacked(self._packed, self._codec, _BUFFER_BYTES)
        self._refuse_content(stream)
        return stream

    def _refuse_content(self, stream: io.BufferedReader) -> None:
        """Refuses a stream whose first bytes are not those of JSON."""
        content = content_of(stream.peek(HEAD_BYTES)[:HEAD_BYTES])
        if content:
            advice = _advice(self._file.relative, content, stream is not self._packed)
            raise BadShardError(
                self._file.relative, f"its content is {content.what}, not JSON; {advice}"
            )


def _advice(name: str, content: Content, is_packed: bool = False) -> str:
    """What to do with a file whose content is not what its name says.

    Args:
        name: Name of the shard.
        content: What was found.
        is_packed: Whether it was found behind a compression.
    """
    if not content.suffix:
        return content.advice
    plain = name.rpartition("/")[2]
    if codec_of(plain):
        plain = plain.rpartition(".")[0]
    if not content.codecs:
        plain = plain.rpartition(".")[0]
    return f"{'unpack it, and ' * is_packed}give it the name {plain}{content.suffix}"


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _is_blank(line: bytes) -> bool:
    return not line or line.isspace()


def _without_mark(line: bytes) -> bytes:
    return line.removeprefix(codecs.BOM_UTF8)


def _batch(texts: list[bytes]) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array(texts, pa.large_binary())], schema=LINES)
