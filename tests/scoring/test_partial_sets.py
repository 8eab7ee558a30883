import uuid

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sf_ray.corpus.units import Place
from sf_ray.scoring.partial_sets import RowSet, mixed_set, sample_set
from sf_ray.scoring.score_set import ScoreSet, describe, find_score_set
from sf_ray.storage.location import Location
from tests.support.score_sets import identity
from tests.support.scored import shards_of

UNITS = shards_of(21, 9, unit_rows=10)
PLACES = [Place(shard, unit) for shard, units in UNITS for unit in units]
NAMES = [shard.piece(unit) for shard, unit in PLACES]
# Which of all rows are in a set.
FLAGS = st.lists(st.booleans(), min_size=30, max_size=30).map(np.array)


def set_of(flags: np.ndarray) -> RowSet:
    edges = np.cumsum([unit.rows for _, unit in PLACES])[:-1]
    return RowSet.of_flags(dict(zip(NAMES, np.split(flags, edges), strict=True)))


def flags_of(rows: RowSet) -> np.ndarray:
    of_units = zip(NAMES, PLACES, strict=True)
    return np.concatenate([rows.flags(name, unit.rows) for name, (_, unit) in of_units])


@given(a=FLAGS, b=FLAGS)
def test_sets_of_rows_are_sets(a: np.ndarray, b: np.ndarray) -> None:
    assert (flags_of(set_of(a)) == a).all()
    assert len(set_of(a)) == a.sum()
    assert (flags_of(set_of(a) | set_of(b)) == (a | b)).all()
    assert (flags_of(set_of(a) - set_of(b)) == (a & ~b)).all()
    assert (set_of(a).digest == set_of(b).digest) == (a == b).all()
    assert set_of(a) - set_of(a) == RowSet({})


def test_only_units_with_rows_are_held_counted_and_listed() -> None:
    flags = np.zeros(30, bool)
    flags[[3, 20, 25, 26]] = True  # units 0 and 2 of the first shard, the one unit of the second
    rows = set_of(flags)
    (a, (first, second, third)), (b, (only,)) = UNITS
    assert {*rows.bits} == {a.piece(first), a.piece(third), b.piece(only)}
    assert rows.units(UNITS) == [(a, [first, third]), (b, [only])]
    assert set_of(np.zeros(30, bool)).units(UNITS) == []
    assert rows.count([Place(a, second), Place(b, only)]) == 2
    assert len(rows.within([a.piece(first), a.piece(second)])) == 1


@pytest.fixture
def whole() -> ScoreSet:
    """A score set of all rows, which is described; it has no pieces."""
    score_set = ScoreSet(
        Location(f"memory://{uuid.uuid4().hex}"), "whole", identity(dtype="float16")
    )
    describe(score_set, "m")
    return score_set


def test_a_partial_set_is_named_by_its_origin_its_rows_and_its_type(whole: ScoreSet) -> None:
    rows, other = set_of(np.arange(30) < 5), set_of(np.arange(30) < 6)
    for make in (sample_set, mixed_set):
        made = make(whole, rows, "float32")
        assert made.scoring_id == make(whole, rows, "float32").scoring_id
        assert made.scoring_id != make(whole, other, "float32").scoring_id
        assert made.scoring_id != make(whole, rows, "float64").scoring_id
        # The next run begins with the set of all rows, so shards are marked there.
        assert made.marks == whole.pieces
    assert sample_set(whole, rows, "float32").identity["dtype"] == "float32"
    assert mixed_set(whole, rows, "float32").identity["dtype"] == "float16"


def test_a_partial_set_is_never_chosen_by_itself(whole: ScoreSet) -> None:
    rows = set_of(np.arange(30) < 5)
    mixed = mixed_set(whole, rows, "float32")
    for made in (mixed, sample_set(whole, rows, "float32")):
        describe(made, "m")
    assert find_score_set(whole.location, None) == whole
    assert find_score_set(whole.location, mixed.scoring_id) == mixed
