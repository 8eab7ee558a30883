"""Writes filtered Arrow shards: a stream as a stream, a file as a file. No Ray, no model."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from sf_ray.corpus.readers.arrow import IpcForm
from sf_ray.output.arrow_dictionaries import join_batches

# Kept rows are held until they make a record batch of this size, because only a few rows of each
# batch of the input may be kept.
_BATCH_BYTES = 64 << 20


@contextmanager
def arrow_writer(path: Path, schema: pa.Schema, form: IpcForm) -> Iterator["ArrowWriter"]:
    """Opens a writer for an Arrow shard.

    Args:
        path: The local file to write.
        schema: Schema of the batches.
        form: How the shard is stored.
    """
    options = pa.ipc.IpcWriteOptions(compression=form.codec)
    writer = (
        pa.ipc.new_file(path, schema, options=options, metadata=form.metadata)
        if form.is_file
        else pa.ipc.new_stream(path, schema, options=options)
    )
    with writer:
        rows = ArrowWriter(writer)
        yield rows
        rows.finish()


class ArrowWriter:
    """Writes Arrow; holds rows until they make a record batch."""

    def __init__(self, writer: pa.ipc.RecordBatchStreamWriter) -> None:
        self._writer = writer
        self._held: list[pa.RecordBatch] = []
        self._held_bytes = 0

    def write(self, batch: pa.RecordBatch) -> None:
        """Writes some rows, or holds them until there are enough."""
        if batch.num_rows:
            self._held.append(batch)
            self._held_bytes += batch.nbytes
        if self._held_bytes >= _BATCH_BYTES:
            self.finish()

    def finish(self) -> None:
        """Writes the rows that are held."""
        for batch in join_batches(self._held):
            self._writer.write_batch(batch)
        self._held, self._held_bytes = [], 0
