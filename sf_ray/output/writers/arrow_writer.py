"""Writes filtered Arrow shards: a stream as a stream, a file as a file. No Ray, no model."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from sf_ray.corpus.readers.arrow import IpcForm
from sf_ray.output.writers.arrow_dictionaries import join_batches
from sf_ray.output.writers.held_rows import HeldRows, RowGroupSize


@contextmanager
def arrow_writer(
    path: Path, schema: pa.Schema, form: IpcForm, enough: RowGroupSize
) -> Iterator[HeldRows]:
    """Opens a writer for an Arrow shard.

    Args:
        path: The local file to write.
        schema: Schema of the batches.
        form: How the shard is stored.
        enough: When rows are enough for a batch.
    """
    options = pa.ipc.IpcWriteOptions(compression=form.codec)
    writer = (
        pa.ipc.new_file(path, schema, options=options, metadata=form.metadata)
        if form.is_file
        else pa.ipc.new_stream(path, schema, options=options)
    )

    def put(batches: Sequence[pa.RecordBatch]) -> None:
        for batch in join_batches(batches):
            writer.write_batch(batch)

    with writer:
        rows = HeldRows(put, enough)
        yield rows
        rows.finish()
