"""A range of ranks: which rows are in it, and how many are in each of its bins.

A row's rank is decided by its value (higher is better) and, among equal ones, by its position in
the corpus (earlier is better). Plain arrays: this module does not know what is sought in a range,
nor what the values are.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Of values, in their order: see `bits_of`.
Bits = NDArray[np.uint64]
# Of rows, in the corpus.
Positions = NDArray[np.int64]
# How much each row counts: 1, or the number of its tokens.
Weights = NDArray[np.int64]

_SIGN, _ALL = np.uint64(1 << 63), np.uint64((1 << 64) - 1)

# Bins of one count. Between 0.5 and 1.0 a bin of the first count is 2^-9 wide.
BINS = 1 << 18


def bits_of(values: NDArray[np.float64]) -> Bits:
    """[n] values -> [n] unsigned integers in the same order; those of NaN lie outside of all.

    The bits of a float64, read as an integer, are in the float's order where it is positive, and in
    the opposite order where it is negative.
    """
    # A negative zero becomes a positive one: they are the same value.
    bits = (np.asarray(values, np.float64) + 0.0).view(np.uint64)
    return bits ^ np.where(bits >> np.uint64(63), _ALL, _SIGN)


def value_of(bits: np.uint64) -> float:
    """The value that has these bits."""
    return float((bits ^ (_SIGN if bits >> np.uint64(63) else _ALL)).view(np.float64))


class RankKeys(NamedTuple):
    """What the ranks of some rows are decided by.

    Attributes:
        bits: [n] bits of their values.
        positions: [n]
        weights: [n] how much each row counts.
    """

    bits: Bits
    positions: Positions
    weights: Weights


class SparseCounts(NamedTuple):
    """Rows in the bins of a range, for the bins that have any.

    Attributes:
        bins: [n] numbers of bins.
        rows: [n] how many rows each has; or the sum of their weights.
    """

    bins: NDArray[np.int64]
    rows: NDArray[np.int64]


@dataclass(frozen=True)
class ScoreRange:
    """A range of ranks: bits of values in [low_bits, high_bits), positions in [first, end).

    A range of several values is divided into bins by value, a range of one value by position.

    Attributes:
        low_bits, high_bits: Bits of the least value, and of the value behind the last.
        first, end: The least position, and the position behind the last.
        bins: How many bins the range is divided into.
    """

    low_bits: int
    high_bits: int
    first: int
    end: int
    bins: int = BINS

    @classmethod
    def between(cls, least: float, end: float, rows: int) -> "ScoreRange":
        """Rows with a value in [least, end) of a corpus of `rows` rows."""
        low, high = bits_of(np.array([least, end])).tolist()
        return cls(low, high, 0, rows)

    def select(
        self, values: NDArray[np.float64], positions: Positions, weights: Weights | None = None
    ) -> RankKeys:
        """Those of [n] rows that are in the range; NaN (a row that does not count) never is."""
        bits = bits_of(values)
        inside = (bits >= np.uint64(self.low_bits)) & (bits < np.uint64(self.high_bits))
        inside &= (positions >= self.first) & (positions < self.end)
        weights = np.ones(len(bits), np.int64) if weights is None else weights
        return RankKeys(bits[inside], positions[inside], weights[inside])

    def count(
        self, values: NDArray[np.float64], positions: Positions, weights: Weights | None = None
    ) -> SparseCounts:
        """Counts those of [n] rows that are in the range, by bin."""
        bits, positions, counted = self.select(values, positions, weights)
        bins: NDArray[np.int64]
        if self._one_value:
            bins = (positions - self.first) // self._width
        else:
            bins = ((bits - np.uint64(self.low_bits)) // np.uint64(self._width)).astype(np.int64)
        # Sums of integers below 2^53 are exact.
        counts = np.bincount(bins, None if weights is None else counted).astype(np.int64)
        occur = np.flatnonzero(counts)
        return SparseCounts(occur, counts[occur])

    def narrow(self, counts: NDArray[np.int64], wanted: int) -> "Narrowed":
        """The bin that holds the last of the `wanted` best rows of the range.

        Args:
            counts: [bins] rows in each bin.
            wanted: Between 1 and the sum of `counts`.
        """
        # Better ranks first: that is high values, but low positions.
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
