"""S-IFD: IFD over the tokens that the prompt changes most, and the threshold that says which.

The threshold is a quantile of the tokens of a whole corpus. It is found by counting tokens in bins
and narrowing the range that holds it, as cut-offs are; so nobody ever holds or sorts all tokens.
Plain arrays: this module does not know where the tokens lie, nor which rows are kept.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sf_ray.config.quotas import rows_to_keep
from sf_ray.selection.score_range import BINS, ScoreRange, bits_of, value_of

# loss_direct - loss_conditioned of tokens, in nats.
Nats = NDArray[np.float32]

# Tokens that are looked at one by one instead of being counted again: 1 MiB of float32.
_FEW = 1 << 18


@dataclass(frozen=True)
class SelectedTokens:
    """The tokens of a corpus that count.

    Attributes:
        share: The share of all tokens that was asked for.
        tokens: All tokens.
        threshold_nats: Those count whose losses differ by at least this.
    """

    share: float
    tokens: int
    threshold_nats: float


def selective_ifd(
    counts: NDArray[np.int64], nats: Nats, threshold_nats: float
) -> NDArray[np.float64]:
    """S-IFD of each row, from the paper's equation (T-SHIRT, Fu et al. 2025, arXiv 2506.01317).

        D_t   = loss_direct_t - loss_conditioned_t             of each token that both passes score
        S-IFD = exp( mean over tokens with |D_t| >= threshold of -D_t )

    With a threshold of 0 it is IFD over the paired tokens. The paper's S-IFD differs in two
    details: its code takes a quantile that may lie between two tokens, and the tokens above it;
    and a row without any such token has an S-IFD of 1 there. Its selection then goes on to look at
    how stable S-IFD is when noise is added to the embeddings, which this one does not.

    Args:
        counts: [n] tokens of each row.
        nats: [tokens of all rows, row after row] D_t.
        threshold_nats: From `find_threshold`.

    Returns:
        [n] NaN for a row of which no token counts.
    """
    row = np.repeat(np.arange(len(counts)), counts)
    differences = nats.astype(np.float64)
    selected = np.abs(differences) >= threshold_nats
    row = row[selected]
    sums = np.bincount(row, differences[selected], minlength=len(counts))
    tokens = np.bincount(row, minlength=len(counts))
    values: NDArray[np.float64] = np.full(len(counts), np.nan)
    np.divide(-sums, tokens, out=values, where=tokens > 0)
    return np.exp(values, out=values)


def count_tokens(token_range: ScoreRange, nats: Nats) -> NDArray[np.int64]:
    """[BINS] how many tokens differ by an amount in each bin of a range."""
    # All at one position: which of equal tokens is the last one does not matter.
    bins, tokens = token_range.count(_amounts(nats), np.zeros(len(nats), np.int64))
    counts = np.zeros(BINS, np.int64)
    counts[bins] = tokens
    return counts


def tokens_in(token_range: ScoreRange, nats: Nats) -> Nats:
    """By how much those tokens differ that do so by an amount in a range."""
    bits = bits_of(_amounts(nats))
    low, high = np.uint64(token_range.low_bits), np.uint64(token_range.high_bits)
    return np.abs(nats[(bits >= low) & (bits < high)])


def find_threshold(
    share: float,
    count: Callable[[ScoreRange], NDArray[np.int64]],
    gather: Callable[[ScoreRange], Nats],
    few: int = _FEW,
) -> SelectedTokens | None:
    """By how much the losses of a token must differ for it to count.

    Defined by np.sort(np.abs(nats))[::-1][k - 1], where k is `share` of all tokens, rounded down,
    and at least 1. Of tokens that differ by exactly the threshold all count, so a few more than k
    may.

    Args:
        share: The share of all tokens that is to count.
        count: `count_tokens` over the whole corpus.
        gather: `tokens_in` over the whole corpus.
        few: The most tokens that `gather` is asked for.

    Returns:
        None where there is no token.
    """
    token_range = ScoreRange.between(0.0, np.inf, 1)
    counts = count(token_range)
    tokens = int(counts.sum())
    if not tokens:
        return None
    wanted = max(1, rows_to_keep(tokens, float(share)))
    while True:
        token_range, wanted, left = token_range.narrow(counts, wanted)
        if token_range.high_bits - token_range.low_bits == 1:
            return SelectedTokens(share, tokens, value_of(np.uint64(token_range.low_bits)))
        if left <= few:
            largest_first = np.sort(gather(token_range))[::-1]
            return SelectedTokens(share, tokens, float(largest_first[wanted - 1]))
        counts = count(token_range)


def _amounts(nats: Nats) -> NDArray[np.float64]:
    return np.abs(nats).astype(np.float64)
