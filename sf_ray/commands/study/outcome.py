"""What came out of a study: losses of arms, and contrasts between them. Plain arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sf_ray.commands.study.contrasts import Contrast, Floats, contrasts_of
from sf_ray.commands.study.record import UNTRAINED

# The arm that the method promises, and what it is held against, in this order.
_TOP = "ifd"
_OTHERS = ("random", "length-matched", "longest", "ifd-low", "length-normalised", "all")


@dataclass(frozen=True)
class Outcome:
    """What came out.

    Attributes:
        means: Arm -> mean held-out loss of each of its models; the untrained student too.
        contrasts: The top arm against each other one.
        unit: What losses are per: "token" or "byte".
        rows: Held-out rows that count.
        left_out: Those that some model has no loss of.
        missing: Runs that have no losses.
    """

    means: Mapping[str, Sequence[float]]
    contrasts: Sequence[Contrast]
    unit: str
    rows: int
    left_out: int
    missing: Sequence[str]


def outcome_of(
    losses: Mapping[str, Floats],
    arm_of: Mapping[str, str],
    unit: str,
    left_out: int,
    missing: Sequence[str],
) -> Outcome:
    """Compares the arms of a study.

    Args:
        losses: Run -> [rows] held-out losses.
        arm_of: Run -> its arm.
        unit, left_out, missing: As in `Outcome`.
    """
    by_arm: dict[str, list[Floats]] = {}
    for run, of_run in losses.items():
        by_arm.setdefault(arm_of.get(run, run), []).append(of_run)
    arms = {arm: np.stack(draws) for arm, draws in by_arm.items()}
    pairs = [(_TOP, other) for other in _OTHERS if other in arms] if _TOP in arms else []
    order = [arm for arm in (_TOP, *_OTHERS, UNTRAINED) if arm in arms]
    return Outcome(
        means={arm: arms[arm].mean(axis=1).tolist() for arm in order},
        contrasts=contrasts_of(arms, pairs),
        unit=unit,
        rows=next(iter(losses.values())).shape[0],
        left_out=left_out,
        missing=missing,
    )
