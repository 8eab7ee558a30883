"""The Ray part: units in, score pieces out.

    UnitSource (CPU tasks: read, render, encode) -> ScoreUnits (actors: model) -> PieceSink

What travels between them are `bundles` of whole units.
"""

import functools
import os
import pickle
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext, Datasink, Datasource, ReadTask
from ray.data.block import BlockMetadata

from sf_ray.corpus.bundles import rewrap_unit, unwrap_bundle, unwrap_unit, wrap_bundle, wrap_unit
from sf_ray.corpus.readers.file_types import Kind, kind_of
from sf_ray.corpus.rows import first_bad_row, read_units
from sf_ray.corpus.units import ReadPlan, Unit
from sf_ray.encoding.specs import EncodeRules, EngineRules
from sf_ray.engine.pending import Pending, one_ahead
from sf_ray.errors import BadShardError, EngineFailedError, SfRayError
from sf_ray.runtime.log import say
from sf_ray.runtime.tasks import set_context, user_errors
from sf_ray.scoring.ifd import Status
from sf_ray.scoring.score_set import mark_bad
from sf_ray.scoring.score_table import SCORE_ENCODING, without_rows
from sf_ray.scoring.stages.tally import Care, UnitCounts
from sf_ray.storage.files import is_there, map_requests, put_table
from sf_ray.storage.location import Location

# Starts of an actor that end before the model is loaded.
_STARTS = 3
# The tally answers at once; its node may be busy.
_TALLY_S = 120.0
# A bundle travels when it has this size: enough to be worth its task, whatever its rows are.
_BUNDLE_BYTES = 16 << 20
# Small reads of one task that wait for storage together, and the units that they may hold.
_READS_AT_ONCE, _UNITS_AHEAD = 8, 64
# Units that are scored faster than this are committed together.
_HOLD_S = 2.0
# Units that are scored faster than this are reported together.
_REPORT_S = 0.2
_PUT_THREADS = 4


@dataclass(frozen=True)
class ActorPool:
    """Size of the pool, and what Ray reserves for each actor and each task beside it."""

    min_size: int
    max_size: int
    initial_size: int
    num_cpus: float
    num_gpus: float
    read_cpus: float
    write_cpus: float

    @property
    def for_reading(self) -> float:
        """CPUs of a task that feeds the actors.

        Where the needs of both are equal, Ray fuses reading into the actor, which would then wait
        for storage.
        """
        return self.read_cpus * (0.9 if self.read_cpus == self.num_cpus else 1)

    @property
    def of_bundles(self) -> dict[str, Any]:
        """Options of `map_batches` for actors that take a bundle at a time."""
        return {
            "batch_size": 1,
            "batch_format": "pyarrow",
            "compute": ActorPoolStrategy(
                min_size=self.min_size, max_size=self.max_size, initial_size=self.initial_size
            ),
            "num_cpus": self.num_cpus,
            "num_gpus": self.num_gpus or None,
        }


# A unit, what to be careful with, and what the engine does with it; None where it does nothing yet.
_Begun = tuple[pa.Table, Care, Pending[pa.Table] | None]


# Rules made from a pickle are new objects; keep one for each, with its tokenizer.
@functools.lru_cache(maxsize=4)
def _rules(pickled: bytes) -> EncodeRules:
    rules: EncodeRules = pickle.loads(pickled)
    return rules


@dataclass(frozen=True)
class Job:
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

    def __init__(self, job: Job, rules: EncodeRules) -> None:
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


def _read_encoded(job: Job, plans: Sequence[ReadPlan], pickled: bytes) -> Iterator[pa.Table]:
    # Ray runs many of these side by side; threads inside each would only be in the way.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    rules = _rules(pickled)
    held: list[pa.Table] = []
    held_bytes = 0
    for plan, unit, rows in _read(job, plans, rules.columns):
        encoded = rules.encode(rows, plan.file.relative, unit.start)
        if not job.skip_bad_lines and kind_of(plan.file.relative) is Kind.JSON:
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
    job: Job, plans: Sequence[ReadPlan], columns: Sequence[str]
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


