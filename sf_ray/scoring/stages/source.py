"""Units in: CPU tasks of Ray read, render and encode them."""

import functools
import os
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import ray
import ray.data
from ray.data import DataContext, Datasource, ReadTask
from ray.data.block import BlockMetadata

from sf_ray.corpus.bundles import wrap_bundle, wrap_unit
from sf_ray.corpus.readers.file_types import FileType, file_type_of
from sf_ray.corpus.rows import first_bad_row, read_units
from sf_ray.corpus.status import Status
from sf_ray.corpus.units import ReadPlan, Unit
from sf_ray.encoding.specs import EncodingSpec
from sf_ray.errors import BadShardError
from sf_ray.scoring.score_set import mark_bad
from sf_ray.storage.files import map_requests
from sf_ray.storage.location import Location

# A bundle travels when it has this size: enough to be worth its task, whatever its rows are.
_BUNDLE_BYTES = 16 << 20

# Small reads of one task that wait for storage together, and the units that they may hold.
_READS_AT_ONCE, _UNITS_AHEAD = 8, 64


# Rules made from a pickle are new objects; keep one for each, with its tokenizer.
@functools.lru_cache(maxsize=4)
def _rules(pickled: bytes) -> EncodingSpec:
    rules: EncodingSpec = pickle.loads(pickled)
    return rules


@dataclass(frozen=True)
class ScoringJob:
    """What is scored, from where to where.

    Attributes:
        corpus: Where the shards lie.
        pieces: Where the scores go.
        tasks: What each read task reads.
        units_a_bundle: Units that travel together, at most.
        skip_bad: A shard that cannot be read gets a mark beside the pieces, instead of failing.
        skip_bad_lines: A line that is no JSON object is a bad row, instead of failing.
    """

    corpus: Location
    pieces: Location
    tasks: Sequence[Sequence[ReadPlan]]
    units_a_bundle: int
    skip_bad: bool
    skip_bad_lines: bool


class UnitSource(Datasource):  # type: ignore[misc]
    """Reads, renders and encodes units."""

    def __init__(self, job: ScoringJob, rules: EncodingSpec) -> None:
        super().__init__()
        self._job = job
        self._rules = ray.cloudpickle.dumps(rules.for_workers())

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
        """One task for each of the job's, whatever parallelism Ray asks for."""
        job = replace(self._job, tasks=())
        tasks = []
        for plans in self._job.tasks:
            read = functools.partial(_read_encoded, job, plans, self._rules)
            metadata = BlockMetadata(
                num_rows=sum(len(plan.units) for plan in plans),
                size_bytes=None,
                input_files=None,
                exec_stats=None,
            )
            tasks.append(ReadTask(read, metadata))
        return tasks


def _read_encoded(job: ScoringJob, plans: Sequence[ReadPlan], pickled: bytes) -> Iterator[pa.Table]:
    # Ray runs many of these side by side; threads inside each would only be in the way.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    rules = _rules(pickled)
    held: list[pa.Table] = []
    held_bytes = 0
    for plan, unit, rows in _read(job, plans, rules.columns):
        encoded = rules.encode(rows, plan.file.relative, unit.start)
        if not job.skip_bad_lines and file_type_of(plan.file.relative) is FileType.JSON:
            _refuse_bad_lines(job.corpus, plan, unit, rows, encoded["status"])
        held.append(wrap_unit(plan, unit, encoded))
        held_bytes += held[-1].nbytes
        if len(held) == job.units_a_bundle or held_bytes >= _BUNDLE_BYTES:
            yield wrap_bundle(held)
            held, held_bytes = [], 0
    if held:
        yield wrap_bundle(held)


def _refuse_bad_lines(
    corpus: Location, plan: ReadPlan, unit: Unit, rows: pa.Table, status: pa.ChunkedArray
) -> None:
    """Only bad rows are parsed again, to tell those that are not even JSON from the others."""
    bad = [i for i, value in enumerate(status.to_pylist()) if value == Status.BAD_ROW.value]
    if error := first_bad_row(corpus, plan.file, unit.start, rows, bad):
        raise error


def _read(
    job: ScoringJob, plans: Sequence[ReadPlan], columns: Sequence[str]
) -> Iterator[tuple[ReadPlan, Unit, pa.Table]]:
    """The rows of each unit of a task's plans."""

    def read(plan: ReadPlan) -> Iterator[tuple[ReadPlan, Unit, pa.Table]]:
        try:
            for unit, rows in zip(plan.units, read_units(job.corpus, plan, columns), strict=True):
                yield plan, unit, rows
        except BadShardError as error:
            if not job.skip_bad:
                raise
            mark_bad(job.pieces, plan.stem, error.reason)

    at_once = min(_READS_AT_ONCE, _UNITS_AHEAD // max(len(plan.units) for plan in plans))
    if at_once < 2:  # streams through large row groups
        for plan in plans:
            yield from read(plan)
        return
    for units in map_requests(job.corpus, lambda plan: list(read(plan)), plans, at_once):
        yield from units
