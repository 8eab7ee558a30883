"""Kept rows in the order of their IFD, written in Ray tasks over files of equally many rows.

The last row of each file is found as a cut-off is, by counting, so that every run writes the same
files. Ray Data's sort would draw the boundaries between files by chance.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import ray

from sf_ray.corpus.units import Place
from sf_ray.output.shard_writer import WrittenShard
from sf_ray.output.sorted_parts import output_columns, read_parts, write_part
from sf_ray.output.writers.shard_form import AskedForm, ShardForm
from sf_ray.runtime.tasks import parallel_map
from sf_ray.selection.chunks import Chunk, ChunkRows, Kept
from sf_ray.selection.cutoff_tasks import count_rows, gather_rows
from sf_ray.selection.cutoffs import Cutoff, GroupRange, Search, find_cutoffs
from sf_ray.selection.score_range import ScoreRange
from sf_ray.selection.selection import Selection
from sf_ray.storage.location import Location

# The most that a file holds: in bytes, as the rows take in the corpus, and in rows, because rows
# that are well compressed are many times larger in the memory of the task that sorts them.
PART_BYTES, PART_ROWS = 128 << 20, 1_000_000
# The most of the corpus that a task reads ...
_TASK_BYTES, _TASK_ROWS = 64 << 20, 1_000_000
# ... unless each part would get less than this from a task: Ray keeps small results in the driver's
# memory.
_TASK_PART_BYTES, _TASK_PART_ROWS = 512 << 10, 4096


@dataclass(frozen=True)
class _ByIfd:
    """Reads the kept rows, ranked by IFD whatever they were chosen by."""

    kept: Kept

    def read(self, chunk: Chunk) -> ChunkRows:
        rows = self.kept.read(chunk)
        return replace(rows, values=rows.ifd)


def count_parts(selection: Selection, part_bytes: int | None = None) -> int:
    """How many files the kept rows make; none where nothing is kept.

    Args:
        selection: The kept rows.
        part_bytes: What a file holds, about. Default: `PART_BYTES`.
    """
    corpus, kept_rows = selection.corpus, selection.rows
    kept_bytes = corpus.bytes * kept_rows // max(1, corpus.rows)
    parts = max(-(-kept_bytes // (part_bytes or PART_BYTES)), -(-kept_rows // PART_ROWS))
    return min(kept_rows, max(1, parts))


def find_cuts(selection: Selection, parts: int) -> list[Cutoff]:
    """The last row of each part but the last; parts have equally many rows.

    Raises:
        MarkedBadError: Shards turned out to be bad.
    """
    if parts <= 1:
        return []
    kept, kept_rows = selection.kept, selection.rows
    eligible, by_ifd = kept.eligible, _ByIfd(kept)
    lowest, highest = eligible.bounds.min_ifd, eligible.bounds.max_ifd
    if eligible.ranks_by_ifd:
        lowest = float(np.nanmin(kept.cutoffs.last_values))
    everything = GroupRange(0, ScoreRange.between(lowest, highest, selection.corpus.rows))
    corpus_pass, chunks = selection.corpus_pass, selection.chunks()
    counts = count_rows(corpus_pass, chunks, by_ifd, [everything])
    return find_cutoffs(
        [Search(everything, kept_rows * part // parts) for part in range(1, parts)],
        np.broadcast_to(counts, (parts - 1, counts.shape[1])),
        functools.partial(count_rows, corpus_pass, chunks, by_ifd),
        functools.partial(gather_rows, corpus_pass, chunks, by_ifd),
    )


def write_in_order(
    selection: Selection,
    cuts: Sequence[Cutoff],
    names: Sequence[str],
    data: Location,
    ifd_column: str,
    asked: AskedForm = AskedForm(),  # noqa: B008 - frozen
) -> list[WrittenShard]:
    """Writes the kept rows of a corpus, the highest IFD first.

    Args:
        selection: The kept rows.
        cuts: The last row of each part but the last.
        names: File names of the parts.
        data: The folder that the files go to.
        ifd_column: Name of the added column.
        asked: What of the files is not to be as in the input.

    Raises:
        MarkedBadError: Shards turned out to be bad.
        SfRayError: A row has a field of that name already, or storage failed.
    """
    if not names:
        return []
    corpus, corpus_pass = selection.corpus, selection.corpus_pass
    schema, form = output_columns(corpus.location, corpus.shards[0], ifd_column, asked)
    split = functools.partial(_split, corpus.location, schema, selection.kept, cuts)
    chunks = _chunks_to_write(selection, len(names))
    # Sorted into the order of the corpus: what is written must not depend on which task ends first.
    results = sorted(
        corpus_pass.over_stored(split, chunks, len(names)), key=lambda result: result.value
    )
    parts = [(name, [result.refs[at] for result in results]) for at, name in enumerate(names)]
    write = functools.partial(_write_part, data, schema, form)
    return list(parallel_map(write, parts, corpus_pass.stall_s))


def _chunks_to_write(selection: Selection, parts: int) -> list[Chunk]:
    """Groups units, in order, into what one task reads whole rows of."""
    rows_a_kept_row = parts * selection.corpus.rows // max(1, selection.rows)
    task_bytes = max(_TASK_BYTES, _TASK_PART_BYTES * rows_a_kept_row)
    task_rows = max(_TASK_ROWS, _TASK_PART_ROWS * rows_a_kept_row)
    chunks: list[list[Place]] = []
    room_bytes = room_rows = 0
    for shard, shard_units in selection.units:
        for unit in shard_units:
            if room_bytes <= 0 or room_rows <= 0:
                chunks.append([])
                room_bytes, room_rows = task_bytes, task_rows
            chunks[-1].append(Place(shard, unit))
            room_bytes -= shard.file.size * unit.rows // shard.rows
            room_rows -= unit.rows
    dropped = selection.dropped
    return selection.with_known([Chunk(places).without(dropped) for places in chunks])


def _split(
    corpus: Location, schema: pa.Schema, kept: Kept, cuts: Sequence[Cutoff], chunk: Chunk
) -> tuple[int, list[pa.Table]]:
    """The position of the chunk, and its kept rows by part."""
    return chunk.start, read_parts(corpus, schema, kept, cuts, chunk)


def _write_part(
    data: Location,
    schema: pa.Schema,
    form: ShardForm,
    part: tuple[str, Sequence[ray.ObjectRef]],
) -> WrittenShard:
    name, refs = part
    return write_part(data, name, schema, ray.get(list(refs)), form)
