"""What scoring a corpus will take, from what some stretches of its rows are like. Plain numbers.

A stretch is a cluster: its rows resemble each other more than those of other stretches, so that
how sure an estimate is follows from how stretches differ, not from how many rows were seen. Knows
neither files nor Ray, and no model but by what it costs.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import hypot, inf, isfinite, sqrt
from typing import Any

import numpy as np

from sf_ray.engine.flops import ModelCost, Work

# Student's t, 97.5 %, for 1, 2, ... degrees of freedom.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


@dataclass(frozen=True)
class Estimate:
    """A number, and how far off it may be.

    Attributes:
        value: The estimate.
        error: Half the width of its 95 % interval; infinite where nothing tells.
    """

    value: float
    error: float = 0.0

    @property
    def low(self) -> float:
        """Lower end of the interval; nothing estimated here can be negative."""
        return max(0.0, self.value - self.error)

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return self.value + self.error

    def __add__(self, known: float) -> "Estimate":
        return Estimate(self.value + known, self.error)

    def __mul__(self, known: float) -> "Estimate":
        return Estimate(self.value * known, self.error * known)

    def times(self, other: "Estimate") -> "Estimate":
        """The product with an independent estimate: relative errors add as squares."""
        value = self.value * other.value
        return Estimate(value, value * hypot(self._relative, other._relative))

    def over(self, other: "Estimate") -> "Estimate":
        """The quotient by an independent estimate."""
        value = self.value / other.value
        return Estimate(value, value * hypot(self._relative, other._relative))

    @property
    def _relative(self) -> float:
        return self.error / self.value if self.value else 0.0

    def as_json(self) -> dict[str, float | None]:
        """Value and interval; null where nothing tells how far off the value may be."""
        if not isfinite(self.error):
            return {"estimate": self.value, "low": None, "high": None}
        return {"estimate": self.value, "low": self.low, "high": self.high}


def ratio(values: Sequence[float], sizes: Sequence[float], seen: float = 0.0) -> Estimate:
    """The ratio of two sums over a population of clusters, of which some were drawn.

        r = sum(y) / sum(x)      var(r) = (1 - f) / (n mean(x)^2) * sum((y - r x)^2) / (n - 1)

    (Cochran, Sampling Techniques, chapter 6). Stretches that are spread evenly differ less from
    the whole than such drawn anywhere, as the formula takes them to be: it errs on the safe side.

    Args:
        values: [n] y of each cluster that was drawn.
        sizes: [n] x of each; their sum is not 0.
        seen: f, the share of the population that was drawn; 1 makes the ratio exact.
    """
    y, x = np.asarray(values, float), np.asarray(sizes, float)
    n, r = len(y), float(y.sum() / x.sum())
    if seen >= 1:
        return Estimate(r)
    if n < 2:
        return Estimate(r, inf)
    variance = (1 - seen) / (n * x.mean() ** 2) * ((y - r * x) ** 2).sum() / (n - 1)
    return Estimate(r, t_quantile(n - 1) * sqrt(variance))


def t_quantile(df: int) -> float:
    """The 97.5 % point of Student's t, within 0.002."""
    return _T[df - 1] if df <= len(_T) else 1.96 + 2.42 / df + 2.6 / df**2


@dataclass(frozen=True)
class SegmentCounts:
    """What one stretch of rows comes to, as token ids.

    Attributes:
        rows: How many.
        statuses: Rows by status, as far as encoding tells.
        conditioned, direct: Work of the two passes, by the plain method.
        cpu_s: CPU time that reading and encoding took.
    """

    rows: int
    statuses: Mapping[str, int]
    conditioned: Work
    direct: Work
    cpu_s: float

    @property
    def both(self) -> Work:
        """Work of both passes."""
        return self.conditioned + self.direct


@dataclass(frozen=True)
class Drawn:
    """Stretches that stand for the rows that are to be scored.

    Attributes:
        stretches: Those that were drawn.
        of_rows: All rows to be scored.
    """

    stretches: Sequence[SegmentCounts]
    of_rows: int

    @property
    def rows(self) -> int:
        """Rows that were drawn."""
        return sum(one.rows for one in self.stretches)

    @property
    def statuses(self) -> dict[str, int]:
        """Rows by status, of those that were drawn."""
        counts = sum((Counter(one.statuses) for one in self.stretches), Counter[str]())
        return dict(sorted(counts.items(), key=lambda one: (-one[1], one[0])))

    def total(self, of: Callable[[SegmentCounts], float]) -> Estimate:
        """The sum over all rows of what a stretch has so much of."""
        values = [of(one) for one in self.stretches]
        sizes = [one.rows for one in self.stretches]
        return ratio(values, sizes, self.rows / self.of_rows) * self.of_rows


