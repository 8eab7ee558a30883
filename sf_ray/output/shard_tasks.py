"""Filtered shards in the order of the input, over Ray tasks."""

import functools
from collections.abc import Sequence

import numpy as np

from sf_ray.config.options import SelectionOptions
from sf_ray.corpus.planning import Corpus
from sf_ray.corpus.units import Shard, Unit
from sf_ray.errors import BadShardError
from sf_ray.output.export_tasks import export_names
from sf_ray.output.layout import Output
from sf_ray.output.shard_writer import WrittenShard, write_shard
from sf_ray.output.sorted_parts import part_names
from sf_ray.output.sorted_tasks import chunks_to_write, count_parts, find_cuts, write_in_order
from sf_ray.runtime.tasks import parallel_map
from sf_ray.scoring.score_set import ShardUnits, mark_bad
from sf_ray.selection.chunks import Chunk, Kept
from sf_ray.selection.corpus_pass import MarkedBadError, chunks_of
from sf_ray.selection.run import _Selection
from sf_ray.storage.files import map_requests
from sf_ray.storage.location import Location

# Small shards of one task that wait for storage together.
_WRITES_AT_ONCE = 8


def _write(
    options: SelectionOptions, corpus: Corpus, selection: _Selection, output: Output
) -> list[WrittenShard]:
    """Writes what is kept, in the order that was asked for.

    Raises:
        MarkedBadError: Shards turned out to be bad.
    """
    passes, dropped = selection.passes, selection.dropped
    if options.order == "ifd":
        kept_rows = selection.rows
        names = part_names(corpus.file_type, count_parts(corpus, kept_rows))
        chunks = chunks_of(selection.units, dropped)
        cuts = find_cuts(passes, chunks, corpus.rows, selection.kept, kept_rows, len(names))
        output.begin(names, export_names(options.export, len(names)))
        return write_in_order(
            passes,
            corpus,
            chunks_to_write(corpus, selection.units, dropped, kept_rows, len(names)),
            selection.kept,
            cuts,
            names,
            output.data,
            options.ifd_column,
        )
    names = [shard.file.relative for shard in corpus.shards]
    output.begin(names, export_names(options.export, len(names)))
    write = functools.partial(
        _write_shards,
        corpus.location,
        selection.kept,
        output.data,
        options.ifd_column,
        passes.skip_bad,
    )
    tasks = [
        [
            (shard, Chunk([(shard, unit) for unit in units]).without(dropped))
            for shard, units in shards
        ]
        for shards in share_shards(selection.units)
    ]
    written = [one for done in parallel_map(write, tasks, passes.stall_s) for one in done]
    if len(written) < len(corpus.shards):
        raise MarkedBadError
    return written


def _write_shards(
    corpus: Location,
    kept: Kept,
    data: Location,
    ifd_column: str,
    skip_bad: bool,
    shards: Sequence[tuple[Shard, Chunk]],
) -> list[WrittenShard]:
    """Writes some filtered shards; a bad one is left out, which a mark then says."""

    def write(place: tuple[Shard, Chunk]) -> WrittenShard | None:
        shard, chunk = place
        try:
            ifd = kept.read(chunk).ifd if chunk.places else np.empty(0)
            return write_shard(corpus, shard, ifd, ~np.isnan(ifd), data, ifd_column)
        except BadShardError as error:
            if not skip_bad:
                raise
            mark_bad(kept.eligible.scores, shard.stem, error.reason)
            return None

    return [shard for shard in map_requests(data, write, shards, _WRITES_AT_ONCE) if shard]


_BYTES_A_TASK, _SHARDS_A_TASK = 64 << 20, 64


def share_shards(units: ShardUnits) -> list[ShardUnits]:
    """Groups shards, in order, into what one task writes: small ones together."""
    tasks: list[list[tuple[Shard, Sequence[Unit]]]] = []
    room = 0
    for shard, shard_units in units:
        if shard.file.size > room or len(tasks[-1]) == _SHARDS_A_TASK:
            tasks.append([])
            room = _BYTES_A_TASK
        tasks[-1].append((shard, shard_units))
        room -= shard.file.size
    return list(tasks)
