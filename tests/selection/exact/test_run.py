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

from sf_ray.config.selection_options import RunOptions
from sf_ray.corpus.planning import Corpus
from sf_ray.corpus.units import Place, Shard, units_of
from sf_ray.encoding.specs import EncodingSpec, ModelSpec
from sf_ray.scoring.engine_spec import EngineSpec
from sf_ray.scoring.pieces import read_tables
from sf_ray.scoring.run import Scoring
from sf_ray.scoring.score_set import (
    EXACT,
    SAMPLE,
    ScoreSet,
    ShardUnits,
    describe,
    find_score_set,
    score_set_of,
)
from sf_ray.scoring.score_table import SCORE_ENCODING, SCORE_SCHEMA
from sf_ray.scoring.stages.tally import Scored
from sf_ray.selection import run as selection_run
from sf_ray.selection.corpus_pass import CorpusPass, MarkedBadError
from sf_ray.selection.exact import rescoring_tasks
from sf_ray.selection.exact import run as exact_run
from sf_ray.selection.exact.bands import length_of
from sf_ray.selection.exact.run import ExactSelection, select_exactly
from sf_ray.selection.read_tables import ReadTables
from sf_ray.selection.run import select_rows
from sf_ray.selection.selection import Selection
from sf_ray.storage.files import put_table
from sf_ray.storage.listing import File, list_files
from sf_ray.storage.location import Location
from tests.support.scored import InThisProcess

# The largest error of each length of answer. Each row has at least half of it, so that the band,
# which is twice the largest of any sample, is never too narrow.
ERRORS = np.array([0.05, 0.03, 0.015, 0.008])
COLUMNS = {"instruction": "instruction", "output": "output"}
IDENTITY: dict[str, Any] = {
    "alignment": "reference",
    "max_length": 1024,
    "unit_rows": 16,
    "format": "alpaca",
    "columns": COLUMNS,
}


@dataclass
class Scenario:
    """A corpus whose scores are known in both types, and what was scored of it in float32.

    Attributes:
        ifd: [n] in float32; NaN where a row has no score.
        fast: [n] in the fast type.
        tokens: [n] of the answers.
        scored: How many rows were scored again, for each time that some were.
    """

    ifd: np.ndarray
    fast: np.ndarray
    tokens: np.ndarray
    scored: list[int] = field(default_factory=list)

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
        return Corpus(Location("memory://corpus"), shards, (pa.schema([]),))

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
        self.scored.append(scoring.count_rows(todo))
        return corpus, Scored()


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


def kept(selection: Selection) -> list[int]:
    """Positions of the kept rows."""
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
        # Tests of other files may have started Ray; nothing is left in its object store here.
        patch.setattr(ReadTables, "with_room", lambda rows: None)
        yield


def exactly(scenario: Scenario, options: RunOptions, place: Location) -> ExactSelection:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact_run, "score_units", scenario.score_units)
        return select_exactly(options, scoring_of(scenario, place), scenario.corpus)


def places(scenario: Scenario) -> list[Place]:
    return [
        Place(shard, unit)
        for shard in scenario.corpus.shards
        for unit in units_of(shard.row_groups, IDENTITY["unit_rows"])
    ]


def ids_of(place: Location, key: str) -> dict[int, str]:
    """The sets whose identity has a key: rows that were chosen -> scoring id."""
    names = [file.relative for file in list_files(place, "identity.json")]
    sets = [find_score_set(place, name.partition("/")[0]) for name in names]
    return {it.identity[key]["rows"]: it.scoring_id for it in sets if key in it.identity}


def mixed_ids(place: Location) -> dict[int, str]:
    return ids_of(place, EXACT)


def sample_ids(place: Location) -> dict[int, str]:
    return ids_of(place, SAMPLE)


def pieces_of(place: Location, scoring_id: str) -> list[str]:
    names = [file.relative for file in list_files(place, ".parquet")]
    return [name for name in names if name.startswith(scoring_id)]


def somewhere() -> Location:
    return Location(f"memory://{uuid.uuid4().hex}")


@settings(max_examples=40)
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
    assert kept(selection) == kept(truth)
    assert selection.ranking.eligible == truth.ranking.eligible
    assert rescoring.sampled <= rescoring.rows <= rows


