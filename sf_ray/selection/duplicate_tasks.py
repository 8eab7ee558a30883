"""Duplicates anywhere in a corpus, found in Ray tasks.

Rows go to parts by their digest, so that equal rows meet in one part. A task drops the duplicates
among the rows that it reads before it hands them on: a part then never has more rows of one digest
than there are tasks, however many duplicates the corpus has.
"""

import functools
from collections.abc import Sequence

import ray

from sf_ray.runtime.tasks import parallel_map
from sf_ray.scoring.score_set import ShardUnits
from sf_ray.selection.bitmap import Bitmap
from sf_ray.selection.chunks import Chunk, Eligible
from sf_ray.selection.corpus_pass import CorpusPass, chunks_of
from sf_ray.selection.duplicates import Digests, join
from sf_ray.selection.score_range import Positions

# Rows of a part: 32 bytes each, sorted in one task.
_ROWS_A_PART = 4_000_000
# Units of one task, at least: in all, and for each part. Ray keeps small results in the driver's
# memory, so a task has to read enough rows to make what it sends to each part large.
_UNITS_A_TASK, _UNITS_A_PART = 256, 8


def find_duplicates(
    corpus_pass: CorpusPass, units: ShardUnits, rows: int, eligible: Eligible
) -> Bitmap:
    """The eligible rows to drop: all of several equal rows but the one that is ranked highest.

    The driver holds one bit a row.

    Args:
        corpus_pass: How to go over the corpus.
        units: All units of the corpus.
        rows: All rows of the corpus.
        eligible: Reads which rows may be kept.

    Raises:
        MarkedBadError: Shards turned out to be bad.
        SfRayError: A score piece cannot be read.
    """
    parts = max(1, -(-rows // _ROWS_A_PART))
    duplicates = Bitmap.empty(rows)
    chunks = chunks_of(units, units_a_task=max(_UNITS_A_TASK, _UNITS_A_PART * parts))
    digests_of_tasks: list[tuple[ray.ObjectRef, ...]] = []
    split = functools.partial(_split, eligible, parts)
    for positions, digests_of_parts in corpus_pass.over_stored(split, chunks, parts):
        duplicates.add(positions)
        digests_of_tasks.append(digests_of_parts)
    digests_by_part = list(zip(*digests_of_tasks, strict=True))
    for positions in parallel_map(_duplicates_of_part, digests_by_part, corpus_pass.stall_s):
        duplicates.add(positions)
    return duplicates


def _split(eligible: Eligible, parts: int, chunk: Chunk) -> tuple[Positions, Sequence[Digests]]:
    """The duplicates within a chunk; then the other rows, by part."""
    rows = eligible.digests(chunk)
    is_duplicate = rows.are_duplicates()
    return rows.positions[is_duplicate], rows.take(~is_duplicate).split(parts)


def _duplicates_of_part(digests: Sequence[ray.ObjectRef]) -> Positions:
    rows = join(ray.get(list(digests)))
    return rows.positions[rows.are_duplicates()]
