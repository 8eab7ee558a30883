"""Kept rows -> filtered shards, written in Ray tasks, in the order of the input or of IFD."""

import functools
from collections.abc import Sequence

import numpy as np

from sf_ray.config.options import SelectionOptions
from sf_ray.corpus.units import Place, Shard, Unit
from sf_ray.output.export_tasks import export_names
from sf_ray.output.layout import Output
from sf_ray.output.shard_writer import WrittenShard, write_shard
from sf_ray.output.sorted_parts import part_names
from sf_ray.output.sorted_tasks import count_parts, find_cuts, write_in_order
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
    if options.order == "ifd":
        names = part_names(selection.corpus.file_type, count_parts(selection))
        # Before the output is cleared: a bad shard may show here, and then all starts anew.
        cuts = find_cuts(selection, len(names))
        output.begin(names, export_names(options.export, len(names)))
        return write_in_order(selection, cuts, names, output.data, options.ifd_column)
    names = [shard.written_name for shard in selection.corpus.shards]
    output.begin(names, export_names(options.export, len(names)))
    return _write_in_input_order(selection, output.data, options.ifd_column)


def _write_in_input_order(
    selection: Selection, data: Location, ifd_column: str
) -> list[WrittenShard]:
    corpus, corpus_pass, dropped = selection.corpus, selection.corpus_pass, selection.dropped
    write = functools.partial(
        _write_shards, corpus.location, selection.kept, data, ifd_column, corpus_pass
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
    corpus_pass: CorpusPass,
    shards: Sequence[tuple[Shard, Chunk]],
) -> list[WrittenShard]:
    """Writes some filtered shards; a bad shard is marked and left out if it may be."""

    def write(shard_rows: tuple[Shard, Chunk]) -> WrittenShard | None:
        shard, chunk = shard_rows
        with or_mark(corpus_pass.pieces, corpus_pass.skip_bad, [shard]):
            ifd = kept.read(chunk).ifd if chunk.places else np.empty(0)
            return write_shard(corpus, shard, ifd, ~np.isnan(ifd), data, ifd_column)
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
