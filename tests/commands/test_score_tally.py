"""A tally of scores, against what numpy and Arrow find in all of the rows at once."""

import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from bench.support import free_scorer
from sf_ray.commands.score_tally import VALUES, Quantiles, ScoreTally

SHARES = (0, 0.01, 0.25, 0.5, 0.95, 1)


@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(0).lognormal(1, 3, 5000),
        np.random.default_rng(1).uniform(0.3, 1.4, 999),
        np.array([7.0]),
        np.array([0.0, 1e-300, 1.0, 1.0, 1.0, 1e300]),
        np.full(100, 0.123456789),
    ],
    ids=["long tail", "narrow", "one", "far apart", "all equal"],
)
def test_quantiles_are_those_of_numpy_to_four_digits(values: np.ndarray) -> None:
    quantiles = Quantiles()
    for part in np.array_split(values, 7):
        quantiles.add(part)
    assert quantiles.values == len(values)
    found = [quantiles.at(share) for share in SHARES]
    np.testing.assert_allclose(found, np.quantile(values, SHARES), rtol=1.6e-5, atol=1e-300)


def table(shard: int, rows: int = 2048) -> pa.Table:
    """Scores of which every fifth row has none."""
    scores = free_scorer.free_scores(
        f"{shard:05d}.parquet", 0, rows, pa.chunked_array([np.full(rows, 9, np.int32)])
    )
    is_ok = pa.array(np.arange(rows) % 5 > 0)
    for name in ("status", *VALUES):
        none = pa.scalar("bad_row" if name == "status" else None, scores[name].type)
        at = scores.schema.get_field_index(name)
        scores = scores.set_column(
            at, scores.schema.field(at), pc.if_else(is_ok, scores[name], none)
        )
    return scores


def test_counts_and_rows_are_those_of_all_tables_at_once() -> None:
    tables = [table(0), table(1, rows=0), table(2), table(3)]
    tally = ScoreTally(top=5, status="bad_row", examples=3)
    for part in tables:
        tally.add(part)
    whole = pa.concat_tables(tables)
    assert (tally.rows, tally.tables) == (whole.num_rows, 3)
    assert tally.statuses == {"ok": pc.count(whole["ifd"]).as_py(), "bad_row": 3 * 410}
    best = whole.sort_by([("ifd", "descending")]).filter(pc.less(pc.field("ifd"), 1)).slice(0, 5)
    assert tally.best["ifd"].to_pylist() == best["ifd"].to_pylist()
    assert tally.best["row"].to_pylist() == best["row"].to_pylist()
    assert tally.with_status["row"].to_pylist() == [0, 5, 10]
    assert tally.with_status["shard"].to_pylist() == ["00000.parquet"] * 3


def test_equally_good_rows_are_shown_in_the_order_of_their_places() -> None:
    scores = table(0, rows=100)
    at = scores.schema.get_field_index("ifd")
    equal = scores.set_column(at, scores.schema.field(at), pa.array([0.5] * 100))
    tally = ScoreTally(top=3)
    for part in (equal.slice(50), equal.slice(0, 50)):
        tally.add(part)
    assert tally.best["row"].to_pylist() == [0, 1, 2]


def test_nothing_asked_for_is_kept_of_no_table() -> None:
    tally = ScoreTally()
    assert (tally.rows, tally.best.num_rows, tally.with_status.num_rows) == (0, 0, 0)
    assert not tally.quantiles["ifd"].values


def test_a_tally_of_many_rows_is_as_large_as_one_of_few() -> None:
    def size(tables: int) -> int:
        tracemalloc.start()
        tally = ScoreTally(top=10, status="bad_row", examples=10)
        for _ in range(tables):
            tally.add(table(0))
        held = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        return held

    size(1)  # what is imported and cached once
    assert abs(size(40) - size(4)) < 100_000
