"""Reads Arrow IPC: streams, as `datasets.save_to_disk` writes them, and files, as Polars does.

Both hold one record batch after another; a file has a table of them at its end, and a stream is
counted by reading its messages once, without their values. Which of the two a shard is, its bytes
say, not its name. Knows no Ray and no model.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from sf_ray.corpus.readers.ipc_messages import (
    FILE_MAGIC,
    FIRST_MESSAGE,
    Block,
    Message,
    blocks,
    messages,
    parse,
)
from sf_ray.corpus.units import Footer
from sf_ray.errors import BadShardError, first_line
from sf_ray.storage.files import File
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

    def __init__(self, file: File, handle: io.RawIOBase) -> None:
        self._file = file
        self._bytes = io.BufferedReader(handle, _BUFFER_BYTES)
        self._source = pa.PythonFile(self._bytes, mode="r")
        self._is_file = self._bytes.read(FIRST_MESSAGE).startswith(FILE_MAGIC)
        if self._is_file:
            self._refuse_file_without_end()
        self._first = FIRST_MESSAGE if self._is_file else 0
        try:
            self.schema: pa.Schema = self._open().schema
            self._names: list[str] = self.schema.names  # raises where one is no valid UTF-8
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
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
        with unreadable_is_bad(self._file):
            if self._is_file:
                stored = self._batches_of_file(places, groups)
            else:
                stored = self._batches_of_stream(groups, offset)
                if places is not None:
                    stored = (batch.select(places) for batch in stored)
            for batch in stored:
                batch.validate()  # otherwise a damaged batch may crash the process
                size = max(1, batch.nbytes)
                step = min(rows, max(1, _BATCH_BYTES * batch.num_rows // size))
                for start in range(0, batch.num_rows, step):
                    yield batch.slice(start, step)

    def _batches_of_file(
        self, places: list[int] | None, groups: range | None
    ) -> Iterator[pa.RecordBatch]:
        read = sorted(set(places or []))  # no others are fetched; none stands for all
        reader = self._open(read)
        for index in groups if groups is not None else range(reader.num_record_batches):
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
                message = pa.ipc.read_message(self._source)
            except EOFError:
                return
            yield pa.ipc.read_record_batch(message, self.schema)

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
        if not self._is_file:
            yield from messages(self._bytes, self._first)
            return
        for block in self._blocks():
            self._bytes.seek(block.offset)
            # A mark and the length stand before it; files older than Arrow 0.15 have no mark.
            metadata = self._bytes.read(block.metadata_bytes)
            prefix = 8 if metadata.startswith(b"\xff\xff\xff\xff") else 4
            yield parse(metadata[prefix:], block.offset, block.offset + block.metadata_bytes)

    def _blocks(self) -> list[Block]:
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


def has_dictionary(column_type: pa.DataType) -> bool:
    """Whether a type is dictionary-encoded, or has such a type inside."""
    if isinstance(column_type, pa.BaseExtensionType):
        return has_dictionary(column_type.storage_type)
    children = [column_type.field(i).type for i in range(column_type.num_fields)]
    return pa.types.is_dictionary(column_type) or any(map(has_dictionary, children))
