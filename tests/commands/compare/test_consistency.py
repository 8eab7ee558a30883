import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from sf_ray.commands.compare.consistency import (
    Agreement,
    Overlap,
    ScoreColumns,
    best_rows,
    consistency_of,
    sampled,
)
from sf_ray.config.quotas import rows_to_keep

# Few distinct values, so that ties are the rule; NaN is a row without a score.
some = st.one_of(st.sampled_from([0.25, 0.5, 0.999999, 1.0, 1.5]), st.floats(0.001, 3))
scores = st.lists(st.tuples(*[st.one_of(st.just(float("nan")), some)] * 2), max_size=150)


def by_hand(ifd: np.ndarray, wanted: int, max_ifd: float) -> set[int]:
    eligible = [row for row, value in enumerate(ifd) if value < max_ifd]
    return set(sorted(eligible, key=lambda row: (-ifd[row], row))[:wanted])


@given(scores, st.sampled_from([0.05, 0.1, 0.3, 1.0]), st.sampled_from([0.6, 1.0, 5.0]))
def test_overlap_is_that_of_sorting_by_hand(
    values: list[tuple[float, float]], fraction: float, max_ifd: float
) -> None:
    a, b = np.array(values).reshape(-1, 2).T
    found = consistency_of(ScoreColumns(a, a, a), ScoreColumns(b, b, b), [fraction], max_ifd)
    wanted = rows_to_keep(len(values), fraction)
    kept_a, kept_b = by_hand(a, wanted, max_ifd), by_hand(b, wanted, max_ifd)
    assert found.overlaps == (
        Overlap(fraction, wanted, len(kept_a), len(kept_b), len(kept_a & kept_b)),
    )
    assert found.rows == int((~np.isnan(a) & ~np.isnan(b)).sum())


def test_each_score_is_correlated_with_its_own_over_rows_that_are_ok_on_both_sides() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((3, 50)), rng.random((3, 50))
    a[:, 7] = b[:, 9] = np.nan
    found = consistency_of(ScoreColumns(*a), ScoreColumns(*b), [], 1.0)
    ok = np.delete(np.arange(50), [7, 9])
    expected = [spearmanr(a[i, ok], b[i, ok]).statistic for i in range(3)]
    assert [found.ppl_direct, found.ppl_conditioned, found.ifd] == pytest.approx(expected)


def test_overlap_is_of_the_smaller_selection() -> None:
    assert Overlap(0.1, 10, 10, 4, 3).share == 0.75
    assert np.isnan(Overlap(0.1, 10, 10, 0, 0).share)


def test_equal_scores_are_selected_in_the_order_of_the_corpus() -> None:
    ifd = np.array([0.5, 0.9, np.nan, 0.9, 1.0, 0.5])
    assert best_rows(ifd, 1.0).tolist() == [1, 3, 0, 5]


@given(scores, st.integers(0, 150))
def test_agreement_adds_up_over_parts(values: list[tuple[float, float]], cut: int) -> None:
    a, b = np.array(values).reshape(-1, 2).T
    whole = Agreement.of(a, b)
    assert Agreement.of(a[:cut], b[:cut]) + Agreement.of(a[cut:], b[cut:]) == whole
    known = [(x, y) for x, y in values if x == x and y == y]
    assert whole.rows == len(known)
    assert (whole.both, whole.only_a) == (
        sum(x >= 1 and y >= 1 for x, y in known),
        sum(x >= 1 > y for x, y in known),
    )
    if known:
        same = sum((x >= 1) == (y >= 1) for x, y in known)
        assert whole.share == pytest.approx(same / len(known))
    else:
        assert np.isnan(whole.share)


def test_a_sample_is_the_same_however_it_is_read_and_of_its_size() -> None:
    rows = np.arange(100_000)
    chosen = sampled("train/00001.parquet", rows, 0.2)
    parts = [sampled("train/00001.parquet", part, 0.2) for part in np.array_split(rows, 7)]
    assert np.array_equal(chosen, np.concatenate(parts))
    assert chosen.mean() == pytest.approx(0.2, abs=0.005)
    # Of another shard others, and in no step with the row numbers.
    other = sampled("train/00002.parquet", rows, 0.2)
    assert (chosen & other).mean() == pytest.approx(0.04, abs=0.004)
    assert chosen[::2].mean() == pytest.approx(0.2, abs=0.01)
    assert not (sampled("train/00001.parquet", rows, 0.1) & ~chosen).any()
