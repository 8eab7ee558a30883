"""Lengths of answers: groups of rows whose answers are about equally long.

Plain arrays: this module does not know where scores lie, nor how rows are ranked.
"""

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]

# The answer tokens that each length begins with: ten lengths of one token each, and then each about
# a tenth longer than the last, up to 2^20 tokens. Fixed, so that a length is the same in every
# corpus.
LEAST_TOKENS: Counts = np.unique(np.floor(np.geomspace(1, 1 << 20, 146)).astype(np.int64))
# How many lengths there are.
LENGTHS = len(LEAST_TOKENS)


def length_of(answer_tokens: Counts) -> Counts:
    """[n] scored answer tokens -> [n] lengths, from 0 to `LENGTHS` - 1."""
    return np.maximum(np.searchsorted(LEAST_TOKENS, answer_tokens, side="right") - 1, 0)


def share_out(wanted: int, rows: Counts) -> Counts:
    """Shares a number of rows out over lengths, in proportion to the rows that each has.

    Every length gets its exact share rounded down, and those with the largest remainders one row
    more; of equal remainders the shorter length.

    Args:
        wanted: At most the sum of `rows`; where it is more, all rows are shared out.
        rows: [lengths]

    Returns:
        [lengths] with the sum `wanted`, none above `rows`.
    """
    total = int(rows.sum())
    wanted = min(wanted, total)
    if not total:
        return np.zeros(len(rows), np.int64)
    # Integers of Python, because the products of large corpora exceed 64 bits.
    shares = [divmod(wanted * count, total) for count in rows.tolist()]
    shared = np.array([whole for whole, _ in shares], np.int64)
    remainders = np.array([-(remainder / total) for _, remainder in shares])
    left = wanted - int(shared.sum())
    shared[np.argsort(remainders, kind="stable")[:left]] += 1
    return shared
