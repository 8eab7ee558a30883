"""Holds kept rows until they make a row group. Does not know what file they go to."""

from collections.abc import Callable, Sequence

import pyarrow as pa

# Only a few rows of each batch of the input may be kept, and small row groups are slow to read.
ROW_GROUP_BYTES = 64 << 20


class HeldRows:
    """Holds the rows of a Parquet or Arrow file until there are enough for a row group.

    Args:
        put: Writes some batches as one row group, or as few as can hold them.
    """

    def __init__(self, put: Callable[[Sequence[pa.RecordBatch]], None]) -> None:
        self._put = put
        self._held: list[pa.RecordBatch] = []
        self._held_bytes = 0

    def write(self, batch: pa.RecordBatch) -> None:
        """Writes some rows, or holds them until there are enough."""
        if batch.num_rows:
            self._held.append(batch)
            self._held_bytes += batch.nbytes
        if self._held_bytes >= ROW_GROUP_BYTES:
            self.finish()

    def finish(self) -> None:
        """Writes the rows that are held."""
        if self._held:
            self._put(self._held)
        self._held, self._held_bytes = [], 0
