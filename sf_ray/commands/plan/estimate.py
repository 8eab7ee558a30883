"""What scoring a corpus will take, estimated from some segments of its rows. Plain numbers.

A segment is a cluster of rows that follow each other. They resemble each other more than the rows
of other segments, so an interval follows from how segments differ, not from the number of rows.
Knows neither files nor Ray, and of a model only what a token costs.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sf_ray.commands.plan.intervals import Estimate, ratio
from sf_ray.engine.flops import ModelCost, Work


@dataclass(frozen=True)
class SegmentCounts:
    """Work and statuses of one segment of rows, counted from its token ids.

    Attributes:
        rows: Rows of the segment.
        statuses: Status -> rows, as far as encoding decides it.
        conditioned, direct: Work of the two passes, by the plain method.
        cpu_s: CPU seconds that reading and encoding took.
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
class DrawnRows:
    """The segments that were drawn from the rows to be scored.

    Attributes:
        segments: The drawn segments.
        rows_to_do: All rows to be scored, drawn or not.
    """

    segments: Sequence[SegmentCounts]
    rows_to_do: int

    @property
    def rows(self) -> int:
        """Rows that were drawn."""
        return sum(segment.rows for segment in self.segments)

    @property
    def is_everything(self) -> bool:
        """Whether all rows to be scored were drawn, so that sums are exact."""
        return self.rows == self.rows_to_do

    @property
    def statuses(self) -> dict[str, int]:
        """Status -> drawn rows, the most frequent first."""
        counts = sum((Counter(segment.statuses) for segment in self.segments), Counter[str]())
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    def total(self, quantity: Callable[[SegmentCounts], float]) -> Estimate:
        """The sum of a quantity over all rows to be scored, estimated from the drawn segments."""
        values = [quantity(segment) for segment in self.segments]
        sizes = [segment.rows for segment in self.segments]
        return ratio(values, sizes, self.rows / self.rows_to_do) * self.rows_to_do


@dataclass(frozen=True)
class WorkSaved:
    """Work of the same rows, by the plain method and as the engine does it.

    Attributes:
        plain: Every token of every sequence.
        computed: What is left where the engine computes what repeats once.
    """

    plain: Work
    computed: Work


@dataclass(frozen=True)
class TimedPart:
    """Rows that were scored to see how fast an actor is.

    Attributes:
        rows: Rows of the part.
        seconds: Seconds that one actor took to score it.
        work: Work of the part.
    """

    rows: int
    seconds: float
    work: WorkSaved


@dataclass(frozen=True)
class ReadRows:
    """Rows that were read and encoded to see how fast a core is.

    Attributes:
        rows: Number of rows.
        cpu_s: CPU seconds that reading and encoding them took.
    """

    rows: int
    cpu_s: float


@dataclass(frozen=True)
class MeasuredSpeed:
    """How fast an actor is, and how fast a core reads for it, as measured.

    Attributes:
        start_s: Seconds from asking for the actor until its model is loaded.
        parts: Parts of units that were scored.
        whole_units: Work of some whole units, which repeat more than parts of them do.
        of_units: Number of units that the whole ones were drawn from.
        read: The whole units as they were read: as a run reads them, where a segment of a few rows
            pays for a whole row group.
    """

    start_s: float
    parts: Sequence[TimedPart]
    whole_units: Sequence[WorkSaved]
    of_units: int
    read: Sequence[ReadRows]

    @property
    def seconds_measured(self) -> float:
        """Seconds for which parts were scored."""
        return sum(part.seconds for part in self.parts)

    @property
    def rows_measured(self) -> int:
        """Rows of all parts."""
        return sum(part.rows for part in self.parts)

    def scoring_s(self, cost: ModelCost, plain_flops: Estimate) -> Estimate:
        """Seconds that one actor needs to score.

            plain FLOPs * share of them that whole units need / FLOPs per second of the actor

        Args:
            cost: Cost of the model.
            plain_flops: FLOPs by the plain method of the rows to be scored.
        """
        plain = [cost.flops(unit.plain) for unit in self.whole_units]
        needed = [cost.flops(unit.computed) for unit in self.whole_units]
        share = ratio(needed, plain, len(self.whole_units) / self.of_units)
        done = [cost.flops(part.work.computed) for part in self.parts]
        rate = ratio(done, [part.seconds for part in self.parts])
        return plain_flops.times(share).over(rate)

    @property
    def encode_cpu_s_a_row(self) -> Estimate:
        """CPU seconds of reading and encoding a row."""
        return ratio([read.cpu_s for read in self.read], [read.rows for read in self.read])

    @property
    def saved_in_units(self) -> float:
        """Share of the tokens of whole units that are not computed again."""
        return _saved_share(self.whole_units)

    @property
    def saved_in_parts(self) -> float:
        """Share of the tokens of the scored parts that were not computed again."""
        return _saved_share([part.work for part in self.parts])


