"""The Ray part: units in, score pieces out; and the same function over many items.

    UnitSource (CPU tasks: read, render, encode) -> ScoreUnits (actors: model) -> PieceSink

One Ray row is one unit: its rows travel as a list inside it. Ray may merge or split blocks as it
likes, and can neither tear a unit apart nor mix two of them.
"""

import functools
import os
import pickle
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext, Datasink, Datasource, ReadTask
from ray.data.block import BlockMetadata
from ray.exceptions import RayError

from sf_ray.encoding import Encoder
from sf_ray.errors import SfRayError
from sf_ray.examples import Format
from sf_ray.models import Model, load_tokenizer, resolve_model
from sf_ray.planning import ReadPlan
from sf_ray.reading import read_units, values_of
from sf_ray.storage import Location, put_table
from sf_ray.tables import encoded_table


@dataclass(frozen=True)
class ModelSpec:
    """A model that every node resolves for itself; the fingerprint says that it is the same."""

    name: str
    fingerprint: str
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    trust_remote_code: bool = False

    def resolve(self) -> Model:
        """The model on this node.

        Raises:
            SfRayError: It is not there, or has other weights than the driver's.
        """
        model = resolve_model(self.name, self.storage_options)
        if model.fingerprint != self.fingerprint:
            raise SfRayError(
                f"model {self.name} on node {ray.util.get_node_ip_address()} has other files "
                f"({model.fingerprint}) than on the driver ({self.fingerprint}); put the same "
                "model on every node, or name a URI that all of them fetch"
            )
        return model


@dataclass(frozen=True)
class EncodeRules:
    """All that decides how a unit's rows become token ids."""

    format: Format
    model: ModelSpec
    max_length: int
    alignment: str

    @functools.cached_property
    def encoder(self) -> Encoder:
        """Made once in each worker process."""
        tokenizer = load_tokenizer(self.model.resolve(), self.model.trust_remote_code)
        return Encoder(tokenizer, self.max_length, self.alignment)


@dataclass(frozen=True)
class EngineRules:
    """All that decides how an actor holds the model."""

    model: ModelSpec
    device: str
    dtype: str
    token_budget: int | None
    threads: int | None


@dataclass(frozen=True)
class ActorPool:
    """Size of the pool and what Ray reserves for each actor."""

    min_size: int
    max_size: int
    initial_size: int
    num_cpus: float
    num_gpus: float


def _unit_row(shard: str, start: int, piece: str, rows: pa.Table) -> pa.Table:
    """One Ray row that holds a whole unit."""
    struct = rows.to_struct_array()
    struct = struct.combine_chunks() if isinstance(struct, pa.ChunkedArray) else struct
    whole = pa.ListArray.from_arrays(pa.array([0, len(struct)], pa.int32()), struct)
    return pa.table({"shard": [shard], "start": [start], "piece": [piece], "rows": whole})


def _rows_of(unit: pa.Table) -> pa.Table:
    """The rows that a unit's Ray row holds."""
    return pa.Table.from_struct_array(unit["rows"].combine_chunks().flatten())


# Rules made from a pickle are new objects; keep one for each, with its tokenizer.
@functools.lru_cache(maxsize=4)
def _rules(pickled: bytes) -> EncodeRules:
    rules: EncodeRules = pickle.loads(pickled)
    return rules


class UnitSource(Datasource):  # type: ignore[misc]
    """Reads, renders and encodes units; one read task for each `ReadPlan`."""

    def __init__(self, corpus: Location, plans: Sequence[ReadPlan], rules: EncodeRules) -> None:
        super().__init__()
        self._corpus = corpus
        self._plans = plans
        self._rules = pickle.dumps(rules)

    def get_name(self) -> str:
        """Name of the operator in Ray's plan and dashboard."""
        return "Units"

    def estimate_inmemory_data_size(self) -> int:
        """Bytes of the shards; Ray sizes its buffers by it."""
        return sum(plan.shard.file.size for plan in self._plans)

    def get_read_tasks(
        self,
        parallelism: int,
        per_task_row_limit: int | None = None,
        data_context: DataContext | None = None,
    ) -> list[ReadTask]:
        """One task for each plan, whatever parallelism Ray asks for."""
        tasks = []
        for plan in self._plans:
            read = functools.partial(_read_encoded, self._corpus, plan, self._rules)
            metadata = BlockMetadata(
                num_rows=len(plan.units), size_bytes=None, input_files=None, exec_stats=None
            )
            tasks.append(ReadTask(read, metadata))
        return tasks


