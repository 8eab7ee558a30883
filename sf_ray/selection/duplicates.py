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
