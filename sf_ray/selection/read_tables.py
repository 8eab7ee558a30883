"""Score tables that one pass over a corpus has read, kept in Ray's object store for the others.

A pass that ranks, writes or surveys needs the same few columns of every piece, and each piece takes
a request and is checked from end to end. So the first pass leaves them where the others find them.
Nothing depends on them: what is lost with its node is read from the pieces again. Does not know
what the tables hold.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pyarrow as pa
import ray
from ray.exceptions import RayError

from sf_ray.selection.chunks import Chunk

# Bytes that a row takes, and the share of the cluster's object store that all rows may take: Ray
# keeps other things there too, and writes to disk what has no room.
_ROW_BYTES, _SHARE = 40, 0.25
# Seconds to wait for a table, which comes from another node or is made again where it was lost.
_WAIT_S = 60.0


@dataclass(frozen=True)
class ReadTable:
    """Where the table of some rows that follow each other lies.

    Attributes:
        start: Position of the first row in the corpus.
        stop: Position behind the last row.
        ref: The table.
    """

    start: int
    stop: int
    ref: ray.ObjectRef


@dataclass(frozen=True)
class ReadTables:
    """The tables of a whole corpus, once all are added; or those of a part of it.

    Attributes:
        tables: In no order.
    """

    tables: list[ReadTable] = field(default_factory=list)

    @classmethod
    def with_room(cls, rows: int) -> "ReadTables | None":
        """No tables yet; None where those of so many rows have no room, or where no Ray runs."""
        if not ray.is_initialized():
            return None
        room = ray.cluster_resources().get("object_store_memory", 0) * _SHARE
        return cls() if rows * _ROW_BYTES <= room else None

    def add(self, start: int, stop: int, ref: ray.ObjectRef) -> None:
        """Adds the table of the rows from `start` on, before `stop`."""
        self.tables.append(ReadTable(start, stop, ref))

    def for_chunk(self, chunk: Chunk) -> Chunk:
        """The chunk, with the tables of its rows."""
        if not chunk.places:
            return chunk
        start, stop = chunk.start, chunk.stop
        tables = [table for table in self.tables if table.start < stop and start < table.stop]
        return replace(chunk, known=ReadTables(tables))

    def between(self, start: int, stop: int) -> list[pa.Table] | None:
        """The tables of the rows at [start, stop), in their order; None where not all are there."""
        try:
            tables = list(self._between(start, stop))
        except RayError:  # lost, with the node that had it
            return None
        return tables if sum(table.num_rows for table in tables) == stop - start else None

    def _between(self, start: int, stop: int) -> Iterator[pa.Table]:
        for table in sorted(self.tables, key=lambda table: table.start):
            first, end = max(start, table.start), min(stop, table.stop)
            if first < end:
                rows: pa.Table = ray.get(table.ref, timeout=_WAIT_S)
                yield rows.slice(first - table.start, end - first)
