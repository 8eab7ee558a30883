"""Which rows stand for a corpus: short stretches, spread over all of it. Opens no file."""

import itertools
from collections.abc import Sequence

import numpy as np

from sf_ray.corpus.units import Unit

# Each costs a read: so few that a bucket answers soon, and so many that no part of a corpus is
# passed over.
_MOST = 32


def spread_stretches(
    shard_rows: Sequence[int], wanted: int, seed: int, most: int = _MOST
) -> list[tuple[int, Unit]]:
    """Stretches of rows, in order, that do not touch each other's rows.

    Args:
        shard_rows: Rows of each shard.
        wanted: Rows in all; all rows of the corpus where it has no more.
        seed: Another one finds other rows.
        most: Stretches, before they are cut where a shard ends.

    Returns:
        (index of a shard, rows of it): `wanted` rows in all.
    """
    total = sum(shard_rows)
    wanted = min(wanted, total)
    count = min(most, wanted)
    # Of the rows that are left out, some lie before each stretch: more before each next one.
    shifts = np.arange(count) + np.random.default_rng(seed).random(count)
    left_out = ((total - wanted) * shifts / max(count, 1)).astype(np.int64)
    sizes = np.diff([wanted * i // max(count, 1) for i in range(count + 1)])
    starts = np.cumsum(sizes) - sizes + left_out
    ends = [0, *itertools.accumulate(shard_rows)]
    found: list[tuple[int, Unit]] = []
    for start, size in zip(starts.tolist(), sizes.tolist(), strict=True):
        stop = start + size
        while start < stop:
            shard = int(np.searchsorted(ends, start, side="right")) - 1
            end = min(stop, ends[shard + 1])
            found.append((shard, Unit(start - ends[shard], end - ends[shard])))
            start = end
    return found
