"""How far scoring has come: counted by the actors, shown by the driver."""

import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from time import monotonic
from types import TracebackType
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from sf_ray.errors import SfRayError
from sf_ray.runtime.log import duration, run_id, say
from sf_ray.runtime.metrics import METRICS, _instrument
from sf_ray.runtime.signals import interrupt
from sf_ray.scoring.stages.tally import RunCounts, Tally

_LOOK_S, _ANSWER_S = 1.0, 5.0
# Where there is no terminal: a line each ten seconds at first, then one a minute.
_PLAIN_S, _PLAIN_LATER_S, _PLAIN_LINES = 10.0, 60.0, 30

# For people, and its fields for machines.
ProgressLine = tuple[str, dict[str, Any]]


def increments(before: RunCounts, now: RunCounts) -> Iterator[tuple[str, Mapping[str, str], int]]:
    """How far counters grow from one look at the tally to the next: name, tags of its own, by what.

    Work that Ray does twice counts twice here, as it costs twice.
    """
    for status in sorted(now.by_status):
        grown = now.by_status[status] - before.by_status.get(status, 0)
        yield "sf_ray_rows", {"status": status}, grown
    for name, field in (
        ("sf_ray_units", "units"),
        ("sf_ray_tokens_computed", "tokens"),
        ("sf_ray_tokens", "unit_tokens"),
        ("sf_ray_tokens_saved", "tokens_saved"),
        ("sf_ray_oom_splits", "oom_splits"),
    ):
        yield name, {}, getattr(now, field) - getattr(before, field)
    again = now.units_again - before.units_again
    yield "sf_ray_retries", {"what": _UNITS_AGAIN}, again


class RunMetrics:
    """The metrics of a run that scores; needs a Ray that runs."""

    def __init__(self, model: str, corpus: str, rows: int, units: int) -> None:
        """
        Args:
            model: Its name, without secrets.
            corpus: Its place, without secrets.
            rows: How many there are to score, over all tries.
            units: How many they are cut into.
        """
        self._tags = {"run_id": run_id(), "model": model, "corpus": corpus}
        self._instruments = {name: _instrument(metric) for name, metric in METRICS.items()}
        self._rows, self._units = rows, units

    def report(self, before: RunCounts, now: RunCounts, rows_left: float, units_left: int) -> None:
        """Takes the counts as of the last report and of now, and what is left to do."""
        for name, tags, grown in increments(before, now):
            if grown > 0:
                self._instruments[name].inc(grown, tags=self._tags_of(name) | dict(tags))
        # Ray's agent forgets a gauge that nobody sets for a while.
        for name, value in (
            ("sf_ray_run_rows", self._rows),
            ("sf_ray_run_rows_left", rows_left),
            ("sf_ray_run_units", self._units),
            ("sf_ray_run_units_left", units_left),
        ):
            self._instruments[name].set(value, tags=self._tags)

    def _tags_of(self, name: str) -> dict[str, str]:
        return {tag: self._tags[tag] for tag in METRICS[name].tags if tag in self._tags}


class ScoringProgress:
    """Shows progress until it is left: a bar on a terminal, a line now and then elsewhere.

    Attributes:
        tally: Handle of the `Tally` actor, to give to the scoring actors.
        counts: What it counted, as of a moment ago.
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
            rows: How many there are to score.
            units: How many they are cut into.
            check: Called with the counts now and then; what it raises ends the run.
            metrics: Of the run, which are told the counts as well.
        """
        self._rows, self._units, self._check = rows, units, check
        self._metrics = metrics
        # On this node: it is lost with the driver, and not before. Workers die of what they score.
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
        """Asks for the counts; keeps the last ones where the tally does not answer."""
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
            # Once: Ray Data takes up to seconds to end an execution, and does not begin again
            # where a second one meets it in that.
            if not (self._done.is_set() or self._has_interrupted):
                self._has_interrupted = True
                interrupt(error)

    def _watch(self) -> None:
        if sys.stderr.isatty():
            columns = (BarColumn(), TextColumn("{task.description}"))
            with Progress(*columns, console=Console(stderr=True)) as bar:
                task = bar.add_task("starting the scoring actors", total=self._rows)
                while not self._done.wait(_LOOK_S):
                    self._look()
                    # What was done, which is not all of it where the run fails.
                    bar.update(
                        task,
                        completed=self._rows_done(self.counts),
                        description=self._line(self.counts)[0],
                    )
            return
        lines, due = 0, monotonic() + _PLAIN_S
        while not self._done.wait(_LOOK_S):
            self._look()
            if monotonic() >= due:
                line, fields = self._line(self.counts)
                say(line, **fields)
                lines += 1
                due = monotonic() + (_PLAIN_S if lines < _PLAIN_LINES else _PLAIN_LATER_S)

    def _line(self, counts: RunCounts) -> ProgressLine:
        # A rate holds until the next batch is done: it does not sink while one runs.
        if self._shown is None or self._shown[0] != counts:
            self._shown = (counts, self._line_of(counts))
        return self._shown[1]

    def _rows_done(self, counts: RunCounts) -> float:
        """Rows of units that are done count whole, those of a running one by their sequences."""
        return min(max(counts.sequences / 2, counts.rows), self._rows)

    def _units_left(self, counts: RunCounts) -> int:
        return max(self._units - counts.units, 0)

    def _line_of(self, counts: RunCounts) -> ProgressLine:
        if not counts.sequences and not counts.rows:
            return "scoring: waiting for the first batch", {"stage": "score", "rows": 0}
        now = monotonic()
        if self._first is None:
            self._first = (now, counts)
        since, first = self._first
        rows, units = self._rows_done(counts), self._units - self._units_left(counts)
        line = f"scoring: {rows:,.0f} of {self._rows:,} rows, {units:,} of {self._units:,} units"
        fields = {"stage": "score", "rows": round(rows), "units": units}
        elapsed = now - since
        rows_done = rows - self._rows_done(first)
        if elapsed <= 0 or not rows_done:
            return line, fields
        left = (self._rows - rows) * elapsed / rows_done
        rate = (counts.tokens - first.tokens) / elapsed
        return f"{line}, {rate:,.0f} tokens/s, about {duration(left)} left", {
            **fields,
            "tokens_per_s": round(rate),
            "seconds_left": round(left),
        }


_UNITS_AGAIN = "units"
