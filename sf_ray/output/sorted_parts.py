"""Kept rows in the order of their IFD: read from shards, cut into parts, written. No Ray, no model.

A table of kept rows has the corpus's columns, then IFD, then position; the last two are told by
their place, since the corpus may have columns of any name.
"""

import itertools
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from sf_ray.corpus.readers.file_types import FileType
from sf_ray.corpus.rows import read_units
from sf_ray.corpus.units import group_reads
from sf_ray.output.shard_writer import WrittenShard, refuse_field, writer_for
from sf_ray.selection.chunks import Chunk, Kept
from sf_ray.selection.cutoffs import Cutoff, parts_of
from sf_ray.storage.files import put_whole
from sf_ray.storage.location import Location

_ROW_GROUP_BYTES = 64 << 20


def part_names(kind: FileType, parts: int) -> list[str]:
    """Names of so many output files, in their order."""
    suffix = {FileType.PARQUET: "parquet", FileType.ARROW: "arrow", FileType.JSON: "jsonl"}[kind]
    return [f"part-{number:05d}.{suffix}" for number in range(parts)]


def read_parts(
    corpus: Location, schema: pa.Schema, kept: Kept, cuts: Sequence[Cutoff], chunk: Chunk
) -> list[pa.Table]:
    """The kept rows of a chunk, by part.

    Args:
        corpus: Where the shards lie.
        schema: Of an output file.
        kept: Reads which rows are kept.
        cuts: The last row of each part but the last.
        chunk: The rows.

    Raises:
        BadShardError: A shard changed, is gone, or cannot be read.
    """
    selected = kept.read(chunk)
    schema = schema.append(pa.field("position", pa.int64(), nullable=False))
    held, at = [], 0
    for shard, places in itertools.groupby(chunk.places, key=lambda place: place[0]):
        for plan in group_reads(shard, [unit for _, unit in places]):
            for rows in read_units(corpus, plan, schema.names[:-2]):
                ifd = selected.ifd[at : at + rows.num_rows]
                keep = ~np.isnan(ifd)
                if keep.any():
                    numbers = selected.positions[at : at + rows.num_rows][keep] - shard.position
                    refuse_field(shard, rows.filter(pa.array(keep)), numbers, schema.names[-2])
                    columns = rows.filter(pa.array(keep)).select(schema.names[:-2]).columns
                    positions = selected.positions[at : at + rows.num_rows][keep]
                    columns += [pa.array(ifd[keep]), pa.array(positions)]
                    held.append(pa.Table.from_arrays(columns, schema=schema))
                at += rows.num_rows
    # Taking rows out of one large chunk is far faster than out of one small one for each unit.
    table = pa.concat_tables([schema.empty_table(), *held]).combine_chunks()
    part = parts_of(cuts, table[-2].to_numpy(), table[-1].to_numpy())
    return [table.filter(pa.array(part == number)) for number in range(len(cuts) + 1)]


def write_part(
    data: Location, name: str, schema: pa.Schema, tables: Sequence[pa.Table]
) -> WrittenShard:
    """Writes the rows of a part, best first.

    Args:
        data: Where it goes.
        name: Under this name.
        schema: Of an output file.
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
                # Rows a row group at a time: the part is held once, not twice.
                taken = table.take(pa.array(order[start : start + rows])).combine_chunks()
                for batch in taken.to_batches():
                    writer.write(batch)
        size = path.stat().st_size
    return WrittenShard(name, len(order), size)
