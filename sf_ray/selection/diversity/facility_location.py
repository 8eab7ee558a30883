"""Embeddings -> rows that represent all of them: exact greedy facility location.

    f(S) = sum over all rows i of max(0, max over j in S of <e_i, e_j>)

Every row counts with its similarity to the chosen row that is most similar to it. Greedy chooses
the row that adds most to f, again and again, and reaches at least 1 - 1/e of the best possible f
(Nemhauser et al. 1978). f is that of Superfiltering.D (Li et al., arXiv 2402.00530) and CRAIG
(Mirzasoleiman et al., ICML 2020).

Plain arrays. `greedy` holds the similarities of all pairs of rows, so it takes few rows at a time;
`partition` divides larger sets.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Embeddings = NDArray[np.float32]
Gains = NDArray[np.float32]
RowIndices = NDArray[np.int64]

# The most rows that `greedy` takes: the similarities of 12,000 rows need 0.54 GiB.
EXACT_ROWS = 12_000
# Rows whose similarities are computed at once.
_BLOCK = 512
# Rows that one transposed copy fills: few enough to stay in cache.
_STRIPE = 256
# Similarities that `coverage` holds at once: 64 MiB.
_PAIRS = 1 << 24


@dataclass(frozen=True)
class Chosen:
    """Rows in the order in which they were chosen.

    Attributes:
        rows: [k] indices of the rows, each once.
        gains: [k] what each row added to f when it was chosen; never increasing.
    """

    rows: RowIndices
    gains: Gains


def greedy(embeddings: Embeddings, budget: int) -> Chosen:
    """Chooses the row of the largest gain until `budget` rows are chosen; ties go to the earlier.

    The result is that of computing the gain of every row at every step,

        gain(j) = sum_i max(0, s[i, j] - best[i]),    best[i] = max(0, max_{l in S} s[i, l]),

    but lazily (Minoux 1978): `best` only grows, so a gain of an earlier step is an upper bound of
    the gain now, and only the rows with the largest bound are computed again. Rounding does not
    break this, because each operation is monotone in `best` and the order of the sum is fixed.

    Args:
        embeddings: [n, d] of norm 1, or of norm 0 for rows that are similar to none; n is at most
            `EXACT_ROWS`.
        budget: How many rows to choose; all where there are fewer.

    Returns:
        The chosen rows; a gain is a float32 sum over n rows.

    Raises:
        ValueError: There are too many rows, or a row is not finite.
    """
    n = len(embeddings)
    if n > EXACT_ROWS:
        raise ValueError(
            f"{n} rows are too many to compare all pairs (at most {EXACT_ROWS}): "
            "use diversity.choose, which divides them"
        )
    finite = np.isfinite(embeddings).all(axis=1)
    if not finite.all():
        raise ValueError(
            f"row {finite.argmin()} of the embeddings is not finite: leave such rows out"
        )
    similarity = _similarities(embeddings)
    best = np.zeros(n, np.float32)
    added = np.empty(n, np.float32)

    def gain(row: int) -> np.float32:
        np.maximum(similarity[row], best, out=added)
        np.subtract(added, best, out=added)
        total: np.float32 = added.sum()
        return total

    # No heap: an argmax of n bounds costs less than one gain, and among equal bounds it finds the
    # earliest row.
    bounds = np.fromiter((gain(row) for row in range(n)), np.float32, n)
    computed_at = np.zeros(n, np.int64)
    chosen = Chosen(np.empty(min(budget, n), np.int64), np.empty(min(budget, n), np.float32))
    for step in range(len(chosen.rows)):
        row = int(bounds.argmax())
        while computed_at[row] < step:
            bounds[row], computed_at[row] = gain(row), step
            row = int(bounds.argmax())
        chosen.rows[step], chosen.gains[step] = row, bounds[row]
        np.maximum(similarity[row], best, out=best)
        bounds[row] = -1.0  # below every gain
    return chosen


def coverage(embeddings: Embeddings, chosen: Embeddings) -> NDArray[np.float32]:
    """What each row counts in f.

    Args:
        embeddings: [n, d]
        chosen: [k, d] embeddings of the chosen rows.

    Returns:
        [n] the similarity to the chosen row that is most similar, or 0 where none is above 0.
    """
    covered = np.zeros(len(embeddings), np.float32)
    if len(chosen):
        block = max(1, _PAIRS // len(chosen))
        for start in range(0, len(embeddings), block):
            rows = slice(start, start + block)
            np.maximum(covered[rows], (embeddings[rows] @ chosen.T).max(axis=1), out=covered[rows])
    return covered


def objective(embeddings: Embeddings, rows: RowIndices) -> float:
    """Computes f of the chosen rows.

    Args:
        embeddings: [n, d] of all rows.
        rows: [k] indices of the chosen rows.
    """
    return float(coverage(embeddings, embeddings[rows]).sum(dtype=np.float64))


def _similarities(embeddings: Embeddings) -> NDArray[np.float32]:
    """[n, d] -> [n, n] inner products; the lower half is copied from the upper half."""
    n = len(embeddings)
    similarity = np.empty((n, n), np.float32)
    for start in range(0, n, _BLOCK):
        end = min(n, start + _BLOCK)
        np.matmul(embeddings[start:end], embeddings[start:].T, out=similarity[start:end, start:])
        for below in range(end, n, _STRIPE):
            stripe = slice(below, below + _STRIPE)
            similarity[stripe, start:end] = similarity[start:end, stripe].T
    return similarity
