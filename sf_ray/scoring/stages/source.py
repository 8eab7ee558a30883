"""The first stage: CPU tasks of Ray read units from the corpus, render and encode them.

A file may end the process that reads it, if a library has a fault. Ray then starts the task again,
without end; so a task asks the `Tally` whether it is such a one, and then reads with care: one unit
after the other, each announced before. What processes die of again and again is a bad shard.
"""

import functools
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data
from ray.data import DataContext, Datasource, ReadTask
from ray.data.block import BlockMetadata
from ray.exceptions import RayError

from sf_ray.corpus.bundles import UnitRows, bundles_of
from sf_ray.corpus.rows import read_units, refuse_bad_lines
from sf_ray.corpus.status import Status
from sf_ray.corpus.units import ReadPlan, Unit
from sf_ray.encoding.specs import EncodingSpec
from sf_ray.errors import BadShardError
from sf_ray.scoring.partial_sets import RowSet
from sf_ray.scoring.score_set import or_mark
from sf_ray.storage.files import map_requests
from sf_ray.storage.location import Location

# Small reads of one task that wait for storage together, and the units that they may hold.
_READS_AT_ONCE, _UNITS_AHEAD = 8, 64
# Seconds to wait for an answer of the tally.
_TALLY_S = 120.0
# Calls a method of the tally by its name.
Notes = Callable[..., bool]


@dataclass(frozen=True)
class ScoringJob:
    """The units to score, and where they are read from.

    Attributes:
        corpus: Where the shards lie.
        marks: Where shards that cannot be read are marked.
        tasks: The plans that each read task reads.
        units_a_bundle: Units that travel together, at most.
        skip_bad: A shard that cannot be read is marked beside the pieces, instead of an error.
        skip_bad_lines: A line that is no JSON object is a bad row, instead of an error.
        rows: The rows to score of each unit; None for all.
    """

    corpus: Location
    marks: Location
    tasks: Sequence[Sequence[ReadPlan]]
    units_a_bundle: int
    skip_bad: bool
    skip_bad_lines: bool
    rows: RowSet | None = None

    def of(self, plans: Sequence[ReadPlan]) -> "ScoringJob":
        """What a task must know that reads some plans."""
        rows = self.rows and self.rows.within(
            plan.stem + unit.suffix for plan in plans for unit in plan.units
        )
        return replace(self, tasks=(), rows=rows)


class UnitSource(Datasource):  # type: ignore[misc]
    """A Ray data source of bundles of encoded units."""

    def __init__(self, job: ScoringJob, encoding: EncodingSpec, tally: Any) -> None:
        """
        Args:
            job: What to read.
            encoding: How rows become token ids.
            tally: Handle of the `Tally` actor.
        """
        super().__init__()
        self._job, self._tally = job, tally
        self._encoding = ray.cloudpickle.dumps(encoding.for_workers())

    def get_name(self) -> str:
        """Name of the operator in Ray's plan and dashboard."""
        return "Units"

    def estimate_inmemory_data_size(self) -> int:
        """Bytes of the shards; Ray sizes its buffers by it."""
        files = {plan.file for plans in self._job.tasks for plan in plans}
        return sum(file.size for file in files)

    def get_read_tasks(
        self,
        parallelism: int,
        per_task_row_limit: int | None = None,
        data_context: DataContext | None = None,
    ) -> list[ReadTask]:
        """One task for each task of the job, whatever parallelism Ray asks for."""
        tasks = []
        for plans in self._job.tasks:
            read = functools.partial(
                _read_bundles, self._job.of(plans), plans, self._encoding, self._tally
            )
            metadata = BlockMetadata(
                num_rows=sum(len(plan.units) for plan in plans),
                size_bytes=None,
                input_files=None,
                exec_stats=None,
            )
            tasks.append(ReadTask(read, metadata))
        return tasks


def _read_bundles(
    job: ScoringJob, plans: Sequence[ReadPlan], encoding: bytes, tally: Any
) -> Iterator[pa.Table]:
    # Ray runs many of these tasks side by side: threads inside each would only be in the way.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    task = plans[0].stem + plans[0].units[0].suffix
    units = _encoded_units(job, plans, _unpickled(encoding), _notes_on(task, tally))
    yield from bundles_of(units, job.units_a_bundle)
    tally.task_read.remote(task)


def _notes_on(task: str, tally: Any) -> Notes | None:
    """Calls the tally, where this task began before and did not end; None for all other tasks."""

    def ask(method: str, *arguments: str) -> bool:
        answer: bool = ray.get(getattr(tally, method).remote(*arguments), timeout=_TALLY_S)
        return answer

    try:
        return ask if ask("task_reading", task) else None
    except RayError:  # it is busy or gone, and reading does not depend on it
        return None


@functools.lru_cache(maxsize=4)
def _unpickled(encoding: bytes) -> EncodingSpec:
    """The spec of a pickle: the same object for the same pickle, because it holds its tokenizer."""
    spec: EncodingSpec = pickle.loads(encoding)
    return spec


def _encoded_units(
    job: ScoringJob,
    plans: Sequence[ReadPlan],
    encoding: EncodingSpec,
    notes: Notes | None = None,
) -> Iterator[UnitRows]:
    """The encoded rows of each unit of a task's plans; with care where there are `notes`."""
    for plan, unit, rows in _read(job, plans, encoding.columns, notes):
        chosen = None
        if job.rows is not None:
            chosen = job.rows.flags(plan.stem + unit.suffix, unit.rows)
            rows = rows.filter(pa.array(chosen))
        encoded = encoding.encode(rows, plan.file.relative, unit.start)
        if chosen is not None:
            encoded = encoded.append_column("row", pa.array(unit.start + np.flatnonzero(chosen)))
        if notes:
            notes("unit_read", plan.stem + unit.suffix)
        if not job.skip_bad_lines:
            refuse_bad_lines(job.corpus, plan.file, unit.start, rows, _bad_rows(encoded))
        yield UnitRows.of(plan, unit, encoded)


def _bad_rows(encoded: pa.Table) -> Iterator[int]:
    """Indices of rows that are no JSON object, or an object without the values of the format."""
    for index, status in enumerate(encoded["status"].to_pylist()):
        if status == Status.BAD_ROW.value:
            yield index


def _read(
    job: ScoringJob, plans: Sequence[ReadPlan], columns: Sequence[str], notes: Notes | None
) -> Iterator[tuple[ReadPlan, Unit, pa.Table]]:
    """The rows of each unit of a task's plans; a bad shard gives the units before the damage."""

    def read(plan: ReadPlan) -> Iterator[tuple[ReadPlan, Unit, pa.Table]]:
        with or_mark(job.marks, job.skip_bad, [plan]):
            tables = read_units(job.corpus, plan, columns)
            for unit in plan.units:
                piece = plan.stem + unit.suffix
                if notes and notes("unit_reading", piece):
                    raise BadShardError(
                        plan.file.relative,
                        f"every process died that read and encoded its rows {unit.start} to "
                        f"{unit.stop}",
                    )
                yield plan, unit, next(tables)
            assert next(tables, None) is None, "one table for each unit"

    at_once = min(_READS_AT_ONCE, _UNITS_AHEAD // max(len(plan.units) for plan in plans))
    if notes or at_once < 2:  # streams through large row groups
        for plan in plans:
            yield from read(plan)
        return
    for units in map_requests(job.corpus, lambda plan: list(read(plan)), plans, at_once):
        yield from units
