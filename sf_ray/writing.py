"""Shards + scores + cut-off -> filtered shards. No Ray, no model.

A shard and its own scores are zipped by row number: no join, no shuffle.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sf_ray.errors import SfRayError
from sf_ray.planning import Shard, Unit
from sf_ray.selection import Cutoff
from sf_ray.storage import Location, open_shard, put_whole, read_bytes

# Kept rows gather until they make a row group of this size, however few each input one leaves.
_ROW_GROUP_BYTES = 64 << 20
_BATCH_ROWS = 16384
_PIECE_THREADS = 16


@dataclass(frozen=True)
class UnitScores:
    """Scores of a unit as selection needs them; NaN where a row has none."""

    status: list[str]
    ifd: NDArray[np.float64]


@dataclass(frozen=True)
class WrittenShard:
    """One filtered shard."""

    relative: str
    rows: int
    bytes: int


def read_scores(scores: Location, shard: Shard, units: Sequence[Unit]) -> list[UnitScores]:
    """Reads the pieces of a shard's units, several at a time, in the units' order.

    Raises:
        SfRayError: A piece is missing, cannot be read, or has other rows than its name says.
    """
    with ThreadPoolExecutor(_PIECE_THREADS) as threads:
        return list(threads.map(lambda unit: _read_piece(scores, shard, unit), units))


def _read_piece(scores: Location, shard: Shard, unit: Unit) -> UnitScores:
    location = scores.join(shard.piece(unit))
    try:
        table = pq.read_table(
            pa.BufferReader(read_bytes(location)), columns=["row", "status", "ifd"]
        )
    except (pa.ArrowException, OSError) as error:
        raise SfRayError(
            f"score piece {location.public_uri} cannot be read ({error}); delete it and score again"
        ) from error
    if not np.array_equal(table["row"].to_numpy(), np.arange(unit.start, unit.stop)):
        raise SfRayError(
            f"score piece {location.public_uri} does not hold the rows that its name says; delete "
            "it and score again"
        )
    return UnitScores(
        table["status"].to_pylist(), table["ifd"].to_numpy().astype(np.float64, copy=False)
    )


def write_shard(
    corpus: Location,
    shard: Shard,
    ifd: NDArray[np.float64],
    cutoff: Cutoff | None,
    data: Location,
    ifd_column: str,
) -> WrittenShard:
    """Writes the kept rows of one shard, in their order, with their IFD as one more column.

    Args:
        corpus: Where the shard lies.
        shard: The shard.
        ifd: [shard.rows]; NaN where there is no score.
        cutoff: The last row that is kept; None keeps nothing.
        data: Where it goes, under the same relative name.
        ifd_column: Name of the added column.

    Raises:
        SfRayError: The shard changed since it was planned, or storage failed.
    """
    keep = np.zeros(shard.rows, dtype=bool)
    if cutoff is not None:
        keep = cutoff.keeps(ifd, shard.position + np.arange(shard.rows))
    kept_rows, row = 0, 0
    with (
        put_whole(data.join(shard.file.relative)) as path,
        open_shard(corpus, shard.file) as parquet,
    ):
        schema = parquet.schema_arrow.append(pa.field(ifd_column, pa.float64()))
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            held: list[pa.RecordBatch] = []
            for batch in parquet.iter_batches(_BATCH_ROWS):
                mask = keep[row : row + batch.num_rows]
                values = ifd[row : row + batch.num_rows][mask]
                row += batch.num_rows
                kept = batch.filter(pa.array(mask))
                arrays = [*kept.columns, pa.array(values)]
                held.append(pa.RecordBatch.from_arrays(arrays, schema=schema))
                kept_rows += len(values)
                if sum(one.nbytes for one in held) >= _ROW_GROUP_BYTES:
                    writer.write_table(pa.Table.from_batches(held))
                    held = []
            if kept_rows and held:
                writer.write_table(pa.Table.from_batches(held, schema))
        size = path.stat().st_size
    return WrittenShard(shard.file.relative, kept_rows, size)