def _saved_share(works: Sequence[WorkSaved]) -> float:
    plain = sum(work.plain.tokens for work in works)
    return 1 - sum(work.computed.tokens for work in works) / plain if plain else 0.0


@dataclass(frozen=True)
class PlannedActors:
    """The actors that a run would have.

    Attributes:
        device: cpu or cuda.
        actors: Number of actors.
        machines: What is paid for: GPUs, or nodes where there are no GPUs.
        units: Units that the actors share.
    """

    device: str
    actors: int
    machines: float
    units: int

    @property
    def machine(self) -> str:
        """What is paid for, by name."""
        return "GPU" if self.device == "cuda" else "node"

    def until_last_is_done(self, of_one_actor: Estimate) -> Estimate:
        """Seconds until the last actor is done, where units are alike.

        An actor scores whole units, so the last one has ceil(units / actors) of them.

        Args:
            of_one_actor: Seconds that one actor would need for all units.
        """
        most_units = -(-self.units // self.actors)
        return of_one_actor * (most_units / self.units)


@dataclass(frozen=True)
class ScoringEstimate:
    """What scoring will take. The names of the fields are those of the JSON.

    Attributes:
        tokens, conditioned, direct: Tokens to be scored: in all, and in each pass.
        flops: FLOPs by the plain method.
        tokens_per_s: Tokens of one actor in a second.
        start_s: Seconds until an actor has loaded its model; None where that was not measured.
        time_s: Seconds from the start of the actors to the last score.
        machine_hours: GPU-hours or node-hours.
        cost: Price of the machine-hours; None where the price of one is not known.
        encode_cpu_s: CPU seconds of reading and encoding, beside the actors.
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
        """The numbers by name, those that are estimated with their intervals."""
        return {
            name: value.as_json() if isinstance(value, Estimate) else value
            for name, value in vars(self).items()
        }


def estimate_scoring(
    drawn: DrawnRows,
    cost: ModelCost,
    speed: MeasuredSpeed | float,
    actors: PlannedActors,
    price_per_hour: float | None,
) -> ScoringEstimate:
    """Puts together what was counted and measured.

    Args:
        drawn: Drawn rows, of which at least one has a token to score.
        cost: Cost of the model.
        speed: The measured speed, or tokens per second of one actor, as the user gives it.
        actors: The actors of the run.
        price_per_hour: Price of a GPU for an hour, or of a node where there are no GPUs.
    """
    tokens = drawn.total(lambda segment: segment.both.tokens)
    flops = drawn.total(lambda segment: cost.flops(segment.both))
    if isinstance(speed, MeasuredSpeed):
        of_one_actor, start_s = speed.scoring_s(cost, flops), speed.start_s
        # Tokens and FLOPs both follow the length of rows. Without their errors, what is left is
        # the error of the rate.
        of_known_rows = speed.scoring_s(cost, Estimate(flops.value))
        tokens_per_s = Estimate(tokens.value).over(of_known_rows)
        encode_cpu_s = speed.encode_cpu_s_a_row * drawn.rows_to_do
    else:
        of_one_actor, start_s, tokens_per_s = tokens * (1 / speed), None, Estimate(speed)
        encode_cpu_s = drawn.total(lambda segment: segment.cpu_s)
    time_s = actors.until_last_is_done(of_one_actor) + (start_s or 0.0)
    hours = time_s * (actors.machines / 3600)
    return ScoringEstimate(
        tokens=tokens,
        conditioned=drawn.total(lambda segment: segment.conditioned.tokens),
        direct=drawn.total(lambda segment: segment.direct.tokens),
        flops=flops,
        tokens_per_s=tokens_per_s,
        start_s=start_s,
        time_s=time_s,
        machine_hours=hours,
        cost=None if price_per_hour is None else hours * price_per_hour,
        encode_cpu_s=encode_cpu_s,
    )