class ScoreUnits:
    """An actor that holds the model and scores units.

    Ray may start it, or hand it a bundle, again and again; the `Tally` remembers, and tells what to
    be careful with.
    """

    def __init__(self, rules: EngineRules, pieces: Location, tally: Any) -> None:
        self._pieces, self._tally = pieces, tally
        self._unreported: dict[str, UnitCounts] = {}
        self._reported = monotonic()
        context = ray.get_runtime_context()
        starts = self._ask("actor_starting", context.get_actor_id())
        if starts > _STARTS:
            raise SfRayError(
                f"a scoring actor died {_STARTS} times while it loaded the model, last on node "
                f"{ray.util.get_node_ip_address()}; most often memory ran out: use a smaller "
                "model, or fewer actors a node (--actors, --cpus-per-actor, --gpus-per-actor)"
            )
        self._scorer = rules.start()
        for note in self._scorer.notes:
            say(f"note: {note}", stage="score")
        self._ask("actor_ready", context.get_actor_id())

    def __call__(self, bundle: pa.Table) -> Iterator[pa.Table]:
        """Encoded units -> their score tables, as soon as some seconds' worth are done."""
        assert bundle.num_rows == 1, "a batch is one bundle"
        scored, since = [], monotonic()
        for table in self._score(unwrap_bundle(bundle)):
            scored.append(table)
            if monotonic() - since >= _HOLD_S:
                yield wrap_bundle(scored)
                scored, since = [], monotonic()
        self._report()
        if scored:
            yield wrap_bundle(scored)

    def _score(self, units: Sequence[pa.Table]) -> Iterator[pa.Table]:
        """Scores units in order; those that need care have the device to themselves."""
        pieces = [unit["piece"][0].as_py() for unit in units]
        cares = self._ask("bundle_started", pieces)
        # What was started before may have been committed by a task that was lost since.
        todo = (
            (unit, care)
            for unit, piece, care in zip(units, pieces, cares, strict=True)
            if care is Care.NONE or not is_there(self._pieces.join(piece))
        )
        return one_ahead(todo, self._begin, self._finish, lambda each: each[1] is not Care.NONE)

    def _begin(self, what: tuple[pa.Table, Care]) -> _Begun:
        """Begins with a unit; not where the process ended in it again and again."""
        unit, care = what
        shard, start = (unit[name][0].as_py() for name in ("shard", "start"))
        encoded = unwrap_unit(unit)
        if care is Care.HOPELESS:
            raise SfRayError(
                f"scoring rows {start} to {start + encoded.num_rows} of shard {shard} ends the "
                "process, though none of them does alone; most often memory runs out: lower "
                "--token-budget, or have more memory for each actor"
            )
        if care is Care.SUSPECT:
            return unit, care, None
        return unit, care, self._scorer.begin(shard, start, encoded, self._count_batch)

    def _finish(self, begun: _Begun) -> pa.Table:
        """The score table of a unit; where the engine fails, the others of its rows are scored."""
        unit, care, pending = begun
        shard, start, piece = (unit[name][0].as_py() for name in ("shard", "start", "piece"))
        table = None
        if pending:
            try:
                table = pending.result()
            except EngineFailedError as error:
                self._engine_failed(piece, error)
        if pending is None or table is None:
            encoded = self._without_bad_rows(piece, shard, start, unwrap_unit(unit))
            pending = self._scorer.begin(shard, start, encoded, self._count_batch)
            table = pending.result()
        self._unreported[piece] = UnitCounts.of(table, pending.usage)
        # With care, at once: who dies next shall not be blamed on a unit that is done.
        if care is not Care.NONE or monotonic() - self._reported >= _REPORT_S:
            self._report()
        return rewrap_unit(unit, table)

    def _report(self) -> None:
        if self._unreported:
            self._tally.units_scored.remote(self._unreported)
        self._unreported, self._reported = {}, monotonic()

    def _without_bad_rows(self, piece: str, shard: str, start: int, encoded: pa.Table) -> pa.Table:
        """Finds the rows that the engine cannot score, by halves; their scores are thrown away."""
        reason = "the process ends"
        while found := self._ask("next_range", piece, encoded.num_rows):
            first, stop = found
            try:
                rows = encoded.slice(first, stop - first)
                self._scorer.begin(shard, start + first, rows).result()
            except EngineFailedError as error:
                reason = str(error)
                self._engine_failed(piece, error)
            else:
                self._ask("range_passed", piece)
        bad: list[int] = self._ask("bad_rows", piece)
        if bad:
            say(
                f"note: the engine fails on {len(bad)} rows of {shard}, first on row "
                f"{start + bad[0]} ({reason}); they get the status engine_error",
                stage="score",
                shard=shard,
                unit=piece,
                rows=len(bad),
            )
        return without_rows(encoded, bad)

    def _engine_failed(self, piece: str, error: EngineFailedError) -> None:
        if error.device_is_lost:
            # Nothing runs on this device any more in this process: Ray starts another one, which
            # goes on with the search.
            self._ask("unit_failed", piece)
            say(f"note: {error}; the scoring actor starts again", stage="score", unit=piece)
            os._exit(1)

    def _count_batch(self, sequences: int, tokens: int) -> None:
        self._tally.batch_scored.remote(sequences, tokens)

    def _ask(self, method: str, *arguments: Any) -> Any:
        return ray.get(getattr(self._tally, method).remote(*arguments), timeout=_TALLY_S)


class PieceSink(Datasink[None]):  # type: ignore[misc]
    """Puts each unit's scores whole under their final name; doing so twice changes nothing."""

    def __init__(self, pieces: Location) -> None:
        self._pieces = pieces

    def get_name(self) -> str:
        """Name of the operator in Ray's plan and dashboard."""
        return "Pieces"

    def write(self, blocks: Iterable[pa.Table], ctx: Any) -> None:
        """Writes every unit of every bundle, several at a time."""
        bundles = [block.slice(index, 1) for block in blocks for index in range(block.num_rows)]
        units = [unit for bundle in bundles for unit in unwrap_bundle(bundle)]
        with ThreadPoolExecutor(_PUT_THREADS) as threads:
            for _ in threads.map(self._put, units):
                pass

    def _put(self, unit: pa.Table) -> None:
        where = self._pieces.join(unit["piece"][0].as_py())
        put_table(where, unwrap_unit(unit), SCORE_ENCODING)


def scoring_dataset(
    job: Job, encode: EncodeRules, engine: EngineRules, pool: ActorPool, tally: Any
) -> ray.data.Dataset:
    """The lazy dataset of scored units."""
    set_context()
    return ray.data.read_datasource(
        UnitSource(job, encode),
        override_num_blocks=len(job.tasks),
        num_cpus=pool.for_reading,
    ).map_batches(ScoreUnits, fn_constructor_args=(engine, job.pieces, tally), **pool.of_bundles)


def write_pieces(scored: ray.data.Dataset, pieces: Location, write_cpus: float) -> None:
    """Runs the dataset and puts every unit's piece.

    Raises:
        ClusterError: Something was lost that Ray could not make good.
        SfRayError: What a task or an actor says is wrong.
    """
    with user_errors():
        scored.write_datasink(PieceSink(pieces), ray_remote_args={"num_cpus": write_cpus})
