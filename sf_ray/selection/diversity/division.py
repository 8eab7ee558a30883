"""Which bin a row goes to: clusters of similar rows, packed into bins that one task can hold.

A bin holds several small clusters of rows, or a share of a large one. Plain arrays: does not know
what is done with the rows of a bin.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sf_ray.selection.diversity.facility_location import Embeddings
from sf_ray.selection.diversity.partition import fit_centres, nearest
from sf_ray.selection.score_range import Positions

Labels = NDArray[np.int64]

_SEED = 0


@dataclass(frozen=True)
class Division:
    """Which bin a row goes to.

    Attributes:
        centres: [c, d] centres of the clusters.
        first: [c] the first bin of each cluster.
        count: [c] how many bins each cluster has: a cluster that is larger than a bin is dealt out
            over several.
    """

    centres: Embeddings
    first: Labels
    count: Labels

    @property
    def bins(self) -> int:
        """How many bins there are."""
        return int((self.first + self.count).max())

    def bins_of(self, labels: Labels, positions: Positions) -> Labels:
        """[n] the bins of rows, by their clusters and positions."""
        return self.first[labels] + positions % self.count[labels]


def fit_division(
    sample: Embeddings,
    rows: int,
    centres: int,
    bin_rows: int,
    labels_of: Callable[[Embeddings, Embeddings], Labels] = nearest,
) -> Division:
    """Fits centres to a sample, and gives each cluster its bins by the rows to expect in it.

    Args:
        sample: [s, d] of the rows.
        rows: How many rows there are.
        centres: How many centres to fit, where the sample has as many rows.
        bin_rows: Rows of a bin, about.
        labels_of: Rows and centres -> the clusters that the rows go to; a row may go to several.
    """
    fitted = fit_centres(sample, min(centres, len(sample)), _SEED)
    sampled = np.bincount(labels_of(sample, fitted), minlength=len(fitted))
    expected = sampled * rows / len(sample)
    count = np.maximum(1, np.ceil(expected / bin_rows).astype(np.int64))
    first, bins, room = np.zeros_like(count), 0, 0.0
    for label in range(len(count)):
        if not bins or count[label] > 1 or room < expected[label]:
            # Behind a cluster of several bins no room is left, as `expected` is above `bin_rows`:
            # rows of other clusters never join it.
            first[label], room = bins, bin_rows - expected[label]
            bins += count[label]
        else:
            first[label], room = bins - 1, room - expected[label]
    return Division(fitted, first, count)


def is_drawn(positions: Positions, share: float) -> NDArray[np.bool_]:
    """[n] whether rows are in a sample of this share of all rows.

    A hash of the position decides, and nothing else, so that the same rows are drawn however the
    corpus is cut into tasks. A smaller sample is a part of a larger one.
    """
    bits = (positions.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
    bits ^= bits >> np.uint64(32)
    drawn: NDArray[np.bool_] = (bits >> np.uint64(11)) * 2.0**-53 < share  # [0, 1)
    return drawn
