"""The score itself: losses -> perplexities -> IFD.

Works on plain arrays. Knows no model and no tables.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scores:
    """Scores of n rows. Every array has shape [n]; NaN where there is no value.

    Attributes:
        loss_direct: Mean loss of the answer alone, in nats per answer token.
        loss_conditioned: Mean loss of the answer after its prompt, in nats per answer token.
        ppl_direct: exp(loss_direct) of rows with a score.
        ppl_conditioned: exp(loss_conditioned) of rows with a score.
        ifd: ppl_conditioned / ppl_direct of rows with a score.
        non_finite: [n] rows that were to have a score, and of which a value is not finite.
    """

    loss_direct: Floats
    loss_conditioned: Floats
    ppl_direct: Floats
    ppl_conditioned: Floats
    ifd: Floats
    non_finite: NDArray[np.bool_]


@dataclass(frozen=True)
class TurnLosses:
    """Losses of the m turns of n rows; a row without turns has nothing to score.

    Attributes:
        row: [m] index of the row that each turn belongs to, ascending.
        conditioned: [m] mean loss after the prompt, in nats per token; NaN where nothing is scored.
        direct: [m] mean loss without the prompt, in nats per token; NaN where nothing is scored.
        conditioned_tokens: [m] tokens that `conditioned` is a mean over.
        direct_tokens: [m] tokens that `direct` is a mean over.
    """

    row: NDArray[np.int64]
    conditioned: Floats
    direct: Floats
    conditioned_tokens: NDArray[np.int32]
    direct_tokens: NDArray[np.int32]


def scores_of(is_ok: NDArray[np.bool_], turns: TurnLosses) -> Scores:
    """IFD of each row (Li et al., Cherry_LLM, NAACL 2024, arXiv 2308.12032, equation 4).

        loss_direct      = mean over answer tokens of -log p(a_i | a_<i)
        loss_conditioned = mean over answer tokens of -log p(a_i | Q, a_<i)
        IFD              = ppl(A|Q) / ppl(A) = exp(loss_conditioned - loss_direct)

    In a chat, Q is everything before a turn, a_<i are earlier tokens of the same turn, and the
    means are over the answer tokens of all turns that have a score: sum(n_t loss_t) / sum(n_t).
    A mean over tokens, not a sum over turns, so that a chat is not better for being long.

    Args:
        is_ok: [n] rows that are to have a score: those whose status is `ok` after encoding.
        turns: The turns of the n rows.
    """
    # A turn has a score where both losses exist. A row without any such turn keeps the losses that
    # there are.
    has_score = (turns.conditioned_tokens > 0) & (turns.direct_tokens > 0)
    counts = has_score | ~np.isin(turns.row, turns.row[has_score])
    rows = len(is_ok)
    loss_direct = _means(turns.row, turns.direct, turns.direct_tokens * counts, rows)
    loss_conditioned = _means(turns.row, turns.conditioned, turns.conditioned_tokens * counts, rows)
    with np.errstate(over="ignore", invalid="ignore"):
        values = [
            np.exp(loss_direct),
            np.exp(loss_conditioned),
            np.exp(loss_conditioned - loss_direct),
        ]
    finite = np.logical_and.reduce([np.isfinite(value) for value in values])
    ppl_direct, ppl_conditioned, ifd = (np.where(is_ok & finite, value, np.nan) for value in values)
    return Scores(
        loss_direct=loss_direct,
        loss_conditioned=loss_conditioned,
        ppl_direct=ppl_direct,
        ppl_conditioned=ppl_conditioned,
        ifd=ifd,
        non_finite=is_ok & ~finite,
    )


def _means(row: NDArray[np.int64], losses: Floats, tokens: NDArray[np.int32], rows: int) -> Floats:
    """[rows] means of losses, weighted by tokens; NaN for no tokens, or for a loss not finite."""
    has = tokens > 0
    row, losses, weights = row[has], losses[has], tokens[has].astype(np.float64)
    sums = np.bincount(row, losses * weights, minlength=rows)
    total = np.bincount(row, weights, minlength=rows)
    means = np.full(rows, np.nan)
    np.divide(sums, total, out=means, where=total > 0)
    return np.where(np.isfinite(means), means, np.nan)
