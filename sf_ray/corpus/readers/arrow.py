"""Reads Arrow IPC streams, as `datasets.save_to_disk` writes them: one record batch after another.

A stream has no table of contents, so its rows are counted by reading it once. The file format
(Feather) is a stream between two magic numbers, and is read as a stream. Knows no Ray and no model.
"""

import io
from collections.abc import Iterator, Sequence

import pyarrow as pa

from sf_ray.corpus.units import Footer
from sf_ray.storage.files import File
from sf_ray.storage.versioned_file import unreadable_is_bad

_FILE_MAGIC = b"ARROW1\0\0"
_BUFFER_BYTES = 1 << 20


class ArrowReader:
    """The rows of an Arrow IPC stream; a `ShardReader` whose row groups are record batches."""

    def __init__(self, file: File, handle: io.RawIOBase) -> None:
        self._file = file
        self._stream = pa.PythonFile(io.BufferedReader(handle, _BUFFER_BYTES), mode="r")
        with unreadable_is_bad(file):
            self._start = len(_FILE_MAGIC)
            if self._stream.read(self._start) != _FILE_MAGIC:
                self._start = 0
            self._stream.seek(self._start)
            self.schema: pa.Schema = pa.ipc.read_schema(self._stream)
            self._first = self._stream.tell()

    def footer(self) -> Footer:
        """Counts the rows in one pass over the stream."""
        row_groups, starts = [], []
        start = self._first
        with unreadable_is_bad(self._file):
            for batch in self._stored(0, 0):
                row_groups.append(batch.num_rows)
                starts.append(start)
                start = self._stream.tell()
        return Footer(tuple(row_groups), self.schema, tuple(starts))

    def batches(
        self,
        rows: int,
        columns: Sequence[str] | None = None,
        groups: range | None = None,
        offset: int = 0,
    ) -> Iterator[pa.RecordBatch]:
        """See `ShardReader.batches`."""
        with unreadable_is_bad(self._file):
            stored = self._stored(groups.start if groups else 0, offset)
            for index, batch in enumerate(stored):
                if groups is not None and index == len(groups):
                    return
                batch.validate()  # otherwise a damaged batch may crash the process
                if columns is not None:
                    batch = batch.select(list(columns))
                for start in range(0, batch.num_rows, rows):
                    yield batch.slice(start, rows)

    def _stored(self, first: int, offset: int) -> Iterator[pa.RecordBatch]:
        """Yields the record batches from number `first` on, which begins at byte `offset`.

        An `offset` of 0 stands for the first batch.
        """
        if any(_has_dictionary(field.type) for field in self.schema):
            # Dictionaries stand between the batches and hold for the batches after them, so the
            # stream must be read from its beginning.
            self._stream.seek(self._start)
            for index, batch in enumerate(pa.ipc.open_stream(self._stream)):
                if index >= first:
                    yield batch
            return
        self._stream.seek(offset or self._first)
        while True:
            try:
                message = pa.ipc.read_message(self._stream)
            except EOFError:
                return
            yield pa.ipc.read_record_batch(message, self.schema)


def _has_dictionary(column_type: pa.DataType) -> bool:
    """Whether a type is dictionary-encoded, or has such a type inside."""
    children = [column_type.field(i).type for i in range(column_type.num_fields)]
    return pa.types.is_dictionary(column_type) or any(map(_has_dictionary, children))
