"""Equal examples: which rows to drop so that one of each stays. Plain arrays, no files."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sf_ray.selection.score_range import Positions


@dataclass(frozen=True)
class Digests:
    """Rows that may be equal to each other: rows with equal digests are.

    Attributes:
        digest: [n, 2] the two halves of the digest of each row's example.
        values: [n] what rows are ranked by.
        positions: [n]
    """

    digest: NDArray[np.uint64]
    values: NDArray[np.float64]
    positions: Positions

    def take(self, which: NDArray[np.bool_] | NDArray[np.int64]) -> "Digests":
        """Some of the rows: by a mask [n], or by their indices."""
        return Digests(self.digest[which], self.values[which], self.positions[which])

    def split(self, parts: int) -> "list[Digests]":
        """The rows in `parts` parts; rows with equal digests are in the same part."""
        part = self.digest[:, 1] % np.uint64(parts)
        order = np.argsort(part, kind="stable")
        edges = np.searchsorted(part[order], np.arange(1, parts, dtype=np.uint64))
        return [self.take(rows) for rows in np.split(order, edges)]

    def are_duplicates(self) -> NDArray[np.bool_]:
        """[n] whether an equal row is ranked higher: by its value, or by its place.

        Of several equal rows, one has False.
        """
        duplicates = np.zeros(len(self.values), dtype=bool)
        # Most rows of most corpora have no equal row, and half of the digest shows that: sorting
        # one column is enough to set them aside.
        half = self.digest[:, 0]
        order = np.argsort(half)
        same = half[order[1:]] == half[order[:-1]]
        if not same.any():
            return duplicates
        suspects = order[np.append(same, False) | np.insert(same, 0, False)]
        rows = self.take(suspects)
        # Equal rows side by side, the highest ranked first.
        ordered = np.lexsort((rows.positions, -rows.values, rows.digest[:, 1], rows.digest[:, 0]))
        digest = rows.digest[ordered]
        duplicates[suspects[ordered[1:]]] = (digest[1:] == digest[:-1]).all(axis=1)
        return duplicates


def join(parts: Sequence[Digests]) -> Digests:
    """The rows of several parts, one after the other."""
    return Digests(
        np.concatenate([part.digest for part in parts]),
        np.concatenate([part.values for part in parts]),
        np.concatenate([part.positions for part in parts]),
    )
