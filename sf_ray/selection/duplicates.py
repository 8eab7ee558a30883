"""Copies of an example: which rows are worse-placed than an equal one. Plain arrays, no files."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sf_ray.selection.cutoffs import Positions


@dataclass(frozen=True)
class Digests:
    """Rows that may be copies of each other.

    Attributes:
        digest: [n, 2] the two halves of the digest of each row's example.
        ifd: [n]
        positions: [n]
    """

    digest: NDArray[np.uint64]
    ifd: NDArray[np.float64]
    positions: Positions

    def take(self, which: NDArray[np.bool_] | NDArray[np.int64]) -> "Digests":
        """Some of the rows."""
        return Digests(self.digest[which], self.ifd[which], self.positions[which])

    def split(self, parts: int) -> "list[Digests]":
        """The rows in so many parts; those with equal digests are in the same part."""
        part = self.digest[:, 1] % np.uint64(parts)
        order = np.argsort(part, kind="stable")
        edges = np.searchsorted(part[order], np.arange(1, parts, dtype=np.uint64))
        return [self.take(rows) for rows in np.split(order, edges)]

    def are_worse(self) -> NDArray[np.bool_]:
        """[n] whether a row has an equal one that is better placed: higher IFD, then earlier."""
        worse = np.zeros(len(self.ifd), dtype=bool)
        # Most rows of most corpora have no copy: half of the digest tells so.
        half = self.digest[:, 0]
        order = np.argsort(half)
        same = half[order[1:]] == half[order[:-1]]
        if not same.any():
            return worse
        candidates = order[np.append(same, False) | np.insert(same, 0, False)]
        rows = self.take(candidates)
        ordered = np.lexsort((rows.positions, -rows.ifd, rows.digest[:, 1], rows.digest[:, 0]))
        digest = rows.digest[ordered]
        worse[candidates[ordered[1:]]] = (digest[1:] == digest[:-1]).all(axis=1)
        return worse


def join(parts: "list[Digests]") -> Digests:
    """The rows of several parts."""
    return Digests(
        np.concatenate([part.digest for part in parts]),
        np.concatenate([part.ifd for part in parts]),
        np.concatenate([part.positions for part in parts]),
    )


@dataclass(frozen=True)
class Bitmap:
    """A set of positions in a range of them, one bit each.

    Attributes:
        first: Position of the first bit; a multiple of 8.
        bits: [bytes]
    """

    first: int
    bits: NDArray[np.uint8]

    @classmethod
    def empty(cls, rows: int) -> "Bitmap":
        """None of `rows` positions."""
        return cls(0, np.zeros(-(-rows // 8), np.uint8))

    def __len__(self) -> int:
        return int(np.bitwise_count(self.bits).sum())

    def add(self, positions: Positions) -> None:
        """Adds positions to the set."""
        at = positions - self.first
        np.bitwise_or.at(self.bits, at >> 3, (1 << (at & 7)).astype(np.uint8))

    def others(self) -> "Bitmap":
        """All positions that the set does not have, and a few behind the last one."""
        return Bitmap(self.first, ~self.bits)

    def between(self, start: int, stop: int) -> "Bitmap":
        """The bits of positions [start, stop), and of a few around them; shares their memory."""
        first = start // 8 * 8
        return Bitmap(first, self.bits[(first - self.first) // 8 : -(-(stop - self.first) // 8)])

    def flags(self, start: int, stop: int) -> NDArray[np.bool_]:
        """[stop - start] whether the set has them."""
        near = self.between(start, stop)
        flags = np.unpackbits(near.bits, bitorder="little")[start - near.first :]
        return flags[: stop - start].astype(bool)
