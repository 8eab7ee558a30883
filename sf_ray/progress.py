"""How far scoring has come: counted by the actors, shown by the driver."""

import sys
import threading
from dataclasses import dataclass, replace
from time import monotonic
from types import TracebackType
from typing import Any

import ray
from ray.exceptions import RayError
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from sf_ray.console import duration, say

_TERMINAL_S = 0.5
# Where there is no terminal: a line each ten seconds at first, then one a minute.
_PLAIN_S, _PLAIN_LATER_S, _PLAIN_LINES = 10.0, 60.0, 30


@dataclass(frozen=True)
class Counts:
    """Work done so far. A unit that Ray retries counts again: this is for people to watch."""

    sequences: int = 0
    tokens: int = 0
    units: int = 0
    rows: int = 0
    oom_splits: int = 0


class Tally:
    """Adds up what the scoring actors report; runs as an actor without resources."""

    def __init__(self) -> None:
        self._counts = Counts()

    def batch_scored(self, sequences: int, tokens: int) -> None:
        """Counts a batch."""
        c = self._counts
        self._counts = replace(c, sequences=c.sequences + sequences, tokens=c.tokens + tokens)

    def unit_scored(self, rows: int, oom_splits: int) -> None:
        """Counts a unit, and how often memory ran out in it."""
        c = self._counts
        self._counts = replace(
            c, units=c.units + 1, rows=c.rows + rows, oom_splits=c.oom_splits + oom_splits
        )

    def counts(self) -> Counts:
        """What was counted so far."""
        return self._counts


class ScoringProgress:
    """Shows progress until it is left: a bar on a terminal, a line now and then elsewhere.

    Attributes:
        tally: Handle of the `Tally` actor, to give to the scoring actors.
    """

    def __init__(self, rows: int, units: int) -> None:
        self._rows, self._units = rows, units
        self.tally: Any = ray.remote(num_cpus=0)(Tally).remote()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._first: tuple[float, Counts] | None = None
        self._shown: tuple[Counts, str] | None = None

    def __enter__(self) -> "ScoringProgress":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()

    def counts(self) -> Counts:
        """What was counted so far; zeros where the counter is gone."""
        try:
            counts: Counts = ray.get(self.tally.counts.remote(), timeout=5)
            return counts
        except (RayError, TimeoutError):
            return Counts()

    def _watch(self) -> None:
        if not sys.stderr.isatty():
            lines = 0
            while not self._done.wait(_PLAIN_S if lines < _PLAIN_LINES else _PLAIN_LATER_S):
                say(self._line(self.counts()))
                lines += 1
            return
        columns = (BarColumn(), TextColumn("{task.description}"))
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task("starting the scoring actors", total=self._rows)
            while not self._done.wait(_TERMINAL_S):
                counts = self.counts()
                bar.update(task, completed=self._rows_done(counts), description=self._line(counts))
            # What was done, which is not all of it where the run failed.
            bar.update(task, completed=self._rows_done(self.counts()))

    def _line(self, counts: Counts) -> str:
        # A rate holds until the next batch is done: it does not sink while one runs.
        if self._shown is None or self._shown[0] != counts:
            self._shown = (counts, self._line_of(counts))
        return self._shown[1]

    def _rows_done(self, counts: Counts) -> float:
        """Rows of units that are done count whole, those of a running one by their sequences."""
        return min(max(counts.sequences / 2, counts.rows), self._rows)

    def _line_of(self, counts: Counts) -> str:
        if not counts.sequences:
            return "scoring: waiting for the first batch"
        now = monotonic()
        if self._first is None:
            self._first = (now, counts)
        since, first = self._first
        rows = self._rows_done(counts)
        line = (
            f"scoring: {rows:,.0f} of {self._rows:,} rows, "
            f"{min(counts.units, self._units):,} of {self._units:,} units"
        )
        elapsed = now - since
        rows_done = rows - self._rows_done(first)
        if elapsed <= 0 or not rows_done:
            return line
        left = (self._rows - rows) * elapsed / rows_done
        rate = (counts.tokens - first.tokens) / elapsed
        return f"{line}, {rate:,.0f} tokens/s, about {duration(left)} left"
