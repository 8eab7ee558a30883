"""Copies of an example all over a corpus, found in Ray tasks.

Rows go to parts by their digest, so that copies meet in one part. What a task reads is freed of
its own copies first: a part never has more rows of one digest than there are tasks, however many
copies the corpus has.
"""

import functools
from collections.abc import Sequence
from typing import Any

import ray

from sf_ray.runtime.tasks import parallel_map
from sf_ray.scoring.score_set import ShardUnits
from sf_ray.selection.bitmap import Bitmap
from sf_ray.selection.chunks import Chunk, Eligible
from sf_ray.selection.corpus_pass import CorpusPass, chunks_of
from sf_ray.selection.cutoffs import Positions
from sf_ray.selection.duplicates import Digests, join

# Rows of a part: 32 bytes each, sorted in one task.
_ROWS_A_PART = 4_000_000
# Units of one task, and how many more for each part: what goes from a task to a part has to be
# large, since Ray keeps small results in the driver's memory.
_UNITS_A_TASK, _UNITS_A_PART = 256, 8


def find_copies(passes: CorpusPass, units: ShardUnits, rows: int, eligible: Eligible) -> Bitmap:
    """Which eligible rows are worse placed than an equal one: of equal ones the best stays.

    The driver holds one bit a row.

    Args:
        passes: How to go over the corpus.
        units: All of the corpus.
        rows: Its rows.
        eligible: Reads which rows may be kept.
    """
    parts = max(1, -(-rows // _ROWS_A_PART))
    copies = Bitmap.empty(rows)
    chunks = chunks_of(units, units_a_task=max(_UNITS_A_TASK, _UNITS_A_PART * parts))
    stored: list[Sequence[Any]] = []
    split = functools.partial(_split, eligible, parts)
    for worse, refs in passes.over_stored(split, chunks, parts):
        copies.add(worse)
        stored.append(refs)
    of_parts = list(zip(*stored, strict=True))
    for worse in parallel_map(_worse_of, of_parts, passes.stall_s):
        copies.add(worse)
    return copies


def _split(eligible: Eligible, parts: int, chunk: Chunk) -> tuple[Positions, Sequence[Digests]]:
    """Worse copies within a chunk; then the other rows, by part."""
    rows = eligible.digests(chunk)
    worse = rows.are_worse()
    return rows.positions[worse], rows.take(~worse).split(parts)


def _worse_of(parts: Sequence[Any]) -> Positions:
    rows = join(ray.get(list(parts)))
    return rows.positions[rows.are_worse()]
