"""Shards + scores + cut-off -> filtered shards. No Ray, no model.

A shard and its own scores are zipped by row number: no join, no shuffle.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sf_ray.errors import SfRayError
from sf_ray.locations import Location
from sf_ray.selection import Cutoff
from sf_ray.shards import open_shard
from sf_ray.storage import map_requests, put_whole, read_bytes
from sf_ray.units import Shard, Unit

# Kept rows gather until they make a row group of this size, however few each input one leaves.
_ROW_GROUP_BYTES = 64 << 20
_BATCH_ROWS = 65536

# A unit, and the shard that it is of.
Place = tuple[Shard, Unit]


@dataclass(frozen=True)
class UnitScores:
    """Scores of a unit as selection needs them.

    Attributes:
        status: [rows] strings.
        ifd: [rows]; NaN where a row has none.
    """

    status: pa.ChunkedArray
    ifd: NDArray[np.float64]


@dataclass(frozen=True)
class WrittenShard:
    """One filtered shard."""

    relative: str
    rows: int
    bytes: int


def read_scores(scores: Location, places: Sequence[Place]) -> Iterator[UnitScores]:
    """Reads and checks the pieces of units, several at a time, in the units' order.

    Raises:
        SfRayError: A piece is missing, cannot be read, or has other rows than its name says.
    """

    def read(place: Place) -> UnitScores:
        table = _read_piece(scores, place, ["row", "status", "ifd"])
        _, unit = place
        if not np.array_equal(table["row"].to_numpy(), np.arange(unit.start, unit.stop)):
            raise _other_rows(scores, place)
        return UnitScores(table["status"], _ifd(table))

    return map_requests(scores, read, places)


def read_ifd(scores: Location, places: Sequence[Place]) -> Iterator[NDArray[np.float64]]:
    """Reads no more than the IFD of units whose pieces were checked: [rows] each; NaN for none.

    Raises:
        SfRayError: A piece is missing, cannot be read, or has other rows than its name says.
    """
    return map_requests(scores, lambda place: _ifd(_read_piece(scores, place, ["ifd"])), places)


def _ifd(table: pa.Table) -> NDArray[np.float64]:
    ifd: NDArray[np.float64] = table["ifd"].to_numpy().astype(np.float64, copy=False)
    return ifd


def _read_piece(scores: Location, place: Place, columns: list[str]) -> pa.Table:
    shard, unit = place
    location = scores.join(shard.piece(unit))
    try:
        with pq.ParquetFile(
            pa.BufferReader(read_bytes(location)), page_checksum_verification=True
        ) as parquet:
            table = parquet.read(columns, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise SfRayError(
            f"score piece {location.public_uri} cannot be read ({error}); delete it and score again"
        ) from error
    if table.num_rows != unit.rows:
        raise _other_rows(scores, place)
    return table


def _other_rows(scores: Location, place: Place) -> SfRayError:
    shard, unit = place
    where = scores.join(shard.piece(unit)).public_uri
    return SfRayError(
        f"score piece {where} does not hold the rows that its name says; delete it and score again"
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
        BadShardError: The shard changed since it was planned, is gone, or cannot be read.
        SfRayError: Storage failed.
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
        with pq.ParquetWriter(path, schema, compression="zstd", write_page_checksum=True) as writer:
            held: list[pa.RecordBatch] = []
            for batch in parquet.iter_batches(_BATCH_ROWS, use_threads=False):
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
