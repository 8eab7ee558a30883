"""Embeddings -> a representative subset of any size: facility location, part by part.

Rows that are not similar hardly compete, so the rows are divided into parts of similar rows, greedy
runs inside each part, and the gains of all parts are merged. Where rows of different parts have no
similarity at all, the result is that of greedy on all rows; elsewhere `ratio_to_exact` estimates
how close to that it comes.

The steps are functions of their own, so that tasks can run them: sample -> `fit_centres`; rows ->
`nearest`; rows of one cluster -> `split`, `greedy`; gains of all parts -> `merge`. Plain arrays:
does not know where embeddings lie.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from sf_ray.selection.bitmap import Bitmap
from sf_ray.selection.diversity.facility_location import (
    EXACT_ROWS,
    Chosen,
    Embeddings,
    Gains,
    RowIndices,
    greedy,
    objective,
)

# The most rows of a part: 256 MiB of similarities.
PART_ROWS = 8192
# Clusters have on average 1/8 of the rows of a part. Fewer and larger clusters are worse, because a
# cluster that is cut in two, by k-means or by `split`, is covered twice.
_CLUSTERS_TO_A_PART = 8
# The most centres: every row is compared with every centre.
MAX_CENTRES = 2048
# Rows of the sample for each centre.
SAMPLE_ROWS = 128
# How many times its share of the budget a part may choose: rare rows deserve more than their share.
SLACK = 3.0
# Rows of the sample on which parts are compared with exact greedy, and the fewest of a part in it.
RATIO_ROWS, _RATIO_PART_ROWS = 6000, 64
# Rounds of k-means.
_ITERATIONS = 8
# Rows that are compared with the centres at once.
_BLOCK = 8192


@dataclass(frozen=True)
class Diversified:
    """The rows that were chosen to represent all kept rows of a corpus.

    Attributes:
        wanted: Rows asked for.
        rows: The set of chosen rows.
        objective: f of the chosen rows among the kept rows. Where they were chosen by parts, a
            lower bound of f: each row counts with the most similar chosen row of its own part.
        is_exact: Whether greedy chose among all rows at once, not by parts.
        ratio_to_exact: f by parts over f by exact greedy, on a sample; 1 where `is_exact`.
    """

    wanted: int
    rows: Bitmap
    objective: float
    is_exact: bool
    ratio_to_exact: float


def choose(
    embeddings: Embeddings, budget: int, part_rows: int = PART_ROWS, seed: int = 0
) -> Chosen:
    """Chooses rows on one machine: exactly up to `EXACT_ROWS` rows, part by part above.

    Args:
        embeddings: [n, d] of norm 1, or of norm 0 for rows that are similar to none.
        budget: How many rows to choose; all where there are fewer.
        part_rows: The most rows of a part.
        seed: Decides which rows the centres start from.

    Returns:
        Rows in order of their gains, each of which was taken inside its part.
    """
    if len(embeddings) <= EXACT_ROWS:
        return greedy(embeddings, budget)
    return choose_by_parts(embeddings, budget, part_rows, seed)


def choose_by_parts(embeddings: Embeddings, budget: int, part_rows: int, seed: int = 0) -> Chosen:
    """As `choose`, but part by part whatever the number of rows is."""
    parts = divide(embeddings, part_rows, seed)
    total = len(embeddings)
    inside = [greedy(embeddings[rows], share_of(len(rows), total, budget)) for rows in parts]
    kept = merge([chosen.gains for chosen in inside], budget)
    kept_rows, kept_gains = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    for rows, chosen, count in zip(parts, inside, kept, strict=True):
        kept_rows.append(rows[chosen.rows[:count]])
        kept_gains.append(chosen.gains[:count])
    all_rows, all_gains = np.concatenate(kept_rows), np.concatenate(kept_gains)
    order = np.lexsort((all_rows, -all_gains))
    return Chosen(all_rows[order], all_gains[order])


def divide(embeddings: Embeddings, part_rows: int, seed: int = 0) -> list[RowIndices]:
    """Divides rows into parts.

    Args:
        embeddings: [n, d]
        part_rows: The most rows of a part.
        seed: Decides which rows the centres start from.

    Returns:
        Indices of the rows of each part; no part is empty.
    """
    n = len(embeddings)
    wanted = centres_for(n, part_rows)
    sample = embeddings[sample_of(n, wanted * SAMPLE_ROWS, seed)]
    labels = nearest(embeddings, fit_centres(sample, wanted, seed))
    order = np.argsort(labels, kind="stable")
    clusters = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
    return [
        rows[part]
        for rows in clusters
        if len(rows)
        for part in split(embeddings[rows], part_rows, seed)
    ]


def sample_of(rows: int, wanted: int, seed: int) -> RowIndices:
    """Draws `wanted` different rows of `rows`, in order; all where there are fewer."""
    drawn = np.random.default_rng(seed).choice(rows, min(rows, wanted), replace=False)
    return np.sort(drawn).astype(np.int64)


def centres_for(rows: int, part_rows: int) -> int:
    """How many centres to fit to `rows` rows: clusters are small, so that few must be split."""
    return min(MAX_CENTRES, ceil(_CLUSTERS_TO_A_PART * rows / part_rows))


def fit_centres(sample: Embeddings, centres: int, seed: int) -> Embeddings:
    """Spherical k-means (Dhillon and Modha 2001), a few rounds from rows drawn at random.

    Args:
        sample: [s, d]; about `SAMPLE_ROWS` rows for each centre are enough.
        centres: How many centres to fit; there are no more than rows.
        seed: Decides which rows the centres start from.

    Returns:
        [centres, d] of norm 1, or of norm 0 for a centre that started from such a row.
    """
    fitted = sample[sample_of(len(sample), centres, seed)]
    for _ in range(_ITERATIONS):
        labels = nearest(sample, fitted)
        order = np.argsort(labels, kind="stable")
        with_rows, first = np.unique(labels[order], return_index=True)
        if not len(with_rows):
            break
        sums = np.add.reduceat(sample[order], first, axis=0)
        norms = np.linalg.norm(sums, axis=1, keepdims=True)
        # A centre stays where it is if it has no rows, or if its rows cancel out.
        moved = norms[:, 0] > 0
        fitted[with_rows[moved]] = sums[moved] / norms[moved]
    return fitted


def nearest(embeddings: Embeddings, centres: Embeddings) -> NDArray[np.int64]:
    """[n, d] rows, [c, d] centres -> [n] the most similar centre of each row; ties: the first."""
    labels = np.zeros(len(embeddings), np.int64)
    for start in range(0, len(embeddings), _BLOCK):
        rows = slice(start, start + _BLOCK)
        labels[rows] = (embeddings[rows] @ centres.T).argmax(axis=1)
    return labels


def split(embeddings: Embeddings, part_rows: int, seed: int = 0) -> list[RowIndices]:
    """Splits a cluster into parts of at most `part_rows` rows.

    A cluster is cut in two along the line between two centres, halfway between them. At least a
    quarter of the rows goes to each side: outliers, or rows that are all equal, would otherwise
    make many rounds.

    Args:
        embeddings: [m, d] rows of the cluster.
        part_rows: The most rows of a part.
        seed: Decides which rows the centres start from.

    Returns:
        Indices of the rows of each part.
    """
    waiting, parts = [np.arange(len(embeddings))], []
    while waiting:
        rows = waiting.pop()
        m = len(rows)
        if m <= part_rows:
            parts.append(rows)
            continue
        sample = embeddings[rows[sample_of(m, 2 * SAMPLE_ROWS, seed)]]
        one, other = fit_centres(sample, 2, seed)
        along = embeddings[rows] @ (other - one)  # 0 halfway between the centres
        quarter = max(1, m // 4)
        cut = min(max(int((along <= 0).sum()), quarter), m - quarter)
        order = rows[np.argsort(along, kind="stable")]
        waiting += [np.sort(order[cut:]), np.sort(order[:cut])]
    return parts


def share_of(size: int, total: int, budget: int, slack: float = SLACK) -> int:
    """How many rows a part of `size` of all `total` rows may choose: `slack` times its share.

    Never more than the part has.
    """
    return min(size, ceil(slack * budget * size / total))


def merge(gains: Sequence[Gains], budget: int) -> NDArray[np.int64]:
    """How many of its first choices each part keeps, so that the `budget` largest gains are kept.

    Gains never increase within a part. So the largest gains belong to first choices, and taking
    them in order is greedy on all parts, if rows of different parts are not similar.

    Args:
        gains: For each part [k] its gains, in order of choice.
        budget: How many rows to keep; all where there are fewer.

    Returns:
        [parts] how many rows each part keeps. Among equal gains, those of the earlier part are
        kept.
    """
    part = np.repeat(np.arange(len(gains)), [len(part_gains) for part_gains in gains])
    merged = np.concatenate([np.empty(0, np.float32), *gains])
    largest = np.argsort(-merged, kind="stable")[:budget]
    return np.bincount(part[largest], minlength=len(gains))


def ratio_to_exact(
    sample: Embeddings, n: int, budget: int, part_rows: int = PART_ROWS, seed: int = 0
) -> float:
    """Estimates f by parts over f by exact greedy, on a sample.

    The same share of rows is chosen of the sample as of all rows, and the sample has as many parts.
    A sample of very many rows has fewer parts, because each part gets some dozens of rows at least.

    Args:
        sample: [s, d] of the n rows; s is at most `EXACT_ROWS`.
        n: How many rows there are.
        budget: How many of the n rows are chosen.
        part_rows: The most rows of a part of all n rows.
        seed: Decides which rows the centres start from.
    """
    share = len(sample) / max(1, n)
    wanted = max(1, round(budget * share))
    part_rows = max(min(part_rows, _RATIO_PART_ROWS), round(part_rows * share))
    by_parts = choose_by_parts(sample, wanted, part_rows, seed)
    exact = greedy(sample, wanted)
    best = objective(sample, exact.rows)
    return objective(sample, by_parts.rows) / best if best else 1.0
