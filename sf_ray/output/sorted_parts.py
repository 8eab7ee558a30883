"""Kept rows in the order of their IFD: read from shards, cut into parts, written. No Ray, no model.

A table of kept rows has the columns of the corpus, then IFD, then position. The last two are found
by where they stand and not by name, because the corpus may have columns of any name. Does not know
how many parts there are to be, nor where the cuts come from.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from sf_ray.corpus.readers.file_types import FileType
from sf_ray.corpus.readers.shard import open_shard
from sf_ray.corpus.rows import read_units
from sf_ray.corpus.units import Shard, group_reads
from sf_ray.errors import SfRayError, first_line
from sf_ray.output.shard_writer import WrittenShard, kept_schema, refuse_field, writer_for
from sf_ray.output.writers.arrow_dictionaries import join_batches, with_one_dictionary
from sf_ray.output.writers.arrow_rows import filter_table, take_rows
from sf_ray.output.writers.shard_form import AskedForm, ShardForm, form_of
from sf_ray.selection.chunks import Chunk, ChunkRows, Kept
from sf_ray.selection.cutoffs import Cutoff, parts_of
from sf_ray.storage.files import put_whole
from sf_ray.storage.location import Location
from sf_ray.text.printable import printable


def part_names(file_type: FileType, parts: int, compression: str | None = None) -> list[str]:
    """The names of `parts` output files, in their order; those of JSON say the compression."""
    suffix = {FileType.PARQUET: "parquet", FileType.ARROW: "arrow", FileType.JSON: "jsonl"}
    packed = ""
    if file_type is FileType.JSON and compression not in (None, "none"):
        packed = {"zstd": ".zst", "gzip": ".gz", "lz4": ".lz4"}[str(compression)]
    return [f"part-{number:05d}.{suffix[file_type]}{packed}" for number in range(parts)]


def output_columns(
    corpus: Location,
    first: Shard,
    ifd_column: str,
    asked: AskedForm = AskedForm(),  # noqa: B008 - frozen
) -> tuple[pa.Schema, ShardForm]:
    """(the schema of an output file, how it is stored).

    Args:
        corpus: The folder of the shards.
        first: The first shard, whose columns and form the output has.
        ifd_column: Name of the added column.
        asked: What of the file is not to be as in the input.

    Raises:
        BadShardError: The shard changed, is gone, or cannot be read.
        SfRayError: Storage failed.
    """
    with open_shard(corpus, first.file, to_copy=True) as reader:
        # A file of JSON rows has lines, whatever the shards are.
        form = asked.of(replace(form_of(reader), is_array=False))
        return kept_schema(reader.schema, ifd_column), form


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
        SfRayError: A JSON row has a field of the added column's name already, a shard stores its
            columns otherwise than the first, or storage failed.
    """
    schema = schema.append(pa.field("position", pa.int64(), nullable=False))
    tables = kept_tables(corpus, schema, kept.read(chunk), chunk)
    # In one piece: taking rows of a part out of one large chunk is far faster than out of a small
    # one for each unit.
    batches = join_batches([batch for table in tables for batch in table.to_batches()])
    table = pa.Table.from_batches(batches, schema)
    part = parts_of(cuts, table[-2].to_numpy(), table[-1].to_numpy())
    return [filter_table(table, part == number) for number in range(len(cuts) + 1)]


def kept_tables(
    corpus: Location, schema: pa.Schema, kept_rows: ChunkRows, chunk: Chunk
) -> Iterator[pa.Table]:
    """The kept rows of each unit that has any, in the order of the corpus.

    Args:
        corpus: The folder of the shards.
        schema: The columns of an output file, then the position.
        kept_rows: Which rows of the chunk are kept.
        chunk: The chunk.

    Raises:
        BadShardError: A shard changed, is gone, or cannot be read.
        SfRayError: A JSON row has a field of the added column's name already, a shard stores its
            columns otherwise than the first, or storage failed.
    """
    ifd_column = schema.names[-2]
    at = 0
    for shard, places in itertools.groupby(chunk.places, key=lambda place: place.shard):
        for plan in group_reads(shard, [unit for _, unit in places]):
            for rows in read_units(corpus, plan, columns=None):
                unit = slice(at, at + rows.num_rows)
                at += rows.num_rows
                ifd = kept_rows.ifd[unit]
                keep = ~np.isnan(ifd)
                if not keep.any():
                    continue
                kept = filter_table(rows, keep)
                positions = kept_rows.positions[unit][keep]
                refuse_field(shard, kept, positions - shard.position, ifd_column)
                kept = _stored_as(shard, kept, schema)
                columns = [*kept.columns, pa.array(ifd[keep]), pa.array(positions)]
                yield pa.Table.from_arrays(columns, schema=schema)


def _stored_as(shard: Shard, kept: pa.Table, schema: pa.Schema) -> pa.Table:
    """Rows as the first columns of `schema` hold them, e.g. categories as plain text."""
    wanted = pa.schema(list(schema)[: kept.num_columns])
    if kept.schema.equals(wanted):
        return kept
    try:
        return kept.cast(wanted)
    except (ValueError, pa.ArrowException) as error:
        raise SfRayError(
            f"{printable(shard.file.relative)}: its columns are not stored as those of the first "
            "shard, so "
            f"their rows cannot go into one file ({first_line(error)}); use --order input without "
            "--file-size"
        ) from error


def write_part(
    data: Location,
    name: str,
    schema: pa.Schema,
    tables: Sequence[pa.Table],
    form: ShardForm,
) -> WrittenShard:
    """Writes the rows of a part, the highest IFD first.

    Args:
        data: The folder that the file goes to.
        name: The name of the file.
        schema: The schema of the file.
        tables: From `read_parts`, in the order of the corpus; at least one.
        form: How the file is stored.

    Raises:
        SfRayError: Storage failed, or the dictionaries of the tables do not fit into one.
    """
    table = with_one_dictionary(pa.concat_tables(tables))
    order = np.lexsort((table[-1].to_numpy(), -table[-2].to_numpy()))
    table = pa.Table.from_arrays(table.columns[:-1], schema=schema)
    enough = form.row_group
    rows = enough.rows or max(1, enough.bytes * len(order) // max(1, table.nbytes))
    with put_whole(data.join(name)) as path:
        with writer_for(name, path, schema, form) as writer:
            for start in range(0, len(order), rows):
                # Sorted one row group at a time: memory holds the part once, not twice.
                row_group = take_rows(table, order[start : start + rows])
                for batch in row_group.to_batches():
                    writer.write(batch)
        size = path.stat().st_size
    return WrittenShard(name, len(order), size)
