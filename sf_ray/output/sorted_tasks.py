"""Writing what is kept in the order of its IFD, over files of about one size, in Ray tasks.

The rows between which one file ends and the next begins are found as a cut-off is, by counting, so
that files are the same on every run; Ray Data's sort draws its boundaries by chance.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from sf_ray.corpus.planning import Corpus
from sf_ray.corpus.units import Place
from sf_ray.output.shard_writer import WrittenShard, kept_schema
from sf_ray.output.sorted_parts import read_parts, write_part
from sf_ray.runtime.tasks import parallel_map
from sf_ray.scoring.score_set import ShardUnits
from sf_ray.selection.bitmap import Bitmap
from sf_ray.selection.chunks import Chunk, Kept
from sf_ray.selection.corpus_pass import CorpusPass
from sf_ray.selection.cutoff_tasks import count_rows, gather_rows
from sf_ray.selection.cutoffs import Bounds, Cutoff, ScoreRange, find_cutoffs
from sf_ray.storage.location import Location

# What a file has at most: bytes, as its rows take in the corpus, and rows, since well compressed
# ones are many times larger in the memory of the task that sorts them.
PART_BYTES, PART_ROWS = 128 << 20, 1_000_000
# What a task reads of the corpus at most, unless that comes to less for each part than follows:
# Ray keeps small results in the driver's memory.
_TASK_BYTES, _TASK_ROWS = 64 << 20, 1_000_000
_TASK_PART_BYTES, _TASK_PART_ROWS = 512 << 10, 4096


def count_parts(corpus: Corpus, kept_rows: int) -> int:
    """How many files so many kept rows make; one where nothing is kept."""
    kept_bytes = corpus.bytes * kept_rows // max(1, corpus.rows)
    parts = max(-(-kept_bytes // PART_BYTES), -(-kept_rows // PART_ROWS))
    return max(1, min(kept_rows, parts))


def find_cuts(
    passes: CorpusPass, chunks: Sequence[Chunk], rows: int, kept: Kept, kept_rows: int, parts: int
) -> list[Cutoff]:
    """The last row of each part but the last; parts are of equally many rows."""
    if parts == 1:
        return []
    lowest = min(one.ifd for one in kept.cutoffs.of if one is not None)
    bounds = Bounds(lowest, kept.eligible.bounds.max_ifd)
    everything = (0, ScoreRange.between(bounds.min_ifd, bounds.max_ifd, rows))
    counts = count_rows(passes, chunks, kept, [everything])
    return find_cutoffs(
        [(everything, kept_rows * part // parts) for part in range(1, parts)],
        np.broadcast_to(counts, (parts - 1, counts.shape[1])),
        functools.partial(count_rows, passes, chunks, kept),
        functools.partial(gather_rows, passes, chunks, kept),
    )


def write_in_order(
    passes: CorpusPass,
    corpus: Corpus,
    chunks: Sequence[Chunk],
    kept: Kept,
    cuts: Sequence[Cutoff],
    names: Sequence[str],
    data: Location,
    ifd_column: str,
) -> list[WrittenShard]:
    """Writes the kept rows of a corpus, best first.

    Args:
        passes: How to go over the corpus.
        corpus: The corpus.
        chunks: All of it, from `chunks_to_write`.
        kept: Reads which rows are kept.
        cuts: The last row of each part but the last.
        names: Of the parts.
        data: Where they go.
        ifd_column: Name of the added column.
    """
    schema = kept_schema(corpus.schema, ifd_column)
    split = functools.partial(_split, corpus.location, schema, kept, cuts)
    # In the order of the corpus: what comes out must not depend on what was read first.
    stored = sorted(passes.over_stored(split, chunks, len(names)), key=lambda result: result.value)
    of_parts = [(name, [result.refs[at] for result in stored]) for at, name in enumerate(names)]
    write = functools.partial(_write, data, schema)
    return list(parallel_map(write, of_parts, passes.stall_s))


def chunks_to_write(
    corpus: Corpus, units: ShardUnits, dropped: Bitmap | None, kept_rows: int, parts: int
) -> list[Chunk]:
    """Groups units, in order, into what one task reads whole rows of."""
    of_each_kept = parts * corpus.rows // max(1, kept_rows)
    task_bytes = max(_TASK_BYTES, _TASK_PART_BYTES * of_each_kept)
    task_rows = max(_TASK_ROWS, _TASK_PART_ROWS * of_each_kept)
    chunks: list[list[Place]] = []
    room_bytes = room_rows = 0
    for shard, shard_units in units:
        for unit in shard_units:
            if room_bytes <= 0 or room_rows <= 0:
                chunks.append([])
                room_bytes, room_rows = task_bytes, task_rows
            chunks[-1].append((shard, unit))
            room_bytes -= shard.file.size * unit.rows // shard.rows
            room_rows -= unit.rows
    return [Chunk(places).without(dropped) for places in chunks]


def _split(
    corpus: Location, schema: pa.Schema, kept: Kept, cuts: Sequence[Cutoff], chunk: Chunk
) -> tuple[int, list[pa.Table]]:
    return chunk.start, read_parts(corpus, schema, kept, cuts, chunk)


def _write(data: Location, schema: pa.Schema, part: tuple[str, Sequence[Any]]) -> WrittenShard:
    name, refs = part
    return write_part(data, name, schema, ray.get(list(refs)))
