"""What `sf-ray plan` says, as lines for people and as JSON for programs.

Plain values: knows neither Ray nor files, and prints nothing itself.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from math import isfinite
from typing import Any, NamedTuple

from sf_ray.commands.plan.estimate import (
    DrawnRows,
    MeasuredSpeed,
    PlannedActors,
    ScoringEstimate,
)
from sf_ray.commands.plan.intervals import Estimate
from sf_ray.runtime.log import duration


@dataclass(frozen=True)
class CorpusProgress:
    """The size of the corpus, and how much of it has scores.

    Attributes:
        input: Where the corpus lies.
        shards, rows, bytes: Of the shards that are used.
        skipped_shards: Shards that are not used.
        units: Units of the corpus.
        units_done: Units that have scores.
        rows_to_do: Rows of the units without scores.
    """

    input: str
    shards: int
    skipped_shards: int
    rows: int
    bytes: int
    units: int
    units_done: int
    rows_to_do: int

    @property
    def units_to_do(self) -> int:
        """Units without scores."""
        return self.units - self.units_done


@dataclass(frozen=True)
class ScoringSetting:
    """What a run would score with.

    Attributes:
        model, dtype: The model's name, and the type in which it computes.
        actors: The actors.
        cpus_beside: CPUs of the cluster that the actors leave to tasks which read and encode.
    """

    model: str
    dtype: str
    actors: PlannedActors
    cpus_beside: float


@dataclass(frozen=True)
class Feeding:
    """Whether the CPUs of a cluster can feed its GPUs.

    Attributes:
        rows_per_s_a_core: Rows that one core reads and encodes in a second.
        rows_per_s_an_actor: Rows that one actor scores in a second.
        actors: Number of actors.
        cores_needed: Cores that read and encode as fast as all actors score.
        cores_beside: CPUs that the actors leave for that.
    """

    rows_per_s_a_core: float
    rows_per_s_an_actor: float
    actors: int
    cores_needed: float
    cores_beside: float

    @classmethod
    def of(cls, setting: ScoringSetting, estimate: ScoringEstimate, rows: int) -> "Feeding | None":
        """The feeding of GPUs.

        Args:
            setting: What a run would score with.
            estimate: What scoring takes.
            rows: Rows to be scored.

        Returns:
            None without GPUs: there reading takes time from the actors' own CPUs, but little.
        """
        actors = setting.actors.actors
        scoring_s = estimate.time_s.value - (estimate.start_s or 0.0)
        cpu_s = estimate.encode_cpu_s.value
        if setting.actors.device != "cuda" or not scoring_s or not cpu_s:
            return None
        return cls(
            rows_per_s_a_core=rows / cpu_s,
            rows_per_s_an_actor=rows / scoring_s / actors,
            actors=actors,
            cores_needed=cpu_s / scoring_s,
            cores_beside=setting.cpus_beside,
        )

    @property
    def gpus_wait(self) -> bool:
        """Whether reading and encoding cannot keep up with the GPUs."""
        return self.cores_needed > self.cores_beside

    def __str__(self) -> str:
        actors = "1 actor" if self.actors == 1 else f"{self.actors:,} actors"
        return (
            f"one core reads and encodes {self.rows_per_s_a_core:,.0f} rows/s; {actors} at "
            f"{self.rows_per_s_an_actor:,.0f} rows/s need {self.cores_needed:,.1f} cores for that, "
            f"and the cluster has {self.cores_beside:g} beside them"
            + (": GPUs would wait" if self.gpus_wait else "")
        )


@dataclass(frozen=True)
class PlannedScoring:
    """How the units without scores would be scored, and what that takes.

    Attributes:
        setting: What a run would score with.
        drawn: Rows that stand for the rows to be scored.
        speed: The measured speed, or tokens per second of one actor, as the user gives it.
        estimate: What scoring takes.
    """

    setting: ScoringSetting
    drawn: DrawnRows
    speed: MeasuredSpeed | float
    estimate: ScoringEstimate

    @property
    def feeding(self) -> Feeding | None:
        """Whether CPUs can feed the GPUs; None without GPUs."""
        return Feeding.of(self.setting, self.estimate, self.drawn.rows_to_do)


class Line(NamedTuple):
    """A line of a plan: what it is about, and what it says."""

    name: str
    text: str


@dataclass(frozen=True)
class Plan:
    """All that a plan says.

    Attributes:
        progress: The corpus, and how much of it has scores.
        scoring: How the rest would be scored; None where nothing is left to score.
    """

    progress: CorpusProgress
    scoring: PlannedScoring | None = None

    def as_json(self) -> dict[str, Any]:
        """Numbers with their intervals; the same names, also where nothing is left to score."""
        values: dict[str, Any] = asdict(self.progress)
        done = values.pop("units_done")
        values["units"] = {
            "all": self.progress.units,
            "done": done,
            "to_do": self.progress.units_to_do,
        }
        names = [field.name for field in fields(ScoringEstimate)]
        values |= dict.fromkeys(("sample", "scoring", "speed", "feeding", *names))
        if self.scoring is None:
            return values
        return values | {
            "sample": _sample_as_json(self.scoring.drawn),
            "scoring": _setting_as_json(self.scoring.setting),
            "speed": _speed_as_json(self.scoring.speed),
            "feeding": _feeding_as_json(self.scoring.feeding),
            **self.scoring.estimate.as_json(),
        }


def _sample_as_json(drawn: DrawnRows) -> dict[str, Any]:
    return {
        "rows": drawn.rows,
        "stretches": len(drawn.segments),  # the public name of segments
        "is_everything": drawn.is_everything,
        "statuses": drawn.statuses,
    }


def _setting_as_json(setting: ScoringSetting) -> dict[str, Any]:
    return {
        "model": setting.model,
        "device": setting.actors.device,
        "dtype": setting.dtype,
        "actors": setting.actors.actors,
        "machines": setting.actors.machines,
        "machine": setting.actors.machine,
    }


def _speed_as_json(speed: MeasuredSpeed | float) -> dict[str, Any]:
    measured = speed if isinstance(speed, MeasuredSpeed) else None
    return {
        "is_measured": measured is not None,
        "measured_s": measured and measured.seconds_measured,
        "measured_rows": measured and measured.rows_measured,
        "saved_in_measured_parts": measured and measured.saved_in_parts,
        "saved_in_units": measured and measured.saved_in_units,
    }


def _feeding_as_json(feeding: Feeding | None) -> dict[str, Any] | None:
    return {**asdict(feeding), "gpus_wait": feeding.gpus_wait} if feeding else None


def lines_of(plan: Plan) -> list[Line]:
    """The lines to print."""
    progress = plan.progress
    skipped = f", {progress.skipped_shards:,} more are skipped" if progress.skipped_shards else ""
    units = (
        f"{progress.units:,}: {progress.units_done:,} have scores, "
        f"{progress.units_to_do:,} to score"
    )
    lines = [
        Line("shards", f"{progress.shards:,}{skipped}"),
        Line("rows", f"{progress.rows:,}"),
        Line("bytes", f"{progress.bytes:,}"),
        Line("units", units),
    ]
    if plan.scoring is None:
        why = "all units have scores" if progress.units else "the corpus has no rows"
        return [*lines, Line("", f"nothing to do: {why}")]
    return lines + _lines_of_rows(plan.scoring) + _lines_of_time(plan.scoring)


def _lines_of_rows(scoring: PlannedScoring) -> list[Line]:
    drawn, estimate = scoring.drawn, scoring.estimate
    if drawn.is_everything:
        sample = f"all {drawn.rows:,} rows to score: tokens and FLOPs are exact"
    else:
        sample = (
            f"{drawn.rows:,} of {drawn.rows_to_do:,} rows to score, "
            f"in {len(drawn.segments):,} places"
        )
    return [
        Line("sample", sample),
        *(Line(f"  {name}", f"{rows / drawn.rows:.1%}") for name, rows in drawn.statuses.items()),
        Line("tokens", _with_interval(estimate.tokens, _integer)),
        Line("  conditioned", _with_interval(estimate.conditioned, _integer)),
        Line("  direct", _with_interval(estimate.direct, _integer)),
        Line("FLOPs", _with_interval(estimate.flops, "{:.3g}".format)),
    ]


def _lines_of_time(scoring: PlannedScoring) -> list[Line]:
    setting, speed, estimate = scoring.setting, scoring.speed, scoring.estimate
    actors = setting.actors
    machines = actors.machine if actors.machines == 1 else f"{actors.machine}s"
    tokens_per_s = f"{_with_interval(estimate.tokens_per_s, _integer)} tokens/s an actor"
    lines = [Line("scoring", f"{setting.model}, {setting.dtype} on {actors.device}")]
    if isinstance(speed, MeasuredSpeed):
        measured = f"{speed.rows_measured:,} rows in {duration(speed.seconds_measured)}"
        lines += [
            Line("speed", f"{tokens_per_s}, measured on {measured}"),
            Line(
                "repeats",
                f"{speed.saved_in_units:.0%} of the tokens of a unit are not computed again "
                f"({speed.saved_in_parts:.0%} in what was measured); the speed counts them",
            ),
        ]
    else:
        lines.append(Line("speed", f"{tokens_per_s}, as given"))
    if scoring.feeding:
        lines.append(Line("reading", str(scoring.feeding)))
    hours = _with_interval(estimate.machine_hours, "{:,.2f}".format)
    lines += [
        Line("actors", f"{actors.actors:,} on {actors.machines:g} {machines}"),
        Line("time", _with_interval(estimate.time_s, duration) + _start(estimate.start_s)),
        Line(f"{actors.machine}-hours", hours),
    ]
    if estimate.cost is not None:
        lines.append(Line("price", _with_interval(estimate.cost, "{:,.2f}".format)))
    return lines


def _start(start_s: float | None) -> str:
    if start_s is None:
        return ", without the start of the actors"
    return f", with {duration(start_s)} until an actor has loaded the model"


def _integer(value: float) -> str:
    return f"{value:,.0f}"


def _with_interval(estimate: Estimate, text: Callable[[float], str]) -> str:
    if not estimate.error:
        return text(estimate.value)
    if not isfinite(estimate.error):
        return f"{text(estimate.value)} (no interval: all of it was sampled in one place)"
    return f"{text(estimate.value)} ({text(estimate.low)} to {text(estimate.high)})"
