"""Which units processes died of, in reading or scoring, and which rows are to blame.

Ray starts an actor that died again, and hands it the same units: without a memory outside of it, a
row that ends its process would end every process. Pure bookkeeping: knows no Ray and no engine.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

# Processes that may die over one unit before its rows are suspected: a machine that is taken away
# ends a process too.
_DEATHS = 3
# Times that a single row must fail before it is bad, for the same reason.
_TRIES = 2


class UnitState(Enum):
    """What a scoring actor must know of a unit before it starts on it."""

    NEW = "never started before"
    RETRIED = "started before, and not finished"
    SUSPECT = "several processes died over it: search for its bad rows"
    HOPELESS = "a process died over it although its bad rows were taken out"


@dataclass
class Bisection:
    """The search for the bad rows among n rows, by scoring ranges of them.

    Ask for the `next` range, score it, and call `passed`. A range that was handed out and did not
    pass has failed: the process that scored it may have died, and can report nothing.

    Attributes:
        rows: n.
        bad: Rows that failed on their own.
    """

    rows: int
    bad: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._left = [(0, self.rows, 0)]  # a stack of (start, stop, failures of a single row)
        self._handed_out: tuple[int, int, int] | None = None

    def next(self) -> tuple[int, int] | None:
        """The next range [start, stop) to score; None when all bad rows are known."""
        if self._handed_out is not None:
            self._failed(*self._handed_out)
        self._handed_out = self._left.pop() if self._left else None
        return self._handed_out and self._handed_out[:2]

    @property
    def is_done(self) -> bool:
        """Whether all bad rows are known."""
        return not self._left and self._handed_out is None

    def passed(self) -> None:
        """The range that was handed out last could be scored."""
        self._handed_out = None

    def _failed(self, start: int, stop: int, failures: int) -> None:
        if stop - start > 1:
            middle = (start + stop) // 2
            self._left += [(middle, stop, 0), (start, middle, 0)]
        elif failures + 1 < _TRIES:
            self._left.append((start, stop, failures + 1))
        else:
            self.bad.append(start)


class Failures:
    """Remembers what was started and not finished, for actors and for units.

    Units are named by their pieces.
    """

    def __init__(self) -> None:
        self._actor_starts: Counter[str] = Counter()
        self._unfinished: set[str] = set()
        self._deaths: Counter[str] = Counter()
        self._bisections: dict[str, Bisection] = {}
        self._read_tasks: set[str] = set()
        self._read_units: Counter[str] = Counter()

    def task_reading(self, task: str) -> bool:
        """A task begins to read; returns whether it has begun before, and has not ended since."""
        again = task in self._read_tasks
        self._read_tasks.add(task)
        return again

    def task_read(self, task: str) -> None:
        """A task has read its units to their end."""
        self._read_tasks.discard(task)

    def unit_reading(self, piece: str) -> bool:
        """A task that began before begins to read a unit, alone.

        Returns:
            Whether processes died over it as often as over a single row that is bad.
        """
        self._read_units[piece] += 1
        return self._read_units[piece] > _TRIES

    def unit_read(self, piece: str) -> None:
        """The unit is read: what happened over it before no longer matters."""
        self._read_units.pop(piece, None)

    def actor_starting(self, actor: str) -> int:
        """An actor begins to load the model; returns which attempt in a row this is."""
        self._actor_starts[actor] += 1
        return self._actor_starts[actor]

    def actor_ready(self, actor: str) -> None:
        """An actor has loaded the model."""
        self._actor_starts.pop(actor, None)

    def units_started(self, pieces: Sequence[str]) -> list[UnitState]:
        """An actor starts on units, in this order; returns the state of each."""
        again = [piece in self._unfinished for piece in pieces]
        # The first unit that was started and not finished was in work when the process died. Or
        # the unit after it was, which begins while the first is still in work. Units that are
        # started again run alone, so the next death falls on the unit that causes it.
        if True in again:
            self._deaths[pieces[again.index(True)]] += 1
        self._unfinished.update(pieces)
        return [
            self._state(piece) if is_again else UnitState.NEW
            for piece, is_again in zip(pieces, again, strict=True)
        ]

    def _state(self, piece: str) -> UnitState:
        if self._deaths[piece] < _DEATHS:
            return UnitState.RETRIED
        if piece in self._bisections and self._bisections[piece].is_done:
            return UnitState.HOPELESS
        return UnitState.SUSPECT

    def unit_scored(self, piece: str) -> None:
        """A unit is finished: what happened over it before no longer matters."""
        self._unfinished.discard(piece)
        self._deaths.pop(piece, None)
        self._bisections.pop(piece, None)

    def unit_failed(self, piece: str) -> None:
        """The engine reported that it cannot score a unit, which is suspect without more deaths."""
        self._deaths[piece] = max(self._deaths[piece], _DEATHS)

    def next_range(self, piece: str, rows: int) -> tuple[int, int] | None:
        """The next range [start, stop) of a suspect unit to score, as `Bisection.next` gives it."""
        return self._bisections.setdefault(piece, Bisection(rows)).next()

    def range_passed(self, piece: str) -> None:
        """The range of a unit that was handed out last could be scored."""
        self._bisections[piece].passed()

    def bad_rows(self, piece: str) -> list[int]:
        """The rows of a unit that the engine cannot score, in order."""
        return sorted(self._bisections[piece].bad)
