"""Progress of scoring: the actors count in a `Tally`, the driver shows its counts.

`ScoringProgress` owns the `Tally` actor, looks at it every second, and shows what it sees: as a bar
on a terminal, as lines elsewhere, and as metrics (`RunMetrics`).
"""

import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from time import monotonic
from types import TracebackType
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.progress import BarColumn, Progress, TextColumn

from sf_ray.errors import SfRayError
from sf_ray.runtime.console import SafeConsole
from sf_ray.runtime.log import duration, run_id, say
from sf_ray.runtime.metrics import METRICS, instrument
from sf_ray.runtime.signals import interrupt
from sf_ray.scoring.stages.tally import RunCounts, Tally

# Seconds between two looks at the tally, and seconds to wait for its answer.
_LOOK_S, _ANSWER_S = 1.0, 5.0
# Without a terminal: seconds between two of the first lines, between two later ones, and how many
# lines are first ones.
_PLAIN_S, _PLAIN_LATER_S, _PLAIN_LINES = 10.0, 60.0, 30
# Value of the tag "what" of the metric `sf_ray_retries`.
_UNITS_AGAIN = "units"

# A line for people, and its fields for machines.
ProgressLine = tuple[str, dict[str, Any]]


class Increment(NamedTuple):
    """By how much a counter grows.

    Attributes:
        name: Name of the counter.
        tags: The tags of the counter that not all metrics of the run have.
        value: By how much; 0 where it does not grow.
    """

    name: str
    tags: Mapping[str, str]
    value: int


def increments(before: RunCounts, now: RunCounts) -> Iterator[Increment]:
    """How much each counter grows from one look at the tally to the next.

    Work that Ray does twice counts twice here, because it costs twice.
    """
    for status in sorted(now.by_status):
        grown = now.by_status[status] - before.by_status.get(status, 0)
        yield Increment("sf_ray_rows", {"status": status}, grown)
    for name, field in (
        ("sf_ray_units", "units"),
        ("sf_ray_tokens_computed", "tokens"),
        ("sf_ray_tokens", "unit_tokens"),
        ("sf_ray_tokens_saved", "tokens_saved"),
        ("sf_ray_oom_splits", "oom_splits"),
    ):
        yield Increment(name, {}, getattr(now, field) - getattr(before, field))
    again = now.units_again - before.units_again
    yield Increment("sf_ray_retries", {"what": _UNITS_AGAIN}, again)


class RunMetrics:
    """The metrics of a run that scores; a Ray cluster must be running."""

    def __init__(self, model: str, corpus: str, rows: int, units: int) -> None:
        """
        Args:
            model: Name of the model, without secrets.
            corpus: Place of the corpus, without secrets.
            rows: Rows to score, in all attempts together.
            units: Units to score, in all attempts together.
        """
        self._tags = {"run_id": run_id(), "model": model, "corpus": corpus}
        self._instruments = {name: instrument(metric) for name, metric in METRICS.items()}
        self._rows, self._units = rows, units

    def report(self, before: RunCounts, now: RunCounts, rows_left: float, units_left: int) -> None:
        """Moves the counters by what happened between two looks, and sets the gauges.

        Args:
            before: The counts at the last look.
            now: The counts at this look.
            rows_left: Rows that are still to score.
            units_left: Units that are still to score.
        """
        for name, tags, value in increments(before, now):
            if value > 0:
                self._instruments[name].inc(value, tags=self._tags_of(name) | dict(tags))
        # All of them at every look: Ray's agent forgets a gauge that nobody sets for a while.
        for name, level in (
            ("sf_ray_run_rows", self._rows),
            ("sf_ray_run_rows_left", rows_left),
            ("sf_ray_run_units", self._units),
            ("sf_ray_run_units_left", units_left),
        ):
            self._instruments[name].set(level, tags=self._tags)

    def _tags_of(self, name: str) -> dict[str, str]:
        return {tag: self._tags[tag] for tag in METRICS[name].tags if tag in self._tags}