@dataclass(frozen=True)
class Timed:
    """Rows that were scored to see how fast an actor is.

    Attributes:
        rows, seconds: How many, and how long they took.
        plain: Their work by the plain method.
        computed: What the engine did of it.
    """

    rows: int
    seconds: float
    plain: Work
    computed: Work


@dataclass(frozen=True)
class Measured:
    """How fast an actor is, as measured.

    Attributes:
        start_s: From asking for the actor until the model is loaded.
        timed: Parts of units that were scored.
        whole: (plain, computed) work of whole units, which share more than parts of them do.
        of_units: Units that the whole ones were drawn from.
    """

    start_s: float
    timed: Sequence[Timed]
    whole: Sequence[tuple[Work, Work]]
    of_units: int

    def seconds(self, cost: ModelCost, plain_flops: Estimate) -> Estimate:
        """Seconds that one actor scores for.

        FLOPs by the plain method, times the share of them that whole units need, over the rate
        at which those that were needed got done.
        """
        plain = [cost.flops(work) for work, _ in self.whole]
        needed = [cost.flops(work) for _, work in self.whole]
        share = ratio(needed, plain, len(self.whole) / self.of_units)
        done = [cost.flops(one.computed) for one in self.timed]
        return plain_flops.times(share).over(ratio(done, [one.seconds for one in self.timed]))

    @property
    def saved_in_units(self) -> float:
        """Share of the tokens that whole units save."""
        return _saved(self.whole)

    @property
    def saved_in_parts(self) -> float:
        """Share of the tokens that the parts saved that were scored."""
        return _saved([(one.plain, one.computed) for one in self.timed])


def _saved(works: Sequence[tuple[Work, Work]]) -> float:
    plain = sum(work.tokens for work, _ in works)
    return 1 - sum(work.tokens for _, work in works) / plain if plain else 0.0


@dataclass(frozen=True)
class PlannedActors:
    """The actors that a run would have.

    Attributes:
        device: cpu or cuda.
        actors: How many.
        machines: What is paid for: GPUs, or nodes where there are none.
        units: How many they share.
    """

    device: str
    actors: int
    machines: float
    units: int

    @property
    def machine(self) -> str:
        """What is paid for, by name."""
        return "GPU" if self.device == "cuda" else "node"

    def seconds(self, of_one_actor: Estimate) -> Estimate:
        """Until the last actor is done, where units are alike."""
        return of_one_actor * (-(-self.units // self.actors) / self.units)


@dataclass(frozen=True)
class Price:
    """What scoring will take.

    Attributes:
        tokens, conditioned, direct: That are to be scored: in all, and in each pass.
        flops: By the plain method.
        tokens_per_s: Of one actor.
        start_s: Until an actor has loaded its model; None where that was not measured.
        time_s: From the start of the actors to the last score.
        machine_hours: GPU-hours or node-hours.
        cost: Of those; None where nobody said what one costs.
        encode_cpu_s: CPU time of reading and encoding, beside the actors.
    """

    tokens: Estimate
    conditioned: Estimate
    direct: Estimate
    flops: Estimate
    tokens_per_s: Estimate
    start_s: float | None
    time_s: Estimate
    machine_hours: Estimate
    cost: Estimate | None
    encode_cpu_s: Estimate

    def as_json(self) -> dict[str, Any]:
        """As numbers with intervals, by name."""
        return {
            name: value.as_json() if isinstance(value, Estimate) else value
            for name, value in vars(self).items()
        }


def price(
    drawn: Drawn,
    cost: ModelCost,
    speed: Measured | float,
    pool: PlannedActors,
    price_per_hour: float | None,
) -> Price:
    """Puts together what was counted and measured.

    Args:
        drawn: Of the rows to be scored; it has a token to score.
        cost: Of the model.
        speed: As measured, or tokens/s of an actor.
        pool: The actors.
        price_per_hour: Of a GPU, or of a node where there are none.
    """
    tokens = drawn.total(lambda one: one.both.tokens)
    flops = drawn.total(lambda one: cost.flops(one.both))
    if isinstance(speed, Measured):
        of_one_actor, start_s = speed.seconds(cost, flops), speed.start_s
        # Both follow the length of rows: what is left is how sure the rate is.
        tokens_per_s = Estimate(tokens.value).over(speed.seconds(cost, Estimate(flops.value)))
    else:
        of_one_actor, start_s, tokens_per_s = tokens * (1 / speed), None, Estimate(speed)
    time_s = pool.seconds(of_one_actor) + (start_s or 0.0)
    hours = time_s * (pool.machines / 3600)
    return Price(
        tokens=tokens,
        conditioned=drawn.total(lambda one: one.conditioned.tokens),
        direct=drawn.total(lambda one: one.direct.tokens),
        flops=flops,
        tokens_per_s=tokens_per_s,
        start_s=start_s,
        time_s=time_s,
        machine_hours=hours,
        cost=None if price_per_hour is None else hours * price_per_hour,
        encode_cpu_s=drawn.total(lambda one: one.cpu_s),
    )
