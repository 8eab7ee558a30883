"""Kept rows -> filtered shards, written in Ray tasks, in the order of the input or of IFD."""

import functools
from collections.abc import Sequence

import numpy as np

from sf_ray.config.selection_options import SelectionOptions
from sf_ray.corpus.units import Place, Shard, Unit
from sf_ray.output.export_tasks import export_names
from sf_ray.output.layout import Output
from sf_ray.output.shard_writer import WrittenShard, write_shard
from sf_ray.output.sized_tasks import plan_files, rows_to_file, write_sized
from sf_ray.output.sorted_parts import part_names
from sf_ray.output.sorted_tasks import count_parts, find_cuts, write_in_order
from sf_ray.output.writers.held_rows import RowGroupSize
from sf_ray.output.writers.shard_form import AskedForm
from sf_ray.runtime.tasks import parallel_map
from sf_ray.scoring.score_set import ShardUnits, or_mark
from sf_ray.selection.chunks import Chunk, Kept
from sf_ray.selection.corpus_pass import CorpusPass, MarkedBadError
from sf_ray.selection.selection import Selection
from sf_ray.storage.files import map_requests
from sf_ray.storage.location import Location

# Small shards of one task that are written side by side, because each waits for storage.
_WRITES_AT_ONCE = 8
# The most that one task writes, unless a single shard is larger.
_BYTES_A_TASK, _SHARDS_A_TASK = 64 << 20, 64


def write_kept(
    options: SelectionOptions, selection: Selection, output: Output
) -> list[WrittenShard]:
    """Writes the kept rows, in the order that `--order` asks for.

    Raises:
        MarkedBadError: Shards turned out to be bad.
        SfRayError: Files of others are in the way, or storage failed.
    """
    asked, file_type = _asked_form(options), selection.corpus.file_type
    column = options.ifd_column
    # Before the output is cleared, files are planned: a bad shard may show there, and then all
    # starts anew.
    if options.order == "ifd":
        parts = count_parts(selection, options.file_size)
        names = part_names(file_type, parts, options.compression)
        cuts = find_cuts(selection, len(names))
        output.begin(names, export_names(options.export, len(names)))
        return write_in_order(selection, cuts, names, output.data, column, asked)
    if options.file_size is not None:
        (suffix,) = part_names(file_type, 1, options.compression)
        file_of_rows = rows_to_file(selection, column, asked)
        chunks = plan_files(selection, file_of_rows, options.file_size, suffix)
        names = part_names(file_type, len(chunks), options.compression)
        output.begin(names, export_names(options.export, len(names)))
        return write_sized(selection, file_of_rows, chunks, names, output.data)
    names = [shard.written_name for shard in selection.corpus.shards]
    output.begin(names, export_names(options.export, len(names)))
    return _write_in_input_order(selection, output.data, column, asked)


def _asked_form(options: SelectionOptions) -> AskedForm:
    if options.row_group_size is None:
        return AskedForm(options.compression)
    unit, size = options.row_group_size
    row_group = RowGroupSize(rows=size) if unit == "rows" else RowGroupSize(bytes=size)
    return AskedForm(options.compression, row_group)


def _write_in_input_order(
    selection: Selection, data: Location, ifd_column: str, asked: AskedForm
) -> list[WrittenShard]:
    corpus, corpus_pass, dropped = selection.corpus, selection.corpus_pass, selection.dropped
    write = functools.partial(
        _write_shards, corpus.location, selection.kept, data, ifd_column, asked, corpus_pass
    )
    tasks = []
    for shards in share_shards(selection.units):
        chunks = [Chunk([Place(shard, unit) for unit in units]) for shard, units in shards]
        chunks = selection.with_known([chunk.without(dropped) for chunk in chunks])
        tasks.append([(shard, chunk) for (shard, _), chunk in zip(shards, chunks, strict=True)])
    written = [
        shard for shards in parallel_map(write, tasks, corpus_pass.stall_s) for shard in shards
    ]
    if len(written) < len(corpus.shards):
        raise MarkedBadError
    return written


def _write_shards(
    corpus: Location,
    kept: Kept,
    data: Location,
    ifd_column: str,
    asked: AskedForm,
    corpus_pass: CorpusPass,
    shards: Sequence[tuple[Shard, Chunk]],
) -> list[WrittenShard]:
    """Writes some filtered shards; a bad shard is marked and left out if it may be."""

    def write(shard_rows: tuple[Shard, Chunk]) -> WrittenShard | None:
        shard, chunk = shard_rows
        with or_mark(corpus_pass.pieces, corpus_pass.skip_bad, [shard]):
            ifd = kept.read(chunk).ifd if chunk.places else np.empty(0)
            return write_shard(corpus, shard, ifd, ~np.isnan(ifd), data, ifd_column, asked)
        return None

    return [shard for shard in map_requests(data, write, shards, _WRITES_AT_ONCE) if shard]


def share_shards(units: ShardUnits) -> list[ShardUnits]:
    """Groups shards, in order, into what one task writes: small shards together."""
    tasks: list[list[tuple[Shard, Sequence[Unit]]]] = []
    room = 0
    for shard, shard_units in units:
        if shard.file.size > room or len(tasks[-1]) == _SHARDS_A_TASK:
            tasks.append([])
            room = _BYTES_A_TASK
        tasks[-1].append((shard, shard_units))
        room -= shard.file.size
    return list(tasks)
