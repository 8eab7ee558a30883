"""The score itself: losses -> perplexities -> IFD, and why a row has none.

Plain arrays; knows no model and no tables.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Status(StrEnum):
    """Whether a row has an IFD score, or why not."""

    OK = "ok"
    EMPTY_ANSWER = "empty_answer"
    ANSWER_TOO_SHORT = "answer_too_short"
    PROMPT_FILLS_WINDOW = "prompt_fills_window"
    BAD_ROW = "bad_row"
    NON_FINITE = "non_finite"
    ENGINE_ERROR = "engine_error"


# What is wrong with such a row is wrong with the data or the model, whatever the options: too many
# of them fail a run.
BAD = (Status.EMPTY_ANSWER, Status.BAD_ROW, Status.NON_FINITE, Status.ENGINE_ERROR)


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


def scores_of(status: list[Status], loss_direct: Floats, loss_conditioned: Floats) -> Scores:
    """IFD of each row (Li et al., Cherry_LLM, NAACL 2024, arXiv 2308.12032, equation 4).

        ppl(A)   = exp(loss_direct)
        ppl(A|Q) = exp(loss_conditioned)
        IFD      = ppl(A|Q) / ppl(A) = exp(loss_conditioned - loss_direct)

    Args:
        status: What is known before scoring; rows that are `ok` and turn out to have a value
            that is not finite become `non_finite`.
        loss_direct: [n] mean of -log p(a_i | a_<i), nats; NaN where not computed.
        loss_conditioned: [n] mean of -log p(a_i | Q, a_<i), nats; NaN where not computed.
    """
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
        loss_direct=np.where(np.isfinite(loss_direct), loss_direct, np.nan),
        loss_conditioned=np.where(np.isfinite(loss_conditioned), loss_conditioned, np.nan),
        ppl_direct=ppl_direct,
        ppl_conditioned=ppl_conditioned,
        ifd=ifd,
    )
