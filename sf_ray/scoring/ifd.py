"""The score itself: losses -> perplexities -> IFD, and why a row has none.

Plain arrays; knows no model and no tables.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sf_ray.corpus.status import Status

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scores:
    """Scores of n rows; every array has shape [n], and NaN stands where there is no value.

    Attributes:
        status: `Status` values.
        loss_direct, loss_conditioned: Nats per answer token.
        ppl_direct, ppl_conditioned, ifd: Set only where the status is `ok`.
    """

    status: list[Status]
    loss_direct: Floats
    loss_conditioned: Floats
    ppl_direct: Floats
    ppl_conditioned: Floats
    ifd: Floats


@dataclass(frozen=True)
class TurnLosses:
    """What the engine says of the m turns of n rows; a row without turns has nothing to score.

    Attributes:
        row: [m] the row of each, ascending.
        conditioned, direct: [m] nats per token; NaN where nothing is scored.
        conditioned_tokens, direct_tokens: [m] tokens that they are means over.
    """

    row: NDArray[np.int64]
    conditioned: Floats
    direct: Floats
    conditioned_tokens: NDArray[np.int32]
    direct_tokens: NDArray[np.int32]


def scores_of(status: list[Status], turns: TurnLosses) -> Scores:
    """IFD of each row (Li et al., Cherry_LLM, NAACL 2024, arXiv 2308.12032, equation 4).

        loss_direct      = mean over answer tokens of -log p(a_i | a_<i)
        loss_conditioned = mean over answer tokens of -log p(a_i | Q, a_<i)
        IFD              = ppl(A|Q) / ppl(A) = exp(loss_conditioned - loss_direct)

    In a chat Q is all that stands before a turn, a_<i is of the turn alone, and the means are over
    the answer tokens of all turns that have a score: sum(n_t loss_t) / sum(n_t). A long chat is
    not better for being long.

    Args:
        status: [n] what is known before scoring; rows that are `ok` and turn out to have a value
            that is not finite become `non_finite`.
        turns: Their turns.
    """
    # A turn without one of the two has no score; a row of only such turns keeps what there is.
    both = (turns.conditioned_tokens > 0) & (turns.direct_tokens > 0)
    counts = both | ~np.isin(turns.row, turns.row[both])
    loss_direct = _means(turns.row, turns.direct, turns.direct_tokens * counts, len(status))
    loss_conditioned = _means(
        turns.row, turns.conditioned, turns.conditioned_tokens * counts, len(status)
    )
    is_ok = np.array([s is Status.OK for s in status], dtype=bool)
    with np.errstate(over="ignore", invalid="ignore"):
        values = [
            np.exp(loss_direct),
            np.exp(loss_conditioned),
            np.exp(loss_conditioned - loss_direct),
        ]
    finite = np.logical_and.reduce([np.isfinite(v) for v in values])
    ppl_direct, ppl_conditioned, ifd = (np.where(is_ok & finite, v, np.nan) for v in values)
    return Scores(
        status=[
            Status.NON_FINITE if ok and not good else s
            for s, ok, good in zip(status, is_ok, finite, strict=True)
        ],
        loss_direct=loss_direct,
        loss_conditioned=loss_conditioned,
        ppl_direct=ppl_direct,
        ppl_conditioned=ppl_conditioned,
        ifd=ifd,
    )


def _means(row: NDArray[np.int64], losses: Floats, tokens: NDArray[np.int32], rows: int) -> Floats:
    """[rows] means of losses, weighted by tokens; NaN where a row has none, or one not finite."""
    has = tokens > 0
    row, losses, weights = row[has], losses[has], tokens[has].astype(np.float64)
    sums = np.bincount(row, losses * weights, minlength=rows)
    total = np.bincount(row, weights, minlength=rows)
    means = np.full(rows, np.nan)
    np.divide(sums, total, out=means, where=total > 0)
    return np.where(np.isfinite(means), means, np.nan)
