"""Kept rows in the order of their IFD: read from shards, cut into parts, written. No Ray, no model.

A table of kept rows has the columns of the corpus, then IFD, then position. The last two are found
by where they stand and not by name, because the corpus may have columns of any name. Does not know
how many parts there are to be, nor where the cuts come from.
"""

import itertools
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from sf_ray.corpus.readers.file_types import FileType
from sf_ray.corpus.rows import read_units
from sf_ray.corpus.units import group_reads
from sf_ray.output.shard_writer import WrittenShard, refuse_field, writer_for
from sf_ray.selection.chunks import Chunk, ChunkRows, Kept
from sf_ray.selection.cutoffs import Cutoff, parts_of
from sf_ray.storage.files import put_whole
from sf_ray.storage.location import Location

_ROW_GROUP_BYTES = 64 << 20


def part_names(file_type: FileType, parts: int) -> list[str]:
    """The names of `parts` output files, in their order."""
    suffix = {FileType.PARQUET: "parquet", FileType.ARROW: "arrow", FileType.JSON: "jsonl"}
    return [f"part-{number:05d}.{suffix[file_type]}" for number in range(parts)]


def read_parts(
    corpus: Location, schema: pa.Schema, kept: Kept, cuts: Sequence[Cutoff], chunk: Chunk
) -> list[pa.Table]:
    """The kept rows of a chunk, by part.

    Args:
        corpus: The folder of the shards.
        schema: The schema of an output file.
        kept: Reads which rows are kept.
        cuts: The last row of each part but the last.
        chunk: The chunk.

    Raises:
        BadShardError: A shard changed, is gone, or cannot be read.
        SfRayError: A JSON row has a field of the added column's name already, or storage failed.
    """
    schema = schema.append(pa.field("position", pa.int64(), nullable=False))
    tables = _kept_tables(corpus, schema, kept.read(chunk), chunk)
    # In one piece: taking rows of a part out of one large chunk is far faster than out of a small
    # one for each unit.
    table = pa.concat_tables([schema.empty_table(), *tables]).combine_chunks()
    part = parts_of(cuts, table[-2].to_numpy(), table[-1].to_numpy())
    return [table.filter(pa.array(part == number)) for number in range(len(cuts) + 1)]


def _kept_tables(
    corpus: Location, schema: pa.Schema, kept_rows: ChunkRows, chunk: Chunk
) -> list[pa.Table]:
    """The kept rows of each unit that has any; `schema` has IFD and position at its end."""
    *columns_of_corpus, ifd_column, _ = schema
    tables, at = [], 0
    for shard, places in itertools.groupby(chunk.places, key=lambda place: place.shard):
        for plan in group_reads(shard, [unit for _, unit in places]):
            for rows in read_units(corpus, plan, None):
                unit = slice(at, at + rows.num_rows)
                at += rows.num_rows
                ifd = kept_rows.ifd[unit]
                keep = ~np.isnan(ifd)
                if not keep.any():
                    continue
                kept = rows.filter(pa.array(keep))
                positions = kept_rows.positions[unit][keep]
                refuse_field(shard, kept, positions - shard.position, ifd_column.name)
                # By position, as names may be there twice. Arrow's types may differ where Parquet
                # stores the same.
                columns = [
                    column if column.type.equals(field.type) else column.cast(field.type)
                    for column, field in zip(kept.columns, columns_of_corpus, strict=True)
                ]
                columns += [pa.array(ifd[keep]), pa.array(positions)]
                tables.append(pa.Table.from_arrays(columns, schema=schema))
    return tables


def write_part(
    data: Location, name: str, schema: pa.Schema, tables: Sequence[pa.Table]
) -> WrittenShard:
    """Writes the rows of a part, the highest IFD first.

    Args:
        data: The folder that the file goes to.
        name: The name of the file.
        schema: The schema of the file.
        tables: From `read_parts`, in the order of the corpus; at least one.

    Raises:
        SfRayError: Storage failed.
    """
    table = pa.concat_tables(tables)
    order = np.lexsort((table[-1].to_numpy(), -table[-2].to_numpy()))
    table = pa.Table.from_arrays(table.columns[:-1], schema=schema)
    rows = max(1, _ROW_GROUP_BYTES * len(order) // max(1, table.nbytes))
    with put_whole(data.join(name)) as path:
        with writer_for(name, path, schema) as writer:
            for start in range(0, len(order), rows):
                # Sorted one row group at a time: memory holds the part once, not twice.
                row_group = table.take(pa.array(order[start : start + rows])).combine_chunks()
                for batch in row_group.to_batches():
                    writer.write(batch)
        size = path.stat().st_size
    return WrittenShard(name, len(order), size)
