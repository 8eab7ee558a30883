"""Whether one arm trains better than another: paired differences of held-out loss.

An arm has several draws: trained models that differ in the rows that were drawn, or in the seed of
the training. Rows and draws are two samples, and a difference is only as sure as both allow. Plain
arrays: this module does not know how models are trained or rows are scored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Verdict = Literal["better", "worse", "cannot tell", "no verdict"]

# What all verdicts of a study together may be wrong in, where no arm differs; and how often a
# difference of the smallest size that is named would have been seen.
ALPHA, POWER = 0.05, 0.8
# How sure it is that the error is no larger than the one that the smallest difference is named by.
_SURE = 0.7
# Samples of the bootstrap. The error of a standard error is then about 1.6 %.
_SAMPLES = 2000


@dataclass(frozen=True)
class Contrast:
    """How the held-out losses of one arm differ from those of another.

    Attributes:
        arm: The arm.
        other: The arm that it is held against.
        difference: Mean of loss(arm) - loss(other) over rows and draws; below 0, the arm is better.
        error: Standard error of the difference; NaN where one arm has a single draw.
        degrees: Degrees of freedom of the error.
        p: Of a difference at least as large where there is none, corrected for all contrasts.
        detectable: The smallest difference that this study would have seen with `POWER`.
        verdict: What may be said.
    """

    arm: str
    other: str
    difference: float
    error: float
    degrees: float
    p: float
    detectable: float
    verdict: Verdict


def contrasts_of(
    losses: Mapping[str, Floats], pairs: Sequence[tuple[str, str]], seed: int = 0
) -> list[Contrast]:
    """Compares arms.

    The standard error comes from a bootstrap that draws rows and, in each arm, draws anew (a
    two-way bootstrap: Owen, The pigeonhole bootstrap, 2007). A sample of d draws has only (d - 1)/d
    of their variance, so what draws add is scaled by d/(d - 1). With few draws the error is itself
    unsure: the difference is held against Student's t, with the degrees of freedom of Satterthwaite
    (1946). P values are corrected as Holm (1979) does.

    Args:
        losses: Arm -> [draws, rows] mean loss of each held-out row's answer, in nats per token or
            per byte; all arms have the same rows.
        pairs: An arm, and the one that it is held against.
        seed: Of the bootstrap.

    Returns:
        In the order of the pairs.
    """
    from scipy.stats import t as student

    means, errors, degrees = [], [], []
    for number, (arm, other) in enumerate(pairs):
        both = [losses[arm], losses[other]]
        means.append(float(both[0].mean() - both[1].mean()))
        error, df = _error_of(both, np.random.default_rng([seed, number]))
        errors.append(error)
        degrees.append(df)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.abs(np.array(means)) / np.array(errors)
    raw = np.where(np.isnan(t), np.nan, 2 * student.sf(t, np.array(degrees)))
    corrected = _holm(raw)
    known = int(np.isfinite(raw).sum())
    found = []
    for (arm, other), mean, error, df, p in zip(
        pairs, means, errors, degrees, corrected, strict=True
    ):
        verdict: Verdict = "no verdict"
        if not np.isnan(p):
            verdict = "cannot tell" if p > ALPHA else "better" if mean < 0 else "worse"
        detectable = error * _errors_seen(df, ALPHA / max(1, known))
        found.append(Contrast(arm, other, mean, error, df, float(p), detectable, verdict))
    return found


def _errors_seen(degrees: float, alpha: float) -> float:
    """How many standard errors a difference must have to be seen with `POWER`; at least so many.

    That is where the noncentral t distribution has `POWER` beyond what counts. Of few draws the
    error itself is known badly, and as often too small as too large. Therefore it is first taken
    to the upper end of what it may be (`_SURE`), by the chi-squared distribution: simulated studies
    then saw such differences in 69 to 94 of 100 (docs/study.md).
    """
    if np.isnan(degrees):
        return np.nan
    from scipy.optimize import brentq
    from scipy.stats import chi2, nct
    from scipy.stats import t as student

    counts = student.ppf(1 - alpha / 2, degrees)
    seen: float = brentq(lambda errors: nct.sf(counts, degrees, errors) - POWER, 0, 1000)
    return seen * float(np.sqrt(degrees / chi2.ppf(1 - _SURE, degrees)))


def _error_of(both: Sequence[Floats], rng: np.random.Generator) -> tuple[float, float]:
    """Standard error of the difference of two arms' means, and its degrees of freedom."""
    if min(len(losses) for losses in both) < 2:
        return np.nan, np.nan
    rows = both[0].shape[1]
    weights = rng.multinomial(rows, np.full(rows, 1 / rows), _SAMPLES) / rows  # [samples, rows]
    # Rows alone: both arms have the same ones.
    difference = both[0].mean(axis=0) - both[1].mean(axis=0)
    of_rows = float((weights @ difference).var(ddof=1))
    of_draws = []
    for losses in both:
        draws = len(losses)
        chosen = rng.multinomial(draws, np.full(draws, 1 / draws), _SAMPLES) / draws
        # [samples] what these draws add to the mean of these rows.
        added = ((chosen - 1 / draws) * (weights @ losses.T)).sum(axis=1)
        of_draws.append(float(added.var(ddof=1)) * draws / (draws - 1))
    total = of_rows + sum(of_draws)
    if total == 0:
        return 0.0, float(rows - 1)
    parts = [(of_rows, rows - 1)]
    parts += [(part, len(losses) - 1) for part, losses in zip(of_draws, both, strict=True)]
    degrees = total**2 / sum(part**2 / df for part, df in parts)
    return float(np.sqrt(total)), float(degrees)


def _holm(p: Floats) -> Floats:
    """[n] p values -> [n] corrected ones; NaN, where nothing was tested, does not count."""
    corrected = np.full(len(p), np.nan)
    order = [at for at in np.argsort(p, kind="stable").tolist() if not np.isnan(p[at])]
    highest = 0.0
    for rank, at in enumerate(order):
        highest = max(highest, min(1.0, float(p[at]) * (len(order) - rank)))
        corrected[at] = highest
    return corrected
