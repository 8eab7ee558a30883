"""A range of ranks: which rows are in it, and how many are in each of its bins.

A row's rank is decided by its IFD (higher is better) and, among equal ones, by its position in the
corpus (earlier is better). Plain arrays: this module does not know what is sought in a range.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Of IFD, as `ScoreRange` has them.
Bits = NDArray[np.uint64]
# Of rows, in the corpus.
Positions = NDArray[np.int64]

# Bins of one count. Between 0.5 and 1.0 a bin of the first count is 2^-9 wide.
BINS = 1 << 18


class RankKeys(NamedTuple):
    """What the ranks of some rows are decided by.

    Attributes:
        bits: [n] bits of their IFD.
        positions: [n]
    """

    bits: Bits
    positions: Positions


class SparseCounts(NamedTuple):
    """Rows in the bins of a range, for the bins that have any.

    Attributes:
        bins: [n] numbers of bins.
        rows: [n] how many rows each has.
    """

    bins: NDArray[np.int64]
    rows: NDArray[np.int64]


@dataclass(frozen=True)
class ScoreRange:
    """A range of ranks: IFD bits in [low_bits, high_bits), positions in [first, end).

    The bits of a float64 that is not negative, read as an integer, are in the float's order. A
    range of several values of IFD is divided into bins by IFD, a range of one value by position.

    Attributes:
        low_bits, high_bits: Bits of the least IFD, and of the IFD behind the last.
        first, end: The least position, and the position behind the last.
        bins: How many bins the range is divided into.
    """

    low_bits: int
    high_bits: int
    first: int
    end: int
    bins: int = BINS

    @classmethod
    def between(cls, min_ifd: float, max_ifd: float, rows: int) -> "ScoreRange":
        """Rows with IFD in [min_ifd, max_ifd) of a corpus of `rows` rows."""
        low, high = (int(np.float64(value).view(np.uint64)) for value in (min_ifd, max_ifd))
        return cls(low, high, 0, rows)

    def select(self, ifd: NDArray[np.float64], positions: Positions) -> RankKeys:
        """Those of [n] rows that are in the range; NaN (no score) never is."""
        bits = np.ascontiguousarray(ifd, np.float64).view(np.uint64)
        inside = (bits >= np.uint64(self.low_bits)) & (bits < np.uint64(self.high_bits))
        inside &= (positions >= self.first) & (positions < self.end)
        return RankKeys(bits[inside], positions[inside])

    def count(self, ifd: NDArray[np.float64], positions: Positions) -> SparseCounts:
        """Counts those of [n] rows that are in the range, by bin."""
        bits, positions = self.select(ifd, positions)
        bins: NDArray[np.int64]
        if self._one_value:
            bins = (positions - self.first) // self._width
        else:
            bins = ((bits - np.uint64(self.low_bits)) // np.uint64(self._width)).astype(np.int64)
        counts = np.bincount(bins)
        occur = np.flatnonzero(counts)
        return SparseCounts(occur, counts[occur])

    def narrow(self, counts: NDArray[np.int64], wanted: int) -> "Narrowed":
        """The bin that holds the last of the `wanted` best rows of the range.

        Args:
            counts: [bins] rows in each bin.
            wanted: Between 1 and the sum of `counts`.
        """
        # Better ranks first: that is high IFD, but low positions.
        ordered = counts if self._one_value else counts[::-1]
        reached = np.cumsum(ordered)
        at = int(np.searchsorted(reached, wanted))
        rows = int(ordered[at])
        wanted -= int(reached[at]) - rows
        if self._one_value:
            first = self.first + at * self._width
            bin_range = replace(self, first=first, end=min(self.end, first + self._width))
        else:
            low = self.low_bits + (self.bins - 1 - at) * self._width
            high = min(self.high_bits, low + self._width)
            bin_range = replace(self, low_bits=low, high_bits=high)
        return Narrowed(bin_range, wanted, rows)

    @property
    def _one_value(self) -> bool:
        return self.high_bits - self.low_bits == 1

    @property
    def _width(self) -> int:
        """Of a bin: in positions, or in bits."""
        span = self.end - self.first if self._one_value else self.high_bits - self.low_bits
        return max(1, -(-span // self.bins))


class Narrowed(NamedTuple):
    """A bin that holds a cut-off.

    Attributes:
        range: The bin, as a range.
        wanted: How many of its rows are wanted.
        rows: How many rows it has.
    """

    range: ScoreRange
    wanted: int
    rows: int
