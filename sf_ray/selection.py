"""Scores -> cut-off: the exact k best of any number of rows, found by counting.

A row's place is decided by its IFD (higher is better) and, among equal ones, by its position in
the corpus (earlier is better). No two rows have the same place, so the k best are the same on
every run. Rows are never sorted or gathered: a range of places that holds the cut-off is counted
in bins and narrowed to one bin, until few enough candidates are left to look at. Plain arrays.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.uint64]
Positions = NDArray[np.int64]

# Bins of one count. Between 0.5 and 1.0 the first count is 2^-9 wide.
BINS = 1 << 18
# Candidates that are looked at one by one instead of being counted again.
FEW = 1 << 18


@dataclass(frozen=True)
class Cutoff:
    """The last row that is kept: its IFD and its position in the corpus; and the IFD limit."""

    ifd: float
    position: int
    max_ifd: float

    def keeps(self, ifd: NDArray[np.float64], positions: Positions) -> NDArray[np.bool_]:
        """[n] rows -> [n] whether they are below the limit and at or before the cut-off.

        NaN (no score) is not kept.
        """
        at_or_before = (ifd > self.ifd) | ((ifd == self.ifd) & (positions <= self.position))
        kept: NDArray[np.bool_] = at_or_before & (ifd < self.max_ifd)
        return kept


@dataclass(frozen=True)
class Candidates:
    """A range of places: IFD bits in [low, high), and positions in [first, end).

    The bits of a float64 that is not negative, read as an integer, are in the float's order.
    """

    low: int
    high: int
    first: int
    end: int
    bins: int = BINS

    @classmethod
    def between(cls, min_ifd: float, max_ifd: float, rows: int) -> "Candidates":
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

    def narrow(self, counts: NDArray[np.int64], wanted: int) -> tuple["Candidates", int, int]:
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


def find_cutoff(
    candidates: Candidates,
    counts: NDArray[np.int64],
    wanted: int,
    count: Callable[[Candidates], NDArray[np.int64]],
    gather: Callable[[Candidates], tuple[Bits, Positions]],
    few: int = FEW,
) -> Cutoff:
    """The cut-off that keeps the `wanted` best candidates.

    Args:
        candidates: All of them.
        counts: [bins] `count(candidates)`.
        wanted: Between 1 and the number of candidates.
        count: Counts the rows of a range in its bins, over the whole corpus.
        gather: The rows of a small range: [n] bits of their IFD, [n] positions.
        few: How many rows `gather` may return.
    """
    max_ifd = float(np.uint64(candidates.high).view(np.float64))
    candidates, wanted, inside = candidates.narrow(counts, wanted)
    while inside > few:
        candidates, wanted, inside = candidates.narrow(count(candidates), wanted)
    bits, positions = gather(candidates)
    last = np.lexsort((positions, ~bits))[wanted - 1]
    return Cutoff(float(bits[last].view(np.float64)), int(positions[last]), max_ifd)


def rows_to_keep(rows: int, keep_fraction: float | None, keep_count: int | None) -> int:
    """k: a count, or the fraction of all input rows, rounded down.

    The fraction counts as it is written: 0.29 of 100 rows is 29, although the nearest binary
    number is a little less.
    """
    if keep_count is not None:
        return keep_count
    return int(Decimal(str(keep_fraction)) * rows)
