"""Selecting as float32 does, in this process: no Ray and no model, but real pieces."""

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sf_ray.config.options import RunOptions
from sf_ray.corpus.planning import Corpus
from sf_ray.corpus.units import Shard
from sf_ray.encoding.specs import EncodingSpec, ModelSpec
from sf_ray.scoring.engine_spec import EngineSpec
from sf_ray.scoring.run import Scoring
from sf_ray.scoring.score_set import (
    ScoreSet,
    ShardUnits,
    describe,
    score_set_of,
)
from sf_ray.scoring.score_table import SCORE_ENCODING, SCORE_SCHEMA
from sf_ray.scoring.stages.tally import Scored
from sf_ray.selection import run as selection_run
from sf_ray.selection.corpus_pass import CorpusPass
from sf_ray.selection.exact import rescoring_tasks
from sf_ray.selection.exact import run as exact_run
from sf_ray.selection.exact.bands import length_of
from sf_ray.selection.exact.run import ExactSelection, select_exactly
from sf_ray.selection.run import select_rows
from sf_ray.storage.files import File, put_table
from sf_ray.storage.location import Location
from tests.support.scored import InThisProcess

# The largest error of each length of answer. Each row has at least half of it, so that the band,
# which is twice the largest of any sample, is never too narrow.
ERRORS = np.array([0.05, 0.03, 0.015, 0.008])
COLUMNS = {"instruction": "instruction", "output": "output"}
IDENTITY = {"unit_rows": 16, "format": "alpaca", "columns": COLUMNS}


@dataclass
class Scenario:
    """A corpus whose scores are known in both types, and what was scored of it in float32.

    Attributes:
        ifd: [n] in float32; NaN where a row has no score.
        fast: [n] in the fast type.
        tokens: [n] of the answers.
        scored: Row numbers of each time that rows were scored again.
    """

    ifd: np.ndarray
    fast: np.ndarray
    tokens: np.ndarray
    scored: list[list[int]] = field(default_factory=list)

    @classmethod
    def random(cls, seed: int, rows: int, spread: float) -> "Scenario":
        rng = np.random.default_rng(seed)
        tokens = rng.choice([3, 20, 100, 500], rows)
        size = ERRORS[length_of(tokens)] * rng.uniform(0.5, 1, rows)
        ifd = np.round(np.exp(rng.normal(-0.1, spread, rows)), 3)  # rounded: some rows are equal
        ifd[rng.random(rows) < 0.03] = np.nan
        return cls(ifd, ifd * np.exp(size * rng.choice([-1, 1], rows)), tokens)

    @property
    def corpus(self) -> Corpus:
        """Two shards, the first one with a third of the rows."""
        first = len(self.ifd) // 3
        shards = (
            Shard(File("/a", "a.parquet", 9, "1"), (first,), 0),
            Shard(File("/b", "b.parquet", 9, "1"), (len(self.ifd) - first,), first),
        )
        return Corpus(Location("memory://corpus"), shards, pa.schema([]))

    def put(
        self, score_set: ScoreSet, units: ShardUnits, ifd: np.ndarray, only: Any = None
    ) -> None:
        """Writes the pieces of units, with all rows or only some."""
        for shard, shard_units in units:
            for unit in shard_units:
                piece = shard.piece(unit)
                rows = np.arange(unit.start, unit.stop)
                if only is not None:
                    rows = rows[only.flags(piece, unit.rows)]
                at = shard.position + rows
                columns = {
                    "shard": [shard.file.relative] * len(rows),
                    "row": rows,
                    "status": np.where(np.isnan(ifd[at]), "bad_row", "ok"),
                    "answer_tokens": self.tokens[at],
                    "truncated": [False] * len(rows),
                    "ifd": pa.array(ifd[at], from_pandas=True),
                }
                empty = {name: pa.nulls(len(rows), SCORE_SCHEMA.field(name).type)
                         for name in SCORE_SCHEMA.names}  # fmt: skip
                table = pa.table(empty | columns, schema=SCORE_SCHEMA)
                put_table(score_set.pieces.join(piece), table, SCORE_ENCODING)

    def score_units(
        self, options: RunOptions, corpus: Corpus, scoring: Scoring, todo: ShardUnits
    ) -> tuple[Corpus, Scored]:
        """Stands for scoring: float32 scores of the rows that are asked for."""
        assert scoring.engine.dtype == "float32"
        assert scoring.rows is not None
        self.put(scoring.score_set, todo, self.ifd, scoring.rows)
        self.scored.append(rows_of(scoring))
        return corpus, Scored()


