"""Embeddings -> rows that stand for all of them: exact greedy facility location.

    f(S) = sum over all rows i of max(0, max over j in S of <e_i, e_j>)

Every row counts as much as the chosen row most like it does. Greedy takes the row that adds most to
f, again and again, and reaches at least 1 - 1/e of the best possible (Nemhauser et al. 1978). f is
that of Superfiltering.D (Li et al., arXiv 2402.00530) and CRAIG (Mirzasoleiman et al., ICML 2020).
Plain arrays; this module holds one matrix of all pairs, `diversity` keeps it small.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Embeddings = NDArray[np.float32]
Gains = NDArray[np.float32]
RowIndices = NDArray[np.int64]

# Rows that `greedy` takes: 12,000 need 0.54 GiB for their similarities.
EXACT_ROWS = 12_000
# Rows whose similarities are computed at once, and rows of a transposed copy that stay in cache.
_BLOCK, _STRIPE = 512, 256
# Similarities that `coverage` holds at once: 64 MiB.
_PAIRS = 1 << 24


@dataclass(frozen=True)
class Chosen:
    """What was chosen, in order of choice.

    Attributes:
        rows: [k] which rows, each once.
        gains: [k] what each added to f when it was chosen; never increasing.
    """

    rows: RowIndices
    gains: Gains


def greedy(embeddings: Embeddings, budget: int) -> Chosen:
    """Chooses the row of largest gain until `budget` rows are chosen; of equal ones the earlier.

    The same as computing the gain of every row at every step,

        gain(j) = sum_i max(0, s[i, j] - best[i]),    best[i] = max(0, max_{l in S} s[i, l]),

    but lazy (Minoux 1978): as `best` only grows, a gain from an earlier step is a bound, and only
    rows whose bound is on top are computed again. Rounding does not spoil this: each operation is
    monotone in `best` and the order of the sum is fixed. A gain is a float32 sum over n rows.

    Args:
        embeddings: [n, d] of norm 1, or 0 for rows that are like nothing; n at most `EXACT_ROWS`.
        budget: How many rows; all where there are fewer.

    Raises:
        ValueError: Too many rows, or one that is not finite.
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

    # An argmax of n bounds costs less than one gain does: no heap, and ties fall as they should.
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
    """[n, d] rows, [k, d] chosen ones -> [n] what each row adds to f; in blocks."""
    covered = np.zeros(len(embeddings), np.float32)
    if len(chosen):
        block = max(1, _PAIRS // len(chosen))
        for start in range(0, len(embeddings), block):
            rows = slice(start, start + block)
            np.maximum(covered[rows], (embeddings[rows] @ chosen.T).max(axis=1), out=covered[rows])
    return covered


def objective(embeddings: Embeddings, rows: RowIndices) -> float:
    """What the chosen `rows` [k] reach among all [n, d]: f."""
    return float(coverage(embeddings, embeddings[rows]).sum(dtype=np.float64))


def _similarities(embeddings: Embeddings) -> NDArray[np.float32]:
    """[n, d] -> [n, n] inner products: the upper half computed, the lower one its mirror image."""
    n = len(embeddings)
    similarity = np.empty((n, n), np.float32)
    for start in range(0, n, _BLOCK):
        end = min(n, start + _BLOCK)
        np.matmul(embeddings[start:end], embeddings[start:].T, out=similarity[start:end, start:])
        for below in range(end, n, _STRIPE):
            stripe = slice(below, below + _STRIPE)
            similarity[stripe, start:end] = similarity[start:end, stripe].T
    return similarity