def _read_encoded(corpus: Location, plan: ReadPlan, pickled: bytes) -> Iterator[pa.Table]:
    # Ray runs many of these side by side; threads inside each would only be in the way.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    rules = _rules(pickled)
    columns = dict.fromkeys(rules.format.columns.values())
    for unit, table in zip(plan.units, read_units(corpus, plan, list(columns)), strict=True):
        values = [values_of(table[name]) for name in columns]
        rows = (dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True))
        encoded = encoded_table(rules.encoder.encode([rules.format.render(row) for row in rows]))
        relative = plan.shard.file.relative
        yield _unit_row(relative, unit.start, plan.shard.piece(unit), encoded)


class ScoreUnits:
    """An actor that holds the model and scores one unit at a time."""

    def __init__(self, rules: EngineRules, tally: Any) -> None:
        # Only a scoring actor pays for importing torch.
        from sf_ray.engine import Engine

        self._engine = Engine(
            rules.model.resolve().path,
            device=rules.device,
            dtype=rules.dtype,
            token_budget=rules.token_budget,
            threads=rules.threads,
            trust_remote_code=rules.model.trust_remote_code,
        )
        self._tally = tally

    def __call__(self, unit: pa.Table) -> pa.Table:
        """One encoded unit -> the same unit's score table."""
        from sf_ray.scoring import score_encoded

        assert unit.num_rows == 1, "a batch is one unit"
        shard, start = unit["shard"][0].as_py(), unit["start"][0].as_py()
        encoded = _rows_of(unit)
        splits = self._engine.oom_splits
        table = score_encoded(self._engine, shard, start, encoded, self._count_batch)
        self._tally.unit_scored.remote(encoded.num_rows, self._engine.oom_splits - splits)
        return _unit_row(shard, start, unit["piece"][0].as_py(), table)

    def _count_batch(self, sequences: int, tokens: int) -> None:
        self._tally.batch_scored.remote(sequences, tokens)


class PieceSink(Datasink[None]):  # type: ignore[misc]
    """Puts each unit's scores whole under their final name; doing so twice changes nothing."""

    def __init__(self, scores: Location) -> None:
        self._scores = scores

    def get_name(self) -> str:
        """Name of the operator in Ray's plan and dashboard."""
        return "Pieces"

    def write(self, blocks: Iterable[pa.Table], ctx: Any) -> None:
        """Writes every unit of every block."""
        for block in blocks:
            for index in range(block.num_rows):
                unit = block.slice(index, 1)
                put_table(self._scores.join(unit["piece"][0].as_py()), _rows_of(unit))


def scoring_dataset(
    corpus: Location,
    plans: Sequence[ReadPlan],
    encode: EncodeRules,
    engine: EngineRules,
    pool: ActorPool,
    tally: Any,
) -> ray.data.Dataset:
    """The lazy dataset of scored units."""
    _quiet_context()
    return ray.data.read_datasource(
        UnitSource(corpus, plans, encode),
        override_num_blocks=len(plans),
        # Where the needs of both are equal, Ray fuses reading into the actor, which would then
        # wait for storage.
        num_cpus=0.5 if pool.num_cpus != 0.5 else 0.4,
    ).map_batches(
        ScoreUnits,
        fn_constructor_args=(engine, tally),
        batch_size=1,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(
            min_size=pool.min_size, max_size=pool.max_size, initial_size=pool.initial_size
        ),
        num_cpus=pool.num_cpus,
        num_gpus=pool.num_gpus or None,
    )


def write_pieces(scored: ray.data.Dataset, scores: Location) -> None:
    """Runs the dataset and puts every unit's piece.

    Raises:
        SfRayError: What a task or an actor says is wrong.
    """
    with user_errors():
        scored.write_datasink(PieceSink(scores), ray_remote_args={"num_cpus": 0.25})


def parallel_map(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
    """Applies a function to items in Ray tasks; yields results as they come, in no order."""
    if not items:
        return
    _quiet_context()

    def apply(row: dict[str, Any]) -> dict[str, bytes]:
        return {"result": pickle.dumps(function(pickle.loads(row["item"])))}

    rows = [{"item": pickle.dumps(item)} for item in items]
    results = ray.data.from_items(rows, override_num_blocks=len(rows)).map(apply)
    with user_errors():
        for row in results.iter_rows():
            yield pickle.loads(row["result"])


def _quiet_context() -> None:
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # A block leaves a task as soon as it holds one unit, so that nothing waits for a full one.
    context.target_max_block_size = 1


@contextmanager
def user_errors() -> Iterator[None]:
    """Turns the failure of a task or an actor into the error that it says.

    What reaches the driver may be text only (an actor that died while it started): the last error
    of ours in it, or else its last line, is the message.
    """
    try:
        yield
    except RayError as error:
        text = str(error).strip()
        ours = re.findall(r"^sf_ray\.errors\.\w+: (.+)$", text, re.MULTILINE)
        raise SfRayError(
            ours[-1] if ours else f"a Ray task failed: {text.splitlines()[-1]}"
        ) from error
