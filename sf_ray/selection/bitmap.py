"""A set of rows, one bit each. Plain arrays."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sf_ray.selection.score_range import Positions


@dataclass(frozen=True)
class Bitmap:
    """A set of positions in a range of positions, one bit each.

    Attributes:
        first: Position of the first bit; a multiple of 8.
        bits: [bytes] of eight positions each, the first one in the lowest bit. `add` changes them.
    """

    first: int
    bits: NDArray[np.uint8]

    @classmethod
    def empty(cls, rows: int) -> "Bitmap":
        """A set that can hold positions [0, rows), and holds none."""
        return cls(0, np.zeros(-(-rows // 8), np.uint8))

    def __len__(self) -> int:
        return int(np.bitwise_count(self.bits).sum())

    def add(self, positions: Positions) -> None:
        """Adds positions to the set."""
        at = positions - self.first
        np.bitwise_or.at(self.bits, at >> 3, (1 << (at & 7)).astype(np.uint8))

    def contains(self, positions: Positions) -> NDArray[np.bool_]:
        """[n] whether positions, all of them within the range, are in the set."""
        at = positions - self.first
        found: NDArray[np.bool_] = ((self.bits[at >> 3] >> (at & 7).astype(np.uint8)) & 1) > 0
        return found

    def __or__(self, other: "Bitmap") -> "Bitmap":
        """The positions that are in either set; both begin and end at the same position."""
        return Bitmap(self.first, self.bits | other.bits)

    def without(self, other: "Bitmap") -> "Bitmap":
        """The positions that are not in the other set; both begin and end at the same position."""
        return Bitmap(self.first, self.bits & ~other.bits)

    def others(self) -> "Bitmap":
        """The positions that are not in the set, and up to seven behind the last one."""
        return Bitmap(self.first, ~self.bits)

    def between(self, start: int, stop: int) -> "Bitmap":
        """The bits of positions [start, stop), and of up to seven on either side.

        Shares the memory of this set.
        """
        first = start // 8 * 8
        return Bitmap(first, self.bits[(first - self.first) // 8 : -(-(stop - self.first) // 8)])

    def flags(self, start: int, stop: int) -> NDArray[np.bool_]:
        """[stop - start] whether each position is in the set."""
        near = self.between(start, stop)
        flags = np.unpackbits(near.bits, bitorder="little")[start - near.first :]
        return flags[: stop - start].astype(bool)
