"""Scores -> cut-offs: the exact k best of any number of rows, found by counting.

A row's place is decided by its IFD (higher is better) and, among equal ones, by its position in
the corpus (earlier is better). No two rows have the same place, so the k best are the same on
every run. Rows are never sorted or gathered: a range of places that holds a cut-off is counted
in bins and narrowed to one bin, until few enough candidates are left to look at. Any number of
cut-offs, in any number of groups of rows, are sought side by side. Plain arrays: knows neither
what the groups are nor where scores lie.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.uint64]
Positions = NDArray[np.int64]
Codes = NDArray[np.int64]

# Bins of one count. Between 0.5 and 1.0 the first count is 2^-9 wide.
BINS = 1 << 18
# Bins of all ranges that are counted side by side: 64 MiB of counts.
_BINS_IN_ALL = 1 << 23
# Candidates that are looked at one by one instead of being counted again.
FEW = 1 << 18


@dataclass(frozen=True)
class TokenBounds:
    """How many tokens a row may have, both ends included; None where there is no end.

    Attributes:
        column: Of the score table, which has the tokens that a row was scored with.
        low: Least.
        high: Most.
    """

    column: str
    low: int | None
    high: int | None

    def holds(self, tokens: NDArray[np.int64]) -> NDArray[np.bool_]:
        """[n] token counts -> [n] whether they are within."""
        within = np.ones(len(tokens), dtype=bool)
        if self.low is not None:
            within &= tokens >= self.low
        if self.high is not None:
            within &= tokens <= self.high
        return within


@dataclass(frozen=True)
class Bounds:
    """What a row must lie within to be eligible: IFD in [min_ifd, max_ifd), and tokens."""

    min_ifd: float
    max_ifd: float
    tokens: tuple[TokenBounds, ...] = ()

    def holds(self, ifd: NDArray[np.float64]) -> NDArray[np.bool_]:
        """[n] IFD -> [n] whether they are within; NaN (no score) never is."""
        within: NDArray[np.bool_] = (ifd >= self.min_ifd) & (ifd < self.max_ifd)
        return within


@dataclass(frozen=True)
class Cutoff:
    """The last row that is kept: its IFD and its position in the corpus."""

    ifd: float
    position: int


@dataclass(frozen=True)
class Cutoffs:
    """The cut-off of each group; None where a group keeps nothing."""

    of: tuple[Cutoff | None, ...]

    def keeps(
        self, ifd: NDArray[np.float64], positions: Positions, codes: Codes | None = None
    ) -> NDArray[np.bool_]:
        """Whether rows are at or before the cut-off of their group.

        Args:
            ifd: [n]; NaN where a row is not eligible: it is not kept.
            positions: [n]
            codes: [n] number of each row's group; None where there is one group.
        """
        last_ifd = np.array([np.nan if one is None else one.ifd for one in self.of])
        last = np.array([-1 if one is None else one.position for one in self.of])
        at = np.zeros(1, np.int64) if codes is None else codes
        kept: NDArray[np.bool_] = ifd > last_ifd[at]
        kept |= (ifd == last_ifd[at]) & (positions <= last[at])
        return kept


@dataclass(frozen=True)
class ScoreRange:
    """A range of places: IFD bits in [low, high), and positions in [first, end).

    The bits of a float64 that is not negative, read as an integer, are in the float's order.
    """

    low: int
    high: int
    first: int
    end: int
    bins: int = BINS

    @classmethod
    def between(cls, min_ifd: float, max_ifd: float, rows: int) -> "ScoreRange":
        """Rows with IFD in [min_ifd, max_ifd) of a corpus of `rows` rows."""
        low, high = (int(np.float64(value).view(np.uint64)) for value in (min_ifd, max_ifd))
        return cls(low, high, 0, rows)

    def select(self, ifd: NDArray[np.float64], positions: Positions) -> tuple[Bits, Positions]:
        """Those of [n] rows that are in the range; NaN (no score) never is."""
        bits = np.ascontiguousarray(ifd, np.float64).view(np.uint64)
        inside = (bits >= np.uint64(self.low)) & (bits < np.uint64(self.high))
        inside &= (positions >= self.first) & (positions < self.end)
        return bits[inside], positions[inside]

    def count(
        self, ifd: NDArray[np.float64], positions: Positions
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Counts rows in the bins of the range: (bins that occur, rows in each)."""
        bits, positions = self.select(ifd, positions)
        bins: NDArray[np.int64]
        if self._one_value:
            bins = (positions - self.first) // self._width
        else:
            bins = ((bits - np.uint64(self.low)) // np.uint64(self._width)).astype(np.int64)
        counts = np.bincount(bins)
        occur = np.flatnonzero(counts)
        return occur, counts[occur]

    def narrow(self, counts: NDArray[np.int64], wanted: int) -> tuple["ScoreRange", int, int]:
        """The bin that holds the last of the `wanted` best.

        Args:
            counts: [bins] rows in each bin.
            wanted: Between 1 and the sum of `counts`.

        Returns:
            The bin as a range, how many of its rows are wanted, and how many it has.
        """
        # Better places first: high IFD, but low positions.
        ordered = counts if self._one_value else counts[::-1]
        reached = np.cumsum(ordered)
        at = int(np.searchsorted(reached, wanted))
        inside = int(ordered[at])
        wanted -= int(reached[at]) - inside
        if self._one_value:
            first = self.first + at * self._width
            return (
                replace(self, first=first, end=min(self.end, first + self._width)),
                wanted,
                inside,
            )
        low = self.low + (self.bins - 1 - at) * self._width
        return replace(self, low=low, high=min(self.high, low + self._width)), wanted, inside

    @property
    def _one_value(self) -> bool:
        return self.high - self.low == 1

    @property
    def _width(self) -> int:
        span = self.end - self.first if self._one_value else self.high - self.low
        return max(1, -(-span // self.bins))


# Candidates within the rows of a group.
GroupRange = tuple[int, ScoreRange]


def first_ranges(bounds: Bounds, rows: int, groups: int) -> list[GroupRange]:
    """All eligible rows of each group, of a corpus of `rows` rows."""
    candidates = ScoreRange.between(bounds.min_ifd, bounds.max_ifd, rows)
    return [(group, replace(candidates, bins=_bins(groups))) for group in range(groups)]


def find_cutoffs(
    searches: Sequence[tuple[GroupRange, int]],
    counts: NDArray[np.int64],
    count: Callable[[Sequence[GroupRange]], NDArray[np.int64]],
    gather: Callable[[Sequence[GroupRange]], Sequence[tuple[Bits, Positions]]],
    few: int = FEW,
) -> list[Cutoff]:
    """The cut-offs that keep the so many best of ranges, in the order of the searches.

    Args:
        searches: For each a range, and how many of its rows are wanted: between 1 and all.
        counts: [searches, bins] rows in each bin of the searches' ranges.
        count: Ranges -> [ranges, bins] rows in each of their bins, over the whole corpus.
        gather: The rows of small ranges: for each [n] bits of their IFD, [n] positions.
        few: How many rows `gather` may return, or one for each range where those are more.
    """
    found = [
        _narrow(search, its_counts, wanted)
        for (search, wanted), its_counts in zip(searches, counts, strict=True)
    ]
    while True:
        left = dict.fromkeys(one.range for one in found)
        fair = max(1, few // max(1, len(left)))
        large = list(dict.fromkeys(one.range for one in found if one.rows > fair))
        if not large:
            break
        finer = [(group, replace(within, bins=_bins(len(large)))) for group, within in large]
        recounted = dict(zip(large, zip(finer, count(finer), strict=True), strict=True))
        found = [
            _narrow(*recounted[one.range], one.wanted) if one.range in recounted else one
            for one in found
        ]
    rows = dict(zip(left, gather(list(left)), strict=True)) if left else {}
    cutoffs = []
    for one in found:
        bits, positions = rows[one.range]
        last = np.lexsort((positions, ~bits))[one.wanted - 1]
        cutoffs.append(Cutoff(float(bits[last].view(np.float64)), int(positions[last])))
    return cutoffs


def parts_of(
    cuts: Sequence[Cutoff], ifd: NDArray[np.float64], positions: Positions
) -> NDArray[np.int64]:
    """[n] rows -> [n] how many of the cuts, which are in order, lie before each."""
    # Rows and cuts in the order of places; a cut comes after the row that it is at.
    all_ifd = np.concatenate([ifd, [cut.ifd for cut in cuts]])
    all_positions = np.concatenate([positions, np.array([c.position for c in cuts], np.int64)])
    is_cut = np.arange(len(all_ifd)) >= len(ifd)
    order = np.lexsort((is_cut, all_positions, -all_ifd))
    before = np.empty(len(order), np.int64)
    before[order] = np.cumsum(is_cut[order])
    return before[: len(ifd)]


@dataclass(frozen=True)
class _Found:
    """A range that holds a cut-off: how many of its rows are wanted, and how many it has."""

    range: GroupRange
    wanted: int
    rows: int


def _narrow(searched: GroupRange, counts: NDArray[np.int64], wanted: int) -> _Found:
    group, candidates = searched
    narrower, wanted, rows = candidates.narrow(counts, wanted)
    return _Found((group, narrower), wanted, rows)


def _bins(ranges: int) -> int:
    return max(2, min(BINS, _BINS_IN_ALL // max(1, ranges)))
