"""Score pieces -> cut-off, with the counts of `selection` spread over Ray tasks."""

import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sf_ray.ifd import BAD
from sf_ray.planning import Shard, Unit
from sf_ray.selection import Bits, Candidates, Cutoff, Positions, find_cutoff
from sf_ray.storage import Location
from sf_ray.tasks import parallel_map
from sf_ray.writing import read_ifd, read_scores

_UNITS_A_TASK = 256
_EXAMPLES = 3

Chunk = list[tuple[Shard, list[Unit]]]


@dataclass(frozen=True)
class Ranking:
    """What the scores of a corpus come to.

    Attributes:
        status_counts: Rows by status.
        bad: (shard, row, status) of some bad rows.
        wanted: Rows that were asked for.
        eligible: `ok` rows with IFD within the bounds.
        kept: Rows that the cut-off keeps.
        cutoff: The last of them; None where nothing is kept.
    """

    status_counts: dict[str, int]
    bad: tuple[tuple[str, int, str], ...]
    wanted: int
    eligible: int
    kept: int
    cutoff: Cutoff | None


def rank(
    scores: Location,
    units: Sequence[tuple[Shard, Sequence[Unit]]],
    candidates: Candidates,
    wanted: int,
    stall_s: float,
) -> Ranking:
    """Finds the cut-off that keeps the `wanted` best candidates, or all if there are fewer.

    The driver holds one count in bins; most corpora take one pass over the pieces to count and
    one to look at the rows of the last bin.
    """
    chunks = _chunks(units)
    status_counts: Counter[str] = Counter()
    bad: list[tuple[str, int, str]] = []

    def count(candidates: Candidates, with_status: bool = False) -> NDArray[np.int64]:
        counts = np.zeros(candidates.bins, dtype=np.int64)
        task = functools.partial(_count, scores, candidates, with_status)
        for statuses, examples, bins, rows in parallel_map(task, chunks, stall_s):
            status_counts.update(statuses)
            bad[:] = sorted(bad + examples)[:_EXAMPLES]
            counts[bins] += rows
        return counts

    def gather(candidates: Candidates) -> tuple[Bits, Positions]:
        task = functools.partial(_gather, scores, candidates)
        found = list(parallel_map(task, chunks, stall_s))
        bits, positions = zip(*found, strict=True)
        return np.concatenate(bits), np.concatenate(positions)

    counts = count(candidates, with_status=True)
    eligible = int(counts.sum())
    kept = min(wanted, eligible)
    cutoff = find_cutoff(candidates, counts, kept, count, gather) if kept else None
    return Ranking(dict(status_counts), tuple(bad), wanted, eligible, kept, cutoff)


def _chunks(units: Sequence[tuple[Shard, Sequence[Unit]]]) -> list[Chunk]:
    """Groups units, in order, into what one task reads."""
    chunks: list[Chunk] = []
    room = 0
    for shard, shard_units in units:
        left = list(shard_units)
        while left:
            if not room:
                chunks.append([])
                room = _UNITS_A_TASK
            chunks[-1].append((shard, left[:room]))
            taken = len(left[:room])
            left, room = left[taken:], room - taken
    return chunks


def _count(
    scores: Location, candidates: Candidates, with_status: bool, chunk: Chunk
) -> tuple[Counter[str], list[tuple[str, int, str]], Positions, Positions]:
    statuses: Counter[str] = Counter()
    examples: list[tuple[str, int, str]] = []
    ifd, positions = [], []
    for shard, units in chunk:
        positions += [shard.position + np.arange(unit.start, unit.stop) for unit in units]
        if not with_status:
            ifd += read_ifd(scores, shard, units)
            continue
        for unit, piece in zip(units, read_scores(scores, shard, units), strict=True):
            ifd.append(piece.ifd)
            counts = {
                one["values"]: one["counts"] for one in piece.status.value_counts().to_pylist()
            }
            statuses.update(counts)
            if len(examples) < _EXAMPLES and any(status in BAD for status in counts):
                examples += [
                    (shard.file.relative, unit.start + row, status)
                    for row, status in enumerate(piece.status.to_pylist())
                    if status in BAD
                ][:_EXAMPLES]
    bins, rows = candidates.count(np.concatenate(ifd), np.concatenate(positions))
    return statuses, examples, bins, rows


def _gather(scores: Location, candidates: Candidates, chunk: Chunk) -> tuple[Bits, Positions]:
    found = [
        candidates.select(ifd, shard.position + np.arange(unit.start, unit.stop))
        for shard, units in chunk
        for unit, ifd in zip(units, read_ifd(scores, shard, units), strict=True)
    ]
    bits, positions = zip(*found, strict=True)
    return np.concatenate(bits), np.concatenate(positions)
