"""What `sf-ray plan` found, as lines for people and as JSON for programs. Plain values."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

from sf_ray.commands.plan.estimate import Drawn, Estimate, Measured, PlannedActors, Price
from sf_ray.runtime.log import duration

Lines = list[tuple[str, str]]


@dataclass(frozen=True)
class Whole:
    """The corpus, and how much of it has scores.

    Attributes:
        input: Where it lies.
        shards, skipped_shards, rows, bytes: Of the corpus; skipped shards are not in the others.
        units, units_done: In all, and with scores.
        rows_to_do: In the units that have none.
    """

    input: str
    shards: int
    skipped_shards: int
    rows: int
    bytes: int
    units: int
    units_done: int
    rows_to_do: int


@dataclass(frozen=True)
class Setting:
    """What scores.

    Attributes:
        model, dtype: Which model, and how.
        pool: The actors.
        cpus_beside: CPUs of the cluster that they leave to tasks which read and encode.
    """

    model: str
    dtype: str
    pool: PlannedActors
    cpus_beside: float

    def missing_cpus(self, found: Price) -> float:
        """CPUs that reading and encoding lack, so that GPUs would wait for them; 0 for none.

        On CPU they take from the actors' own: little, beside what scoring takes there.
        """
        scoring_s = found.time_s.value - (found.start_s or 0.0)
        if self.pool.device != "cuda" or not scoring_s:
            return 0.0
        return max(0.0, found.encode_cpu_s.value / scoring_s - self.cpus_beside)


@dataclass(frozen=True)
class Plan:
    """All that a plan says; `drawn` and what follows are None where nothing is left to do."""

    whole: Whole
    setting: Setting | None = None
    drawn: Drawn | None = None
    speed: Measured | float | None = None
    price: Price | None = None

    def as_json(self) -> dict[str, Any]:
        """Numbers with their intervals, by name: the same names every time."""
        told: dict[str, Any] = {**asdict(self.whole)}
        told["units"] = {
            "all": told["units"],
            "done": told.pop("units_done"),
            "to_do": self.whole.units - self.whole.units_done,
        }
        told |= dict.fromkeys(("sample", "scoring", "speed", *Price.__dataclass_fields__))
        if not (self.setting and self.drawn and self.price):
            return told
        told["sample"] = {
            "rows": self.drawn.rows,
            "stretches": len(self.drawn.stretches),
            "is_everything": self.drawn.rows == self.drawn.of_rows,
            "statuses": self.drawn.statuses,
        }
        told["scoring"] = {
            "model": self.setting.model,
            "device": self.setting.pool.device,
            "dtype": self.setting.dtype,
            "actors": self.setting.pool.actors,
            "machines": self.setting.pool.machines,
            "machine": self.setting.pool.machine,
        }
        told["speed"] = {"is_measured": isinstance(self.speed, Measured)}
        measured = self.speed if isinstance(self.speed, Measured) else None
        told["speed"] |= {
            "measured_s": measured and sum(one.seconds for one in measured.timed),
            "measured_rows": measured and sum(one.rows for one in measured.timed),
            "saved_in_measured_parts": measured and measured.saved_in_parts,
            "saved_in_units": measured and measured.saved_in_units,
        }
        return told | self.price.as_json()


def lines_of(plan: Plan) -> Lines:
    """What to print, as (name, text)."""
    whole = plan.whole
    to_do = whole.units - whole.units_done
    skipped = f", {whole.skipped_shards:,} more are skipped" if whole.skipped_shards else ""
    lines = [
        ("shards", f"{whole.shards:,}{skipped}"),
        ("rows", f"{whole.rows:,}"),
        ("bytes", f"{whole.bytes:,}"),
        ("units", f"{whole.units:,}: {whole.units_done:,} have scores, {to_do:,} to score"),
    ]
    if not (plan.setting and plan.drawn and plan.price):
        why = "all units have scores" if whole.units else "the corpus has no rows"
        return [*lines, ("", f"nothing to do: {why}")]
    return lines + _of_rows(plan.drawn, plan.price) + _of_time(plan.setting, plan.speed, plan.price)


def _of_rows(drawn: Drawn, found: Price) -> Lines:
    sample = (
        f"{drawn.rows:,} of {drawn.of_rows:,} rows to score, in {len(drawn.stretches):,} places"
    )
    if drawn.rows == drawn.of_rows:
        sample = f"all {drawn.rows:,} rows to score: tokens and FLOPs are exact"
    statuses = [(f"  {name}", f"{rows / drawn.rows:.1%}") for name, rows in drawn.statuses.items()]
    return [
        ("sample", sample),
        *statuses,
        ("tokens", _with_interval(found.tokens, _whole)),
        ("  conditioned", _with_interval(found.conditioned, _whole)),
        ("  direct", _with_interval(found.direct, _whole)),
        ("FLOPs", _with_interval(found.flops, lambda value: f"{value:.3g}")),
    ]


def _of_time(setting: Setting, speed: Measured | float | None, found: Price) -> Lines:
    pool = setting.pool
    how = "as given"
    if isinstance(speed, Measured):
        rows, seconds = (sum(getattr(t, name) for t in speed.timed) for name in ("rows", "seconds"))
        how = f"measured on {rows:,} rows in {duration(seconds)}"
    name = pool.machine if pool.machines == 1 else f"{pool.machine}s"
    lines = [
        ("scoring", f"{setting.model}, {setting.dtype} on {setting.pool.device}"),
        ("speed", f"{_with_interval(found.tokens_per_s, _whole)} tokens/s an actor, {how}"),
    ]
    if isinstance(speed, Measured):
        lines.append(
            (
                "repeats",
                f"{speed.saved_in_units:.0%} of the tokens of a unit are not computed again "
                f"({speed.saved_in_parts:.0%} in what was measured); speed counts them",
            )
        )
    lines += [
        ("actors", f"{pool.actors:,} on {pool.machines:g} {name}"),
        ("time", _with_interval(found.time_s, duration) + _of_start(found.start_s)),
        (f"{pool.machine}-hours", _with_interval(found.machine_hours, lambda v: f"{v:,.2f}")),
    ]
    if found.cost is not None:
        lines.append(("price", _with_interval(found.cost, lambda value: f"{value:,.2f}")))
    return lines


def _of_start(start_s: float | None) -> str:
    if start_s is None:
        return ", without the start of the actors"
    return f", with {duration(start_s)} until an actor has loaded the model"


def _whole(value: float) -> str:
    return f"{value:,.0f}"


def _with_interval(estimate: Estimate, text: Callable[[float], str]) -> str:
    if not estimate.error:
        return text(estimate.value)
    if not isfinite(estimate.error):
        return f"{text(estimate.value)} (how sure that is, one place cannot tell)"
    return f"{text(estimate.value)} ({text(estimate.low)} to {text(estimate.high)})"
