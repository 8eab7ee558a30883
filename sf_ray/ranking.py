"""Score pieces -> cut-off, with the counts of `selection` spread over Ray tasks."""

import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sf_ray.planning import Shard, Unit
from sf_ray.selection import (
    BINS,
    FEW,
    Bits,
    Candidates,
    Cutoff,
    Positions,
    cutoff_among,
)
from sf_ray.stages import parallel_map
from sf_ray.storage import Location
from sf_ray.writing import read_scores

_UNITS_A_TASK = 64

Chunk = list[tuple[Shard, list[Unit]]]


@dataclass(frozen=True)
class Ranking:
    """What the scores of a corpus come to.

    Attributes:
        status_counts: Rows by status.
        eligible: `ok` rows with IFD within the bounds.
        kept: Rows that the cut-off keeps.
        cutoff: The last of them; None where nothing is kept.
    """

    status_counts: dict[str, int]
    eligible: int
    kept: int
    cutoff: Cutoff | None


def rank(
    scores: Location,
    units: Sequence[tuple[Shard, Sequence[Unit]]],
    candidates: Candidates,
    wanted: int,
) -> Ranking:
    """Finds the cut-off that keeps the `wanted` best candidates, or all if there are fewer.

    The driver holds one count of `BINS` bins; most corpora take one pass over the pieces to
    count and one to look at the rows of the last bin.
    """
    chunks = _chunks(units)
    status_counts: Counter[str] = Counter()
    eligible: int | None = None
    while True:
        counts = np.zeros(BINS, dtype=np.int64)
        count = functools.partial(_count, scores, candidates, eligible is None)
        for statuses, bins, rows in parallel_map(count, chunks):
            status_counts.update(statuses)
            counts[bins] += rows
        if eligible is None:
            eligible = int(counts.sum())
            kept = wanted = min(wanted, eligible)
            if not kept:
                return Ranking(dict(status_counts), eligible, 0, None)
        candidates, wanted, inside = candidates.narrow(counts, wanted)
        if inside <= FEW:
            break
    found = list(parallel_map(functools.partial(_gather, scores, candidates), chunks))
    bits, positions = (np.concatenate(parts) for parts in zip(*found, strict=True))
    cutoff = cutoff_among(bits, positions, wanted)
    return Ranking(dict(status_counts), eligible, kept, cutoff)


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
) -> tuple[Counter[str], Positions, Positions]:
    statuses: Counter[str] = Counter()
    ifd, positions = [], []
    for shard, units in chunk:
        for unit, piece in zip(units, read_scores(scores, shard, units), strict=True):
            if with_status:
                statuses.update(piece.status)
            ifd.append(piece.ifd)
            positions.append(shard.position + np.arange(unit.start, unit.stop))
    bins, rows = candidates.count(np.concatenate(ifd), np.concatenate(positions))
    return statuses, bins, rows


def _gather(scores: Location, candidates: Candidates, chunk: Chunk) -> tuple[Bits, Positions]:
    found = [
        candidates.select(piece.ifd, shard.position + np.arange(unit.start, unit.stop))
        for shard, units in chunk
        for unit, piece in zip(units, read_scores(scores, shard, units), strict=True)
    ]
    bits, positions = zip(*found, strict=True)
    return np.concatenate(bits), np.concatenate(positions)
