"""Shards + scores + what is kept -> filtered shards. No Ray, no model.

A shard and its own scores are zipped by row number: no join, no shuffle.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sf_ray.locations import Location
from sf_ray.shards import open_shard
from sf_ray.storage import put_whole
from sf_ray.units import Shard

# Kept rows gather until they make a row group of this size, however few each input one leaves.
_ROW_GROUP_BYTES = 64 << 20
_BATCH_ROWS = 65536


@dataclass(frozen=True)
class WrittenShard:
    """One filtered shard."""

    relative: str
    rows: int
    bytes: int


def write_shard(
    corpus: Location,
    shard: Shard,
    ifd: NDArray[np.float64],
    keep: NDArray[np.bool_],
    data: Location,
    ifd_column: str,
) -> WrittenShard:
    """Writes the kept rows of one shard, in their order, with their IFD as one more column.

    Args:
        corpus: Where the shard lies.
        shard: The shard.
        ifd: [shard.rows]; NaN where there is no score.
        keep: [shard.rows] which rows are kept.
        data: Where it goes, under the same relative name.
        ifd_column: Name of the added column.

    Raises:
        BadShardError: The shard changed since it was planned, is gone, or cannot be read.
        SfRayError: Storage failed.
    """
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