def rows_of(scoring: Scoring) -> list[int]:
    assert scoring.rows is not None
    return [len(bits) for bits in scoring.rows.bits.values()]


def options_of(**options: Any) -> RunOptions:
    places = {"input": "/in", "output": "/out", "model": "m", "max_bad_fraction": 1.0}
    return RunOptions(**places, exact=True, **options)


def scoring_of(scenario: Scenario, place: Location, dtype: str = "bfloat16") -> Scoring:
    """The scoring of the whole corpus in a type, which is done."""
    score_set = score_set_of(place, IDENTITY | {"dtype": dtype})
    describe(score_set, "m")
    ifd = scenario.ifd if dtype == "float32" else scenario.fast
    scenario.put(score_set, score_set.units(scenario.corpus), ifd)
    engine = EngineSpec(ModelSpec("m", "m"), "cpu", dtype)
    return Scoring(cast(EncodingSpec, None), engine, score_set)


def kept(scenario: Scenario, selection: Any) -> list[int]:
    return [
        position
        for chunk in selection.chunks()
        for position in chunk.positions[~np.isnan(selection.kept.read(chunk).ifd)]
    ]


@pytest.fixture(scope="module", autouse=True)
def _in_this_process() -> Iterator[None]:
    def here(pieces: Location, skip_bad: bool, stall_s: float) -> CorpusPass:
        return cast(CorpusPass, InThisProcess(pieces, skip_bad, stall_s))

    def each(function: Callable[[Any], Any], items: Sequence[Any], stall_s: float) -> Iterator[Any]:
        return map(function, items)

    with pytest.MonkeyPatch.context() as patch:
        for module in (selection_run, exact_run):
            patch.setattr(module, "CorpusPass", here)
        patch.setattr(rescoring_tasks, "parallel_map", each)
        yield


def exactly(scenario: Scenario, options: RunOptions, place: Location) -> ExactSelection:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact_run, "score_units", scenario.score_units)
        return select_exactly(options, scoring_of(scenario, place), scenario.corpus)


def somewhere() -> Location:
    return Location(f"memory://{uuid.uuid4().hex}")


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(3, 150),
    spread=st.sampled_from([0.05, 0.3]),
    asked=st.sampled_from(
        [
            {"keep_fraction": 0.05},
            {"keep_fraction": 0.1},
            {"keep_fraction": 0.15},
            {"keep_fraction": 0.3},
            {"keep_fraction": 1.0, "min_ifd": 0.8},
            {"keep_count": 2, "max_ifd": 0.9, "min_answer_tokens": 9},
        ]
    ),
    sample=st.sampled_from([1, 16, 64]),
)
def test_the_selection_is_that_of_float32(
    seed: int, rows: int, spread: float, asked: dict[str, Any], sample: int
) -> None:
    scenario, options = (
        Scenario.random(seed, rows, spread),
        options_of(**asked, exact_sample=sample),
    )
    truth = select_rows(
        options, scenario.corpus, scoring_of(scenario, somewhere(), "float32").score_set
    )
    selection, rescoring = exactly(scenario, options, somewhere())
    assert kept(scenario, selection) == kept(scenario, truth)
    assert selection.ranking.eligible == truth.ranking.eligible
    assert rescoring.sampled <= rescoring.rows <= rows
