"""Holds kept rows until they make a row group. Does not know what file they go to."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa

# Only a few rows of each batch of the input may be kept, and small row groups are slow to read.
ROW_GROUP_BYTES = 64 << 20


@dataclass(frozen=True)
class RowGroupSize:
    """When rows are enough for a row group.

    Attributes:
        rows: So many; None where bytes decide.
        bytes: So many, in memory, if rows do not decide.
    """

    rows: int | None = None
    bytes: int = ROW_GROUP_BYTES


FULL_ROW_GROUP = RowGroupSize()


class HeldRows:
    """Holds the rows of a Parquet or Arrow file until there are enough for a row group.

    Args:
        put: Writes some batches as one row group, or as few as can hold them.
        enough: How many rows that are.
    """

    def __init__(
        self,
        put: Callable[[Sequence[pa.RecordBatch]], None],
        enough: RowGroupSize = FULL_ROW_GROUP,
    ) -> None:
        self._put, self._enough = put, enough
        self._held: list[pa.RecordBatch] = []
        self._held_bytes = self._held_rows = 0

    def write(self, batch: pa.RecordBatch) -> None:
        """Writes some rows, or holds them until there are enough."""
        most = self._enough.rows
        if most is None:  # as many rows of this batch as reach the bytes
            room = max(0, self._enough.bytes - self._held_bytes)
            row_bytes = batch.nbytes / max(1, batch.num_rows)
            most = self._held_rows + max(1, math.ceil(room / max(1, row_bytes)))
        if self._held_rows + batch.num_rows < most:
            self._hold(batch)
            return
        missing = most - self._held_rows
        self._hold(batch.slice(0, missing))
        self.finish()
        if missing < batch.num_rows:
            self.write(batch.slice(missing))

    def _hold(self, batch: pa.RecordBatch) -> None:
        if batch.num_rows:
            self._held.append(batch)
            self._held_bytes += batch.nbytes
            self._held_rows += batch.num_rows

    def finish(self) -> None:
        """Writes the rows that are held."""
        if self._held:
            self._put(self._held)
        self._held, self._held_bytes, self._held_rows = [], 0, 0
