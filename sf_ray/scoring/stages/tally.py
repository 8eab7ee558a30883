"""What tasks and scoring actors report: counts of their work, and what they died of.

A plain class that knows no Ray. `progress` runs it as an actor on the driver's node, where it
outlives the scoring actors.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa

from sf_ray.engine.pending import Usage
from sf_ray.scoring.bad_rows import SHOWN, BadRow, bad_rows_of, count_statuses, only_bad
from sf_ray.scoring.stages.failures import Failures, UnitState


@dataclass(frozen=True)
class UnitCounts:
    """Counts of one scored unit.

    Attributes:
        rows: All of its rows.
        oom_splits: How often memory ran out.
        tokens: Tokens that were to be scored.
        tokens_saved: Tokens among them that repeat others, and were not computed again.
        by_status: Rows by status.
        examples: Some rows whose status is bad.
    """

    rows: int
    oom_splits: int
    tokens: int
    tokens_saved: int
    by_status: Mapping[str, int]
    examples: tuple[BadRow, ...]

    @classmethod
    def of(cls, scores: pa.Table, usage: Usage) -> "UnitCounts":
        """Counts a unit's score table."""
        by_status = count_statuses(scores["status"])
        examples: list[BadRow] = []
        if only_bad(by_status):
            shard = scores["shard"][0].as_py()
            examples = bad_rows_of(shard, scores["row"].to_pylist(), scores["status"])
        return cls(
            scores.num_rows,
            usage.oom_splits,
            usage.tokens,
            usage.tokens_saved,
            by_status,
            tuple(examples),
        )

    @property
    def bad(self) -> dict[str, int]:
        """Rows by status, of those statuses that are bad."""
        return only_bad(self.by_status)


@dataclass(frozen=True)
class RunCounts:
    """Counts of the work done so far, for people to watch.

    A unit that is scored twice counts twice, because it is twice the work. Only its bad rows count
    once, because a run ends when there are too many of them.

    Attributes:
        sequences, tokens: Of finished batches.
        units, rows: Finished units, and their rows.
        oom_splits: How often memory ran out.
        unit_tokens: Tokens of finished units that were to be scored.
        tokens_saved: Tokens among them that repeat others, and were not computed again.
        by_status: Rows of finished units by status.
        units_again: How often an actor was handed a unit that had been handed out before.
        signs_of_life: Grows with every report of an actor.
        bad: Bad rows by status.
        examples: Some of the bad rows.
    """

    sequences: int = 0
    tokens: int = 0
    units: int = 0
    rows: int = 0
    oom_splits: int = 0
    unit_tokens: int = 0
    tokens_saved: int = 0
    by_status: Mapping[str, int] = field(default_factory=dict)
    units_again: int = 0
    signs_of_life: int = 0
    bad: Mapping[str, int] = field(default_factory=dict)
    examples: tuple[BadRow, ...] = ()


@dataclass(frozen=True)
class Scored:
    """The work of a run that scores; without the units that had scores before it.

    Attributes:
        units: Units that it scored.
        tokens: Tokens of these units, in both passes.
        tokens_saved: Tokens among them that repeat others of their unit, and were not computed
            again.
    """

    units: int = 0
    tokens: int = 0
    tokens_saved: int = 0


class Tally:
    """Adds up what the scoring actors report; `Failures` remembers what they died of.

    Actors call the methods by name, through Ray. Units are named by their pieces.
    """

    def __init__(self) -> None:
        self._counts = RunCounts()
        self._failures = Failures()
        self._with_bad_rows: set[str] = set()

    def counts(self) -> RunCounts:
        """The counts so far."""
        return self._counts

    def task_reading(self, task: str) -> bool:
        """As `Failures.task_reading`."""
        return self._failures.task_reading(task)

    def task_read(self, task: str) -> None:
        """As `Failures.task_read`."""
        self._failures.task_read(task)

    def unit_reading(self, piece: str) -> bool:
        """As `Failures.unit_reading`."""
        self._alive()
        return self._failures.unit_reading(piece)

    def unit_read(self, piece: str) -> None:
        """As `Failures.unit_read`."""
        self._failures.unit_read(piece)

    def actor_starting(self, actor: str) -> int:
        """As `Failures.actor_starting`."""
        self._alive()
        return self._failures.actor_starting(actor)

    def actor_ready(self, actor: str) -> None:
        """As `Failures.actor_ready`."""
        self._alive()
        self._failures.actor_ready(actor)

    def bundle_started(self, pieces: Sequence[str]) -> list[UnitState]:
        """An actor starts on the units of a bundle, in this order; returns the state of each."""
        self._alive()
        states = self._failures.units_started(pieces)
        again = sum(state is not UnitState.NEW for state in states)
        self._counts = replace(self._counts, units_again=self._counts.units_again + again)
        return states

    def batch_scored(self, sequences: int, tokens: int) -> None:
        """Counts a batch."""
        self._alive()
        c = self._counts
        self._counts = replace(c, sequences=c.sequences + sequences, tokens=c.tokens + tokens)

    def units_scored(self, units: Mapping[str, UnitCounts]) -> None:
        """Counts finished units, by piece."""
        self._alive()
        for piece, unit in units.items():
            self._failures.unit_scored(piece)
            self._count_unit(piece, unit)

    def _count_unit(self, piece: str, unit: UnitCounts) -> None:
        c = self._counts
        self._counts = replace(
            c,
            units=c.units + 1,
            rows=c.rows + unit.rows,
            oom_splits=c.oom_splits + unit.oom_splits,
            unit_tokens=c.unit_tokens + unit.tokens,
            tokens_saved=c.tokens_saved + unit.tokens_saved,
            by_status=Counter(c.by_status) + Counter(unit.by_status),
        )
        if unit.bad and piece not in self._with_bad_rows:
            self._with_bad_rows.add(piece)
            bad = Counter(c.bad) + Counter(unit.bad)
            examples = (c.examples + unit.examples)[:SHOWN]
            self._counts = replace(self._counts, bad=bad, examples=examples)

    def unit_failed(self, piece: str) -> None:
        """As `Failures.unit_failed`."""
        self._failures.unit_failed(piece)

    def next_range(self, piece: str, rows: int) -> tuple[int, int] | None:
        """As `Failures.next_range`."""
        self._alive()
        return self._failures.next_range(piece, rows)

    def range_passed(self, piece: str) -> None:
        """As `Failures.range_passed`."""
        self._failures.range_passed(piece)

    def bad_rows(self, piece: str) -> list[int]:
        """As `Failures.bad_rows`."""
        return self._failures.bad_rows(piece)

    def _alive(self) -> None:
        self._counts = replace(self._counts, signs_of_life=self._counts.signs_of_life + 1)