class ScoringProgress:
    """A context in which progress is shown: a bar on a terminal, a line now and then elsewhere.

    Attributes:
        tally: Handle of the `Tally` actor, for the scoring actors.
        counts: Counts of the tally at the last look.
    """

    def __init__(
        self,
        rows: int,
        units: int,
        check: Callable[[RunCounts], None] = lambda counts: None,
        metrics: RunMetrics | None = None,
    ) -> None:
        """
        Args:
            rows: Rows to score.
            units: Units to score.
            check: Called with the counts at every look; a `SfRayError` that it raises ends the run.
            metrics: The metrics of the run, to report the counts to.
        """
        self._rows, self._units, self._check = rows, units, check
        self._metrics = metrics
        # On the driver's node: it is lost with the driver, and not before. It runs in a process of
        # its own, because a process that scores may die of a row.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.tally: Any = ray.remote(num_cpus=0, scheduling_strategy=here, max_concurrency=1)(
            Tally
        ).remote()
        self.counts = RunCounts()
        self._has_interrupted = False
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._first: tuple[float, RunCounts] | None = None
        self._shown: tuple[RunCounts, ProgressLine] | None = None

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
        self._look()

    def _look(self) -> None:
        """Takes the counts from the tally; keeps the last ones where it does not answer in time."""
        before = self.counts
        try:
            self.counts = ray.get(self.tally.counts.remote(), timeout=_ANSWER_S)
        except (RayError, TimeoutError):
            return
        if self._metrics:
            rows_left = self._rows - self._rows_done(self.counts)
            self._metrics.report(before, self.counts, rows_left, self._units_left(self.counts))
        try:
            self._check(self.counts)
        except SfRayError as error:
            # Only once: Ray Data takes up to seconds to end an execution, and a second interrupt
            # during these seconds would stop it from ending.
            if not (self._done.is_set() or self._has_interrupted):
                self._has_interrupted = True
                interrupt(error)

    def _watch(self) -> None:
        if sys.stderr.isatty():
            self._show_bar()
        else:
            self._show_lines()

    def _show_bar(self) -> None:
        columns = (BarColumn(), TextColumn("{task.description}", markup=False))
        with Progress(*columns, console=SafeConsole(stderr=True)) as bar:
            task = bar.add_task("starting the scoring actors", total=self._rows)
            while not self._done.wait(_LOOK_S):
                self._look()
                line, _ = self._line(self.counts)
                bar.update(task, completed=self._rows_done(self.counts), description=line)

    def _show_lines(self) -> None:
        lines, due_s = 0, monotonic() + _PLAIN_S
        while not self._done.wait(_LOOK_S):
            self._look()
            if monotonic() >= due_s:
                line, fields = self._line(self.counts)
                say(line, **fields)
                lines += 1
                due_s = monotonic() + (_PLAIN_S if lines < _PLAIN_LINES else _PLAIN_LATER_S)

    def _line(self, counts: RunCounts) -> ProgressLine:
        # Between two reports the line stays as it is: the rate does not sink while a batch runs.
        if self._shown is None or self._shown[0] != counts:
            self._shown = (counts, self._line_of(counts))
        return self._shown[1]

    def _rows_done(self, counts: RunCounts) -> float:
        """Rows of finished units, or half of the scored sequences where these are more.

        A row has two sequences, one of each pass, and those of units in work are only counted as
        sequences.
        """
        return min(max(counts.sequences / 2, counts.rows), self._rows)

    def _units_left(self, counts: RunCounts) -> int:
        return max(self._units - counts.units, 0)

    def _line_of(self, counts: RunCounts) -> ProgressLine:
        if not counts.sequences and not counts.rows:
            return "scoring: waiting for the first batch", {"stage": "score", "rows": 0}
        now = monotonic()
        if self._first is None:
            self._first = (now, counts)
        first_s, first = self._first
        rows, units = self._rows_done(counts), self._units - self._units_left(counts)
        line = f"scoring: {rows:,.0f} of {self._rows:,} rows, {units:,} of {self._units:,} units"
        fields = {"stage": "score", "rows": round(rows), "units": units}
        elapsed_s = now - first_s
        rows_done = rows - self._rows_done(first)
        if elapsed_s <= 0 or not rows_done:
            return line, fields
        left_s = (self._rows - rows) * elapsed_s / rows_done
        tokens_per_s = (counts.tokens - first.tokens) / elapsed_s
        return f"{line}, {tokens_per_s:,.0f} tokens/s, about {duration(left_s)} left", {
            **fields,
            "tokens_per_s": round(tokens_per_s),
            "seconds_left": round(left_s),
        }
