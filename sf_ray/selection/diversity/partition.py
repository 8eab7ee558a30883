"""Embeddings -> a representative subset of any size: facility location, part by part.

Rows far from each other hardly compete, so they are divided into parts of rows that are alike,
greedy runs inside each part, and the gains of all parts are merged. Where rows of different parts
have no similarity at all, this is greedy on everything; elsewhere `ratio_to_exact` says how near it
comes. The steps stand alone, so that tasks can run them: a sample -> `fit_centres`; rows of a unit
-> `nearest`; rows of one label -> `split`, `greedy`; gains of all parts -> `merge`. Plain arrays.
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
# Clusters have on average 1/8 of that. Few large ones are worse, not better: a cluster that is cut
# in two, by k-means or by `split`, is covered twice.
_CLUSTERS_TO_A_PART = 8
# Centres are compared with every row, and fitted to so many rows each.
MAX_CENTRES = 2048
SAMPLE_ROWS = 128
# How many times its share of the budget a part may choose: rare rows deserve more than theirs.
SLACK = 3.0
# Rows of the sample on which parts are compared with exact greedy, and the fewest of a part in it.
RATIO_ROWS, _RATIO_PART_ROWS = 6000, 64
_ITERATIONS = 8
_BLOCK = 8192


@dataclass(frozen=True)
class Diversified:
    """The rows that were chosen to stand for all kept rows of a corpus.

    Attributes:
        wanted: Rows asked for.
        rows: The set of chosen rows.
        objective: f(chosen) among the kept rows; by parts a lower bound of it, as each row counts
            with the chosen row of its own part that is most like it.
        is_exact: Chosen by greedy on all rows at once.
        ratio_to_exact: f by parts over f by exact greedy, on a sample.
    """

    wanted: int
    rows: Bitmap
    objective: float
    is_exact: bool
    ratio_to_exact: float


def choose(
    embeddings: Embeddings, budget: int, part_rows: int = PART_ROWS, seed: int = 0
) -> Chosen:
    """The whole of it on one machine: exact up to `EXACT_ROWS` rows, part by part above.

    Args:
        embeddings: [n, d] of norm 1, or 0 for rows that are like nothing.
        budget: How many rows; all where there are fewer.
        part_rows: The most rows of a part.
        seed: Of the centres.

    Returns:
        Rows in order of their gains, each of which was taken inside its part.
    """
    if len(embeddings) <= EXACT_ROWS:
        return greedy(embeddings, budget)
    return choose_by_parts(embeddings, budget, part_rows, seed)


def choose_by_parts(embeddings: Embeddings, budget: int, part_rows: int, seed: int = 0) -> Chosen:
    """`choose`, part by part whatever the number of rows."""
    parts = divide(embeddings, part_rows, seed)
    total = len(embeddings)
    inside = [greedy(embeddings[rows], share_of(len(rows), total, budget)) for rows in parts]
    kept = merge([chosen.gains for chosen in inside], budget)
    rows = [rows[chosen.rows[:k]] for rows, chosen, k in zip(parts, inside, kept, strict=True)]
    gains = [chosen.gains[:k] for chosen, k in zip(inside, kept, strict=True)]
    all_rows = np.concatenate([np.empty(0, np.int64), *rows])
    all_gains = np.concatenate([np.empty(0, np.float32), *gains])
    order = np.lexsort((all_rows, -all_gains))
    return Chosen(all_rows[order], all_gains[order])


def divide(embeddings: Embeddings, part_rows: int, seed: int = 0) -> list[RowIndices]:
    """[n, d] -> the rows of each part, none of them empty or larger than `part_rows`."""
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
    """`wanted` different rows, in order; all where there are fewer."""
    drawn = np.random.default_rng(seed).choice(rows, min(rows, wanted), replace=False)
    return np.sort(drawn).astype(np.int64)


def centres_for(rows: int, part_rows: int) -> int:
    """How many centres to fit for so many rows: clusters are small, so that few are split."""
    return min(MAX_CENTRES, ceil(_CLUSTERS_TO_A_PART * rows / part_rows))


def fit_centres(sample: Embeddings, centres: int, seed: int) -> Embeddings:
    """Spherical k-means (Dhillon and Modha 2001), a few rounds from rows drawn at random.

    Args:
        sample: [s, d]; about `SAMPLE_ROWS` rows for each centre do.
        centres: How many; no more than there are rows.
        seed: Of the rows to start from.

    Returns:
        [centres, d] of norm 1, or 0.
    """
    fitted = sample[sample_of(len(sample), centres, seed)]
    for _ in range(_ITERATIONS):
        labels = nearest(sample, fitted)
        order = np.argsort(labels, kind="stable")
        found, first = np.unique(labels[order], return_index=True)
        if not len(found):
            break
        sums = np.add.reduceat(sample[order], first, axis=0)
        norms = np.linalg.norm(sums, axis=1, keepdims=True)
        # A centre without rows, or whose rows cancel out, stays where it is.
        moved = norms[:, 0] > 0
        fitted[found[moved]] = sums[moved] / norms[moved]
    return fitted


def nearest(embeddings: Embeddings, centres: Embeddings) -> NDArray[np.int64]:
    """[n, d] rows, [c, d] centres -> [n] the centre most like each row; the first of equal ones."""
    labels = np.zeros(len(embeddings), np.int64)
    for start in range(0, len(embeddings), _BLOCK):
        rows = slice(start, start + _BLOCK)
        labels[rows] = (embeddings[rows] @ centres.T).argmax(axis=1)
    return labels


def split(embeddings: Embeddings, part_rows: int, seed: int = 0) -> list[RowIndices]:
    """The [m, d] rows of one cluster -> rows of parts that are no larger than `part_rows`.

    Halved along the line between two centres, where these meet; but a quarter at least on each
    side, so that outliers, or rows that are all alike, do not make it long.
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
        along = embeddings[rows] @ (other - one)
        quarter = max(1, m // 4)
        cut = min(max(int((along <= 0).sum()), quarter), m - quarter)
        order = rows[np.argsort(along, kind="stable")]
        waiting += [np.sort(order[cut:]), np.sort(order[:cut])]
    return parts


def share_of(size: int, total: int, budget: int, slack: float = SLACK) -> int:
    """How many rows a part of `size` of all `total` rows may choose: `slack` times its share."""
    return min(size, ceil(slack * budget * size / total))


def merge(gains: Sequence[Gains], budget: int) -> NDArray[np.int64]:
    """How many of its first choices each part keeps, so that the `budget` largest gains are kept.

    Gains never increase within a part. So the largest are first choices, and taking them in order
    is greedy on all parts, if rows of different parts are not alike.

    Args:
        gains: [k] of each part, in order of choice.
        budget: How many rows to keep; all where there are fewer.

    Returns:
        [parts] counts. Among equal gains, those of the earlier part.
    """
    part = np.repeat(np.arange(len(gains)), [len(each) for each in gains])
    merged = np.concatenate([np.empty(0, np.float32), *gains])
    largest = np.argsort(-merged, kind="stable")[:budget]
    return np.bincount(part[largest], minlength=len(gains))


def ratio_to_exact(
    sample: Embeddings, n: int, budget: int, part_rows: int = PART_ROWS, seed: int = 0
) -> float:
    """On a sample, f by parts over f by exact greedy: the same share to choose, and as many parts.

    Of very many rows it has fewer parts than all of them, each with a few dozen rows at least.

    Args:
        sample: [s, d] of n rows; s at most `EXACT_ROWS`.
        n: How many rows there are.
        budget: How many of the n rows are chosen.
        part_rows: The most rows of a part of all n.
        seed: Of the centres.
    """
    share = len(sample) / max(1, n)
    wanted = max(1, round(budget * share))
    part_rows = max(min(part_rows, _RATIO_PART_ROWS), round(part_rows * share))
    by_parts = choose_by_parts(sample, wanted, part_rows, seed)
    exact = greedy(sample, wanted)
    best = objective(sample, exact.rows)
    return objective(sample, by_parts.rows) / best if best else 1.0
