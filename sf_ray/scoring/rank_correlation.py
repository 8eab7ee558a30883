"""How alike two scores order the same rows: Spearman's rank correlation.

Plain arrays: knows neither what the scores are nor where they lie.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def rank_correlation(a: Floats, b: Floats) -> float:
    """Spearman's rho of [n] pairs: Pearson's correlation of their average ranks.

    Returns:
        From -1 to 1; NaN where one side is constant, or n is below 2.
    """
    middle = (len(a) + 1) / 2
    ranks_a, ranks_b = average_ranks(a) - middle, average_ranks(b) - middle
    spread = np.sqrt(np.dot(ranks_a, ranks_a) * np.dot(ranks_b, ranks_b))
    return float(np.clip(np.dot(ranks_a, ranks_b) / spread, -1, 1)) if spread else float("nan")


def average_ranks(values: Floats) -> Floats:
    """[n] values without NaN -> [n] ranks from 1; equal values share the mean of their ranks."""
    order = np.argsort(values)
    ordered = values[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])[: len(values)])
    ends = np.append(starts[1:], len(values))[: len(starts)]
    ranks = np.empty(len(values))
    ranks[order] = np.repeat((starts + ends + 1) / 2, ends - starts)
    return ranks
