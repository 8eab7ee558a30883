"""Score pieces as selection reads them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from sf_ray.corpus.units import Place, Unit
from sf_ray.errors import SfRayError
from sf_ray.scoring.pieces import read_tables
from sf_ray.selection.cutoffs import Bounds, TokenBounds
from sf_ray.selection.eligible_scores import (
    SCORE_COLUMNS,
    columns_of,
    ifd_within,
    read_checked,
    read_digests,
)
from sf_ray.storage.location import Location
from tests.support.scored import shards_of, write_pieces

UNITS = shards_of(5, unit_rows=3)
PLACES = [Place(shard, unit) for shard, units in UNITS for unit in units]
ROWS = [
    {"ifd": 0.5, "answer_tokens": 4, "digest": b"a" * 8 + b"b" * 8},
    {"ifd": 1.0, "answer_tokens": 9, "digest": b"c" * 16},
    {"status": "bad_row"},
    {"ifd": 0.9, "answer_tokens": 2, "digest": b"a" * 8 + b"b" * 8},
    {"status": "answer_too_short", "digest": b"d" * 16},
]


@pytest.fixture
def scores(tmp_path: Path) -> Location:
    location = Location(str(tmp_path))
    write_pieces(location, UNITS, ROWS)
    return location


@pytest.mark.parametrize(
    ("bounds", "eligible"),
    [
        (Bounds(0, 2), [0.5, 1.0, np.nan, 0.9, np.nan]),
        (Bounds(0.5, 1), [0.5, np.nan, np.nan, 0.9, np.nan]),  # the lower end is included
        (
            Bounds(0, 2, (TokenBounds("answer_tokens", None, 4),)),
            [0.5, np.nan, np.nan, 0.9, np.nan],
        ),
        (Bounds(0, 2, (TokenBounds("answer_tokens", 4, 9),)), [0.5, 1, np.nan, np.nan, np.nan]),
    ],
)
def test_rows_out_of_bounds_and_without_a_score_have_no_ifd(
    scores: Location, bounds: Bounds, eligible: list[float]
) -> None:
    for units in (
        list(read_tables(scores, PLACES, columns_of(bounds))),
        list(read_checked(scores, PLACES, columns_of(bounds))),
        list(read_checked(scores, PLACES, None)),
    ):
        assert [len(unit) for unit in units] == [3, 2]
        ifd = np.concatenate([ifd_within(unit, bounds) for unit in units])
        np.testing.assert_array_equal(ifd, eligible)


def test_checked_scores_have_statuses_and_all_columns_where_no_columns_are_given(
    scores: Location,
) -> None:
    few = pa.concat_tables(read_checked(scores, PLACES, ["ifd"]))
    every = pa.concat_tables(read_checked(scores, PLACES, None))
    assert few.column_names == ["status", "ifd"]
    assert every.column_names == list(SCORE_COLUMNS)
    assert every.select(few.column_names).equals(few)
    assert few["status"].to_pylist() == [row.get("status", "ok") for row in ROWS]


def test_equal_rows_have_equal_digests_and_rows_without_one_say_so(scores: Location) -> None:
    first, second = read_digests(scores, PLACES, ["ifd"])
    assert first.has_digest.tolist() == [True, True, False]
    assert second.has_digest.tolist() == [True, True]
    assert first.digest.shape == (3, 2)
    assert first.digest[0].tolist() == second.digest[0].tolist()
    assert first.digest[0].tolist() != first.digest[1].tolist()
    assert first.scores["ifd"].to_pylist() == [0.5, 1.0, None]


def test_a_piece_of_other_rows_is_an_error_in_the_pass_that_checks_them(tmp_path: Path) -> None:
    location = Location(str(tmp_path))
    write_pieces(location, UNITS, ROWS)
    ((shard, units),) = UNITS
    whole = tmp_path / shard.piece(units[0])
    moved = tmp_path / shard.piece(Unit(1, 4))  # as many rows, but others
    moved.write_bytes(whole.read_bytes())
    places = [Place(shard, Unit(1, 4))]
    with pytest.raises(SfRayError, match="does not hold the rows that its name says"):
        list(read_checked(location, places, ["ifd"]))
    longer = tmp_path / shard.piece(Unit(0, 4))
    longer.write_bytes(whole.read_bytes())
    with pytest.raises(SfRayError, match="does not hold the rows that its name says"):
        list(read_tables(location, [Place(shard, Unit(0, 4))], ["ifd"]))
