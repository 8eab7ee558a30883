"""Evaluation sets -> the rows of a corpus that overlap with them, found in Ray tasks.

The runs of words of all sets, 8 bytes each, lie once on every node. The driver holds bits, and what
the shown rows share.
"""

import functools
from collections.abc import Iterator, Sequence

import numpy as np
import ray

from sf_ray.corpus.units import Shard
from sf_ray.runtime.log import say
from sf_ray.runtime.tasks import parallel_map, parallel_map_stored
from sf_ray.scoring.score_set import ShardUnits
from sf_ray.selection.bitmap import Bitmap
from sf_ray.selection.chunks import Chunk
from sf_ray.selection.corpus_pass import CorpusPass, chunks_of
from sf_ray.selection.excluded import ExcludedFiles, texts_of
from sf_ray.selection.excluded_tasks import tables_of_shard
from sf_ray.selection.near.overlaps import (
    WORDS,
    ChunkOverlaps,
    FoundRun,
    Overlap,
    Overlaps,
    RunSet,
    SharedRun,
    runs_in,
)
from sf_ray.selection.near.words import Hashes
from sf_ray.selection.texts import CorpusTexts

# Units of one task that reads texts.
_UNITS_A_TASK = 16
# Overlapping rows that are shown.
_SHOWN = 5


def find_overlaps(
    corpus_pass: CorpusPass,
    units: ShardUnits,
    rows: int,
    texts: CorpusTexts,
    files: Sequence[ExcludedFiles],
) -> Overlaps:
    """The rows of a corpus that overlap with evaluation sets, and how many there are is said.

    Args:
        corpus_pass: How to go over the corpus, in tasks.
        units: All units of the corpus.
        rows: All rows of the corpus.
        texts: Reads the texts of the corpus.
        files: The evaluation sets.

    Raises:
        MarkedBadError: Shards of the corpus turned out to be bad.
        SfRayError: A file cannot be read.
    """
    runs = _runs_of(files, corpus_pass.stall_s)
    overlapping, first = Bitmap.empty(rows), dict[int, SharedRun]()
    find = functools.partial(_overlaps_of_chunk, texts, runs)
    for of_chunk in corpus_pass.over(find, chunks_of(units, units_a_task=_UNITS_A_TASK)):
        overlapping.add(of_chunk.positions)
        # The first of the corpus, whichever task ends first.
        first = dict(sorted((first | of_chunk.first).items())[:_SHOWN])
    found = _found(files, np.array([run.hash for run in first.values()], np.uint64), corpus_pass)
    say(f"overlap: {len(overlapping):,} rows share {WORDS} words in a row with the evaluation sets")
    shown = tuple(Overlap(position, run.text, *found[run.hash]) for position, run in first.items())
    return Overlaps(overlapping, shown, tuple(files))


def _shards(files: Sequence[ExcludedFiles]) -> list[tuple[int, ExcludedFiles, Shard]]:
    return [
        (number, each, shard) for number, each in enumerate(files) for shard in each.corpus.shards
    ]


def _runs_of(files: Sequence[ExcludedFiles], stall_s: float) -> ray.ObjectRef:
    """The runs of words of all files, in Ray's object store; says how many there are."""
    sets = list(parallel_map_stored(_runs_of_shard, _shards(files), stall_s, 1))
    refs = [ref for result in sets for ref in result.refs]
    ((runs, (stored,)),) = parallel_map_stored(_union, [refs], stall_s, 1)
    unread = f"; {runs.unread:,} rows there hold no text" if runs.unread else ""
    say(f"overlap: {runs.texts:,} texts of evaluation sets{unread}")
    return stored


def _runs_of_shard(
    numbered: tuple[int, ExcludedFiles, Shard],
) -> tuple[int, list[RunSet]]:
    number, files, shard = numbered
    return number, [RunSet.of(_texts_of_shard(files, shard))]


def _union(refs: Sequence[ray.ObjectRef]) -> tuple[RunSet, list[RunSet]]:
    """Counts of the union alone, and the union."""
    union = RunSet.union(ray.get(list(refs)))
    return RunSet(np.empty(0, np.uint64), union.texts, union.unread), [union]


def _texts_of_shard(files: ExcludedFiles, shard: Shard) -> Iterator[str | None]:
    for table in tables_of_shard(files, shard):
        yield from texts_of(files.format, table)


def _overlaps_of_chunk(texts: CorpusTexts, runs: ray.ObjectRef, chunk: Chunk) -> ChunkOverlaps:
    known: RunSet = ray.get(runs)
    positions, first = [np.empty(0, np.int64)], dict[int, SharedRun]()
    for unit in texts.of_chunk(chunk):
        found = known.overlapping(unit.texts)
        positions.append(unit.positions[found])
        for at in found[: _SHOWN - len(first)].tolist():
            first[int(unit.positions[at])] = known.first_shared(unit.texts[at])
    return ChunkOverlaps(np.concatenate(positions), first)


def _found(
    files: Sequence[ExcludedFiles], wanted: Hashes, corpus_pass: CorpusPass
) -> dict[int, FoundRun]:
    """Hash of a run -> where it occurs first."""
    found: dict[int, FoundRun] = {}
    if not len(wanted):
        return found
    find = functools.partial(_runs_in_shard, wanted)
    for of_shard in parallel_map(find, _shards(files), corpus_pass.stall_s):
        for run, place in of_shard.items():
            found[run] = min(place, found.get(run, place))
    return found


def _runs_in_shard(
    wanted: Hashes, numbered: tuple[int, ExcludedFiles, Shard]
) -> dict[int, FoundRun]:
    number, files, shard = numbered
    rows = runs_in(_texts_of_shard(files, shard), wanted)
    return {run: FoundRun(number, shard.file.relative, row) for run, row in rows.items()}
