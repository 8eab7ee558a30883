"""Reads Arrow IPC: streams, as `datasets.save_to_disk` writes them, and files, as Polars does.

Both hold one record batch after another; a file has a table of them at its end, and a stream is
counted by reading its messages once, without their values. Which of the two a shard is, its bytes
say, not its name. Knows no Ray and no model.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from sf_ray.corpus.readers.arrow_checks import check_batch, check_schema
from sf_ray.corpus.readers.ipc_messages import (
    FILE_MAGIC,
    FIRST_MESSAGE,
    Block,
    Message,
    blocks,
    messages,
    parse,
)
from sf_ray.corpus.readers.row_limits import (
    MAX_ROW_BYTES,
    most_unpacked,
    rows_problem,
    size_text,
    split,
)
from sf_ray.corpus.units import Footer
from sf_ray.errors import BadShardError, first_line
from sf_ray.storage.listing import File
from sf_ray.storage.versioned_file import unreadable_is_bad

_BUFFER_BYTES = 1 << 20
# The record batches of a shard may have gigabytes; what comes out of it has about this at most.
_BATCH_BYTES = 32 << 20
_TAIL_BYTES = 10  # of a file: the length of its footer, and the magic number again


@dataclass(frozen=True)
class IpcForm:
    """What is particular to an IPC shard beside its schema and its rows.

    Attributes:
        is_file: It is an IPC file, not a stream.
        codec: How its values are compressed: "lz4", "zstd" or None.
        metadata: Key-values in the footer of a file.
    """

    is_file: bool = False
    codec: str | None = None
    metadata: dict[bytes, bytes] | None = None


STREAM = IpcForm()


class ArrowReader:
    """The rows of Arrow IPC; a `ShardReader` whose row groups are record batches."""

    def __init__(
        self, file: File, handle: io.RawIOBase, max_row_bytes: int = MAX_ROW_BYTES
    ) -> None:
        self._file, self._max_row_bytes = file, max_row_bytes
        self._bytes = _Buffered(handle, file.size)
        self._source = pa.PythonFile(self._bytes, mode="r")
        self._is_file = self._bytes.read(FIRST_MESSAGE).startswith(FILE_MAGIC)
        if self._is_file:
            self._refuse_file_without_end()
        self._first = FIRST_MESSAGE if self._is_file else 0
        try:
            self.schema: pa.Schema = self._open().schema
            check_schema(self.schema)
            self._names: list[str] = self.schema.names
        except (pa.ArrowException, OSError) as error:
            expected = "file" if self._is_file else "stream"
            raise BadShardError(
                file.relative, f"cannot be read as an Arrow IPC {expected} ({first_line(error)})"
            ) from error

    @property
    def form(self) -> IpcForm:
        """How the shard is stored. Must not be asked for while batches are read."""
        with unreadable_is_bad(self._file):
            codec = next((found.codec for found in self._messages() if found.rows), None)
            if not self._is_file:
                return IpcForm(False, codec)
            metadata = self._open().metadata
            return IpcForm(True, codec, dict(metadata) if metadata else None)

    def footer(self) -> Footer:
        """Counts the rows by the messages of the record batches."""
        with unreadable_is_bad(self._file):
            found = [message for message in self._messages() if message.rows is not None]
            if found and found[-1].end > self._file.size:
                raise BadShardError(
                    self._file.relative,
                    f"is cut off: its last record batch ends at byte {found[-1].end}, the file at "
                    f"{self._file.size}",
                )
        rows = tuple(message.rows or 0 for message in found)
        if problem := rows_problem(rows, self._file.size):
            raise BadShardError(self._file.relative, problem)
        starts = () if self._is_file else tuple(message.start for message in found)
        return Footer(rows, self.schema, starts)

    def batches(
        self,
        rows: int,
        columns: Sequence[str] | None = None,
        groups: range | None = None,
        offset: int = 0,
    ) -> Iterator[pa.RecordBatch]:
        """See `ShardReader.batches`. A file ignores `offset`: its footer has those of all batches.

        Batches are bounded by bytes too.
        """
        # By place, because a column that is not asked for may be there twice.
        places = None if columns is None else [self._names.index(name) for name in columns]
        row = 0  # of the first row group that is read
        with unreadable_is_bad(self._file):
            if self._is_file:
                stored = self._batches_of_file(places, groups)
            else:
                stored = self._batches_of_stream(groups, offset)
                if places is not None:
                    stored = (batch.select(places) for batch in stored)
            for batch in stored:
                check_batch(batch)
                yield from split(batch, row, self._max_row_bytes, rows, _BATCH_BYTES)
                row += batch.num_rows

    def _batches_of_file(
        self, places: list[int] | None, groups: range | None
    ) -> Iterator[pa.RecordBatch]:
        read = sorted(set(places or []))  # no others are fetched; none stands for all
        dictionaries, blocks = self._blocks()
        for block in dictionaries:
            self._refuse_large_content(self._message_of(block))
        reader = self._open(read)
        for index in groups if groups is not None else range(reader.num_record_batches):
            if index < len(blocks):
                self._refuse_large_content(self._message_of(blocks[index]))
            batch = reader.get_batch(index)
            if places is not None:
                batch = batch.select([read.index(place) for place in places])
            yield batch

    def _batches_of_stream(self, groups: range | None, offset: int) -> Iterator[pa.RecordBatch]:
        first, count = (groups.start, len(groups)) if groups is not None else (0, None)
        is_native = next(self._messages(), Message(0, 0)).is_native
        if not is_native or any(has_dictionary(field.type) for field in self.schema):
            # Dictionaries stand between the batches and hold for the batches after them, so the
            # stream must be read from its beginning; and only there Arrow turns bytes around.
            for message in self._messages():
                self._refuse_large_content(message)
            stored = iter(self._open())
            for _ in range(first):
                next(stored, None)
        else:
            stored = self._batches_from(offset)
        for index, batch in enumerate(stored):
            if index == count:
                return
            yield batch

    def _batches_from(self, offset: int) -> Iterator[pa.RecordBatch]:
        if offset:
            self._source.seek(offset)
        else:
            self._source.seek(self._first)
            pa.ipc.read_message(self._source)  # the schema
        while True:
            try:
                start = self._source.tell()
                message = pa.ipc.read_message(self._source)
            except EOFError:
                return
            end = self._source.tell()
            body = end - (message.body.size if message.body else 0)
            self._refuse_large_content(parse(message.metadata.to_pybytes(), start, body))
            self._source.seek(end)
            yield pa.ipc.read_record_batch(message, self.schema)

    def _refuse_large_content(self, message: Message) -> None:
        """Refuses compressed values that unpack to far more than they are, before any is unpacked.

        Raises:
            pa.ArrowInvalid: Says of which record batch.
        """
        unpacked = 0
        for place in message.buffers:
            self._bytes.seek(place)
            # -1 stands for a buffer that is not compressed.
            unpacked += max(0, int.from_bytes(self._bytes.read(8), "little", signed=True))
        if unpacked > most_unpacked(message.end - message.start, self._max_row_bytes):
            raise pa.ArrowInvalid(
                f"the record batch at byte {message.start} claims to unpack to "
                f"{size_text(unpacked)}, more than --max-row-bytes allows"
            )

    def _open(
        self, places: Sequence[int] = ()
    ) -> "pa.ipc.RecordBatchFileReader | pa.ipc.RecordBatchStreamReader":
        """Arrow's own reader, of the columns at some places or of all, at the beginning."""
        self._source.seek(self._first)
        if not self._is_file:
            return pa.ipc.open_stream(self._source)
        options = pa.ipc.IpcReadOptions(included_fields=list(places))
        return pa.ipc.open_file(self._source, options=options)

    def _messages(self) -> Iterator[Message]:
        """The messages of a stream, or those of a file's record batches."""
        if self._is_file:
            yield from map(self._message_of, self._blocks()[1])
        else:
            yield from messages(self._bytes, self._first)

    def _message_of(self, block: Block) -> Message:
        self._bytes.seek(block.offset)
        # A mark and the length stand before it; files older than Arrow 0.15 have no mark.
        metadata = self._bytes.read(block.metadata_bytes)
        prefix = 8 if metadata.startswith(b"\xff\xff\xff\xff") else 4
        return parse(metadata[prefix:], block.offset, block.offset + block.metadata_bytes)

    def _blocks(self) -> tuple[list[Block], list[Block]]:
        """The dictionaries of a file, and its record batches."""
        self._bytes.seek(-_TAIL_BYTES, io.SEEK_END)
        length = int.from_bytes(self._bytes.read(4), "little")
        self._bytes.seek(max(0, self._file.size - _TAIL_BYTES - length))
        return blocks(self._bytes.read(length))

    def _refuse_file_without_end(self) -> None:
        size = self._file.size
        self._bytes.seek(max(0, size - len(FILE_MAGIC)))
        if size < 2 * FIRST_MESSAGE or self._bytes.read() != FILE_MAGIC:
            raise BadShardError(
                self._file.relative,
                f"is an Arrow IPC file that is cut off ({size} bytes without a footer)",
            )


class _Buffered(io.BufferedReader):
    """Reads no more at once than the file has: Python takes the memory that is asked for first."""

    def __init__(self, handle: io.RawIOBase, size: int) -> None:
        super().__init__(handle, _BUFFER_BYTES)
        self._size = size

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, self._size - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


def has_dictionary(column_type: pa.DataType) -> bool:
    """Whether a type is dictionary-encoded, or has such a type inside."""
    if isinstance(column_type, pa.BaseExtensionType):
        return has_dictionary(column_type.storage_type)
    children = [column_type.field(i).type for i in range(column_type.num_fields)]
    return pa.types.is_dictionary(column_type) or any(map(has_dictionary, children))
