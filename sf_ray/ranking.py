"""Score pieces -> cut-off, with the counts of `selection` spread over Ray tasks."""

import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sf_ray.ifd import BAD
from sf_ray.locations import Location
from sf_ray.pieces import Place, read_ifd, read_scores
from sf_ray.selection import Bits, Candidates, Cutoff, Positions, find_cutoff
from sf_ray.tasks import parallel_map
from sf_ray.units import Shard, Unit

_UNITS_A_TASK = 256
_EXAMPLES = 3

Chunk = Sequence[Place]


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
    places = [(shard, unit) for shard, shard_units in units for unit in shard_units]
    return [places[at : at + _UNITS_A_TASK] for at in range(0, len(places), _UNITS_A_TASK)]


def _positions(shard: Shard, unit: Unit) -> Positions:
    return shard.position + np.arange(unit.start, unit.stop)


def _count(
    scores: Location, candidates: Candidates, with_status: bool, chunk: Chunk
) -> tuple[Counter[str], list[tuple[str, int, str]], Positions, Positions]:
    statuses: Counter[str] = Counter()
    examples: list[tuple[str, int, str]] = []
    ifd: list[NDArray[np.float64]] = []
    if with_status:
        for (shard, unit), piece in zip(chunk, read_scores(scores, chunk), strict=True):
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
    else:
        ifd = list(read_ifd(scores, chunk))
    positions = np.concatenate([_positions(*place) for place in chunk])
    bins, rows = candidates.count(np.concatenate(ifd), positions)
    return statuses, examples, bins, rows


def _gather(scores: Location, candidates: Candidates, chunk: Chunk) -> tuple[Bits, Positions]:
    found = [
        candidates.select(ifd, _positions(*place))
        for place, ifd in zip(chunk, read_ifd(scores, chunk), strict=True)
    ]
    bits, positions = zip(*found, strict=True)
    return np.concatenate(bits), np.concatenate(positions)
