"""What the scoring actors report, kept where it outlives them: counts, and who died of what.

A plain class; `progress` runs it as an actor on the driver's node.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

import pyarrow as pa

from sf_ray.corpus.status import BAD
from sf_ray.engine.pending import Usage
from sf_ray.scoring.stages.failures import Bisection

# Processes that may die over one unit before its rows are suspected: machines are taken away too.
_DEATHS = 3
_EXAMPLES = 3


class UnitState(Enum):
    """What a scoring actor should know of a unit before it starts on it."""

    NEW = "new"
    RETRIED = "it was started before"
    SUSPECT = "the process ended in it again and again"
    HOPELESS = "the process ended in it though its bad rows had been taken out"


@dataclass(frozen=True)
class UnitCounts:
    """What one scored unit comes to.

    Attributes:
        rows: All of its rows.
        oom_splits: How often memory ran out.
        tokens, tokens_saved: That were to be scored, and those of them that were repeats.
        by_status: Rows by status.
        examples: (shard, row, status) of some rows whose status is bad.
    """

    rows: int
    oom_splits: int
    tokens: int
    tokens_saved: int
    by_status: Mapping[str, int]
    examples: tuple[tuple[str, int, str], ...]

    @classmethod
    def of(cls, scores: pa.Table, usage: Usage) -> "UnitCounts":
        """Counts a unit's score table."""
        counts = {
            count["values"]: count["counts"]
            for count in scores["status"].value_counts().to_pylist()
        }
        examples: list[tuple[str, int, str]] = []
        if counts.keys() & set(BAD):
            columns = [scores[name].to_pylist() for name in ("shard", "row", "status")]
            examples = [row for row in zip(*columns, strict=True) if row[2] in BAD][:_EXAMPLES]
        return cls(
            scores.num_rows,
            usage.oom_splits,
            usage.tokens,
            usage.tokens_saved,
            counts,
            tuple(examples),
        )

    @property
    def bad(self) -> dict[str, int]:
        """Rows by status, of those statuses that are bad."""
        return {status: rows for status, rows in self.by_status.items() if status in BAD}


@dataclass(frozen=True)
class RunCounts:
    """Work done so far. A unit that Ray retries counts again: this is for people to watch; but its
    bad rows count once.

    Attributes:
        sequences, tokens: In finished batches.
        units, rows: In finished units.
        oom_splits: How often memory ran out.
        unit_tokens, tokens_saved: Of finished units: to be scored, and those that were repeats.
        by_status: Rows by status, in finished units.
        units_again: How often a unit was handed to an actor that was handed to one before.
        signs_of_life: Grows whenever anything happens.
        bad: Bad rows by status.
        examples: (shard, row, status) of some of them.
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
    examples: tuple[tuple[str, int, str], ...] = ()


class Tally:
    """Adds up what the scoring actors report, and remembers what they died of."""

    def __init__(self) -> None:
        self._counts = RunCounts()
        self._starts: Counter[str] = Counter()
        self._open: set[str] = set()
        self._deaths: Counter[str] = Counter()
        self._halvings: dict[str, Bisection] = {}
        self._with_bad_rows: set[str] = set()

    def counts(self) -> RunCounts:
        """What was counted so far."""
        return self._counts

    def actor_starting(self, actor: str) -> int:
        """An actor is about to load the model; which try in a row it is."""
        self._alive()
        self._starts[actor] += 1
        return self._starts[actor]

    def actor_ready(self, actor: str) -> None:
        """An actor has loaded the model."""
        self._alive()
        self._starts.pop(actor, None)

    def bundle_started(self, pieces: Sequence[str]) -> list[UnitState]:
        """An actor starts on units, in this order; what to be careful with."""
        self._alive()
        before = [piece in self._open for piece in pieces]
        # Of units that were started and not finished, the first was in work, or the one after it,
        # which began beside it: units that are started again run alone, and the next death tells.
        if True in before:
            self._deaths[pieces[before.index(True)]] += 1
        c = self._counts
        self._counts = replace(c, units_again=c.units_again + sum(before))
        self._open.update(pieces)
        return [
            self._care(piece) if again else UnitState.NEW
            for piece, again in zip(pieces, before, strict=True)
        ]

    def _care(self, piece: str) -> UnitState:
        if self._deaths[piece] < _DEATHS:
            return UnitState.RETRIED
        if piece in self._halvings and self._halvings[piece].is_done:
            return UnitState.HOPELESS
        return UnitState.SUSPECT

    def batch_scored(self, sequences: int, tokens: int) -> None:
        """Counts a batch."""
        self._alive()
        c = self._counts
        self._counts = replace(c, sequences=c.sequences + sequences, tokens=c.tokens + tokens)

    def units_scored(self, units: Mapping[str, UnitCounts]) -> None:
        """Counts units by piece, and forgets their troubles."""
        self._alive()
        for piece, unit in units.items():
            self._unit_scored(piece, unit)

    def _unit_scored(self, piece: str, unit: UnitCounts) -> None:
        self._open.discard(piece)
        self._deaths.pop(piece, None)
        self._halvings.pop(piece, None)
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
        # A run may end because of these: no row counts twice.
        if unit.bad and piece not in self._with_bad_rows:
            self._with_bad_rows.add(piece)
            bad = Counter(c.bad) + Counter(unit.bad)
            examples = (c.examples + unit.examples)[:_EXAMPLES]
            self._counts = replace(self._counts, bad=bad, examples=examples)

    def unit_failed(self, piece: str) -> None:
        """The engine said that it cannot score a unit: no more deaths are needed to see why."""
        self._deaths[piece] = max(self._deaths[piece], _DEATHS)

    def next_range(self, piece: str, rows: int) -> tuple[int, int] | None:
        """Which rows [start, stop) of a suspect unit to try next; None when its bad rows are known.

        A range that was handed out and did not pass has failed.
        """
        self._alive()
        return self._halvings.setdefault(piece, Bisection(rows)).next()

    def range_passed(self, piece: str) -> None:
        """The rows that were handed out last can be scored."""
        self._halvings[piece].passed()

    def bad_rows(self, piece: str) -> list[int]:
        """The rows of a unit that the engine cannot score."""
        return sorted(self._halvings[piece].bad)

    def _alive(self) -> None:
        self._counts = replace(self._counts, signs_of_life=self._counts.signs_of_life + 1)