def test_most_rows_of_a_corpus_keep_the_scores_of_the_fast_type() -> None:
    scenario, place = Scenario.random(0, 1500, 0.3), somewhere()
    _, rescoring = exactly(scenario, options_of(keep_fraction=0.1, exact_sample=64), place)
    assert rescoring.sampled == 64
    assert rescoring.rows == sum(scenario.scored) < 600
    assert rescoring.rounds == len(scenario.scored) - 1
    table = pa.concat_tables(read_tables(rescoring.score_set.pieces, places(scenario), ["ifd"]))
    is_exact = table["ifd"].to_numpy() == scenario.ifd
    has_score = ~np.isnan(scenario.ifd)
    assert is_exact[has_score].sum() == rescoring.rows
    assert (table["ifd"].to_numpy() == scenario.fast)[has_score & ~is_exact].all()


def test_an_error_that_all_rows_share_moves_the_cut_and_takes_another_round() -> None:
    ifd = np.linspace(0.3, 0.99, 400)
    scenario = Scenario(ifd, ifd * np.exp(-0.02), np.full(400, 50))
    options = options_of(keep_fraction=0.3, exact_sample=16)
    selection, rescoring = exactly(scenario, options, somewhere())
    assert rescoring.rounds > 1
    assert kept(selection) == list(range(280, 400))


def test_the_same_again_scores_nothing_and_another_sample_shares_no_pieces() -> None:
    scenario, place = Scenario.random(1, 300, 0.3), somewhere()
    options = options_of(keep_fraction=0.1, exact_sample=32)
    selection, rescoring = exactly(scenario, options, place)
    before = len(scenario.scored)
    again, same = exactly(scenario, options, place)
    assert len(scenario.scored) == before
    assert (kept(again), same) == (kept(selection), rescoring)
    other = options_of(keep_fraction=0.1, exact_sample=64)
    assert exactly(scenario, other, place).rescoring.sampled == 64
    assert scenario.scored[before] == 64


def test_what_a_killed_run_has_scored_is_not_scored_again() -> None:
    scenario, place = Scenario.random(2, 300, 0.3), somewhere()
    options = options_of(keep_fraction=0.1, exact_sample=32)
    done, rescoring = exactly(scenario, options, place)
    # As if the run had ended in the middle of the last round, and another one in that of mixing.
    mixed = mixed_ids(place)[rescoring.rows]
    last = sample_ids(place)[scenario.scored[-1]]
    removed = [*pieces_of(place, last)[::2], *pieces_of(place, mixed)[::2]]
    assert len(removed) > 2
    for piece in removed:
        place.fs.rm(place.join(piece).path)
    rounds = len(scenario.scored)
    again, same = exactly(scenario, options, place)
    assert len(scenario.scored) == rounds + 1
    assert 0 < scenario.scored[-1] < scenario.scored[-2]
    assert (kept(again), same) == (kept(done), rescoring)


def test_a_shard_that_turns_out_to_be_bad_ends_the_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = Scenario.random(3, 100, 0.3)

    def lose_a_shard(
        options: RunOptions, corpus: Corpus, scoring: Scoring, todo: ShardUnits
    ) -> tuple[Corpus, Scored]:
        return corpus.without({corpus.shards[0].shard_id: "cut off"}), Scored()

    monkeypatch.setattr(exact_run, "score_units", lose_a_shard)
    scoring = scoring_of(scenario, somewhere())
    with pytest.raises(MarkedBadError):
        select_exactly(options_of(keep_fraction=0.1), scoring, scenario.corpus)


def test_each_set_says_what_it_is_made_of() -> None:
    scenario, place = Scenario.random(4, 300, 0.3), somewhere()
    options = options_of(keep_fraction=0.1, exact_sample=32)
    _, rescoring = exactly(scenario, options, place)
    whole, mixed = find_score_set(place, None), rescoring.score_set
    assert whole.identity["dtype"] == mixed.identity["dtype"] == "bfloat16"
    assert mixed.identity[EXACT]["of"] == whole.scoring_id
    assert mixed_ids(place)[rescoring.rows] == mixed.scoring_id
    assert sorted(sample_ids(place)) == sorted(scenario.scored)
    for scoring_id in sample_ids(place).values():
        assert find_score_set(place, scoring_id).identity["dtype"] == "float32"
