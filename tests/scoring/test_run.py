"""Scoring on a cluster is tested in tests/end_to_end; here, what needs none."""

import uuid
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from sf_ray.corpus.planning import plan_corpus
from sf_ray.encoding.specs import EncodingSpec, ModelSpec
from sf_ray.errors import SfRayError
from sf_ray.scoring.engine_spec import EngineSpec
from sf_ray.scoring.partial_sets import RowSet
from sf_ray.scoring.run import (
    Scoring,
    _scored,
    _without_bad_shards,
    share_units,
)
from sf_ray.scoring.score_set import mark_bad, score_set_of
from sf_ray.scoring.stages.tally import RunCounts
from sf_ray.storage.files import put_bytes
from sf_ray.storage.location import Location


def test_shards_that_were_marked_are_left_out_and_each_is_said_once(
    corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = plan_corpus(Location(str(corpus)))
    score_set = score_set_of(Location(f"memory://{uuid.uuid4().hex}"), {"unit_rows": 4})
    assert _without_bad_shards(plan, score_set) == plan
    mark_bad(score_set.pieces, plan.shards[1].stem, "cut off")
    left = _without_bad_shards(plan, score_set)
    assert [shard.file for shard in left.shards] == [plan.shards[0].file, plan.shards[2].file]
    assert _without_bad_shards(left, score_set) == left
    name = plan.shards[1].file.relative
    assert capsys.readouterr().err.splitlines() == [f"note: skipping shard {name}: cut off"]
    for shard in left.shards:
        mark_bad(score_set.pieces, shard.stem, "cut off too")
    with pytest.raises(SfRayError, match="no shard can be read to its end, e.g. "):
        _without_bad_shards(left, score_set)


def test_scoring_of_some_rows_misses_only_units_that_have_them(corpus: Path) -> None:
    plan = plan_corpus(Location(str(corpus)))
    score_set = score_set_of(Location(f"memory://{uuid.uuid4().hex}"), {"unit_rows": 8})
    shard, units = score_set.units(plan)[1]
    rows = RowSet.of_flags(
        {shard.piece(unit): np.arange(unit.rows) < 2 for unit in (units[0], units[2])}
    )
    engine = EngineSpec(ModelSpec("m", "hash"), "cpu", "float32")
    scoring = Scoring(cast(EncodingSpec, None), engine, score_set, rows)
    todo = [(shard, [units[0], units[2]])]
    assert scoring.missing(plan) == todo
    assert scoring.count_rows(todo) == 4
    put_bytes(score_set.pieces.join(shard.piece(units[0])), b"a piece")
    assert scoring.missing(plan) == [(shard, [units[2]])]
    with_tokens = replace(scoring, engine=replace(engine, token_losses=True))
    assert with_tokens.missing(plan) == todo
    # No row at all is not the same as all rows.
    assert replace(scoring, rows=RowSet({})).missing(plan) == []
    whole = replace(scoring, rows=None)
    assert whole.count_rows(whole.missing(plan)) == 120 - units[0].rows


def test_the_work_of_all_attempts_is_added_up(capsys: pytest.CaptureFixture[str]) -> None:
    attempts = [
        RunCounts(units=3, unit_tokens=900, tokens_saved=100, oom_splits=1),
        RunCounts(units=2, unit_tokens=100, oom_splits=1),
    ]
    scored = _scored(attempts)
    assert (scored.units, scored.tokens, scored.tokens_saved) == (5, 1000, 100)
    saved, memory = capsys.readouterr().err.splitlines()
    assert saved.startswith("note: 100 of 1,000 tokens (10.0%) repeat what other sequences")
    assert memory.startswith(
        "note: the device ran out of memory 2 times; those batches were halved"
    )


@pytest.mark.parametrize(
    ("units", "actors", "cpus", "shared"),
    [
        (100_000, 8, 128, (64, 4)),  # so many bundles that every core gets several reads
        (2_000, 8, 128, (31, 1)),  # a task for each bundle, so that no core is without one
        (2_000, 1, 2, (64, 4)),
        (3, 8, 128, (1, 1)),
    ],
)
def test_reading_is_cut_into_a_task_for_each_cpu_where_there_are_enough_bundles(
    units: int, actors: int, cpus: int, shared: tuple[int, int]
) -> None:
    assert share_units(units, actors, cpus) == shared
