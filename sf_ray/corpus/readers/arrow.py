"""Arrow IPC streams, as `datasets.save_to_disk` leaves them: record batches one after another.

A stream has no table of contents: to count its rows is to read it once. The file format (Feather)
is a stream between two magic numbers, and is read as one. No Ray, no model.
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
    """The rows of an Arrow IPC stream; its record batches are its row groups."""

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
        """Reads the stream once."""
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
        """As `shards.Reader` has it."""
        with unreadable_is_bad(self._file):
            stored = self._stored(groups.start if groups else 0, offset)
            for index, batch in enumerate(stored):
                if groups is not None and index == len(groups):
                    return
                batch.validate()  # a batch that was damaged must not end the process
                if columns is not None:
                    batch = batch.select(list(columns))
                for start in range(0, batch.num_rows, rows):
                    yield batch.slice(start, rows)

    def _stored(self, first: int, offset: int) -> Iterator[pa.RecordBatch]:
        """Record batches from the first of these on, which begins at `offset`."""
        if any(_has_dictionary(field.type) for field in self.schema):
            # Dictionaries stand between the batches, each good for those after it.
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


def _has_dictionary(kind: pa.DataType) -> bool:
    children = [kind.field(i).type for i in range(kind.num_fields)]
    return pa.types.is_dictionary(kind) or any(map(_has_dictionary, children))
