import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sf_ray.selection import Candidates, Cutoff, find_cutoff, rows_to_keep

# Few distinct values, so that ties are the rule; NaN is a row without a score.
scores = st.lists(
    st.one_of(
        st.sampled_from([0.0, 0.25, 0.5, 0.5000000001, 0.999999, 1.0, 1.5, float("nan")]),
        st.floats(0, 2),
    ),
    max_size=200,
)


def brute_force(ifd: list[float], wanted: int, low: float, high: float) -> list[int]:
    good = [i for i, value in enumerate(ifd) if low <= value < high]
    return sorted(sorted(good, key=lambda i: (-ifd[i], i))[:wanted])


@given(
    scores,
    st.integers(1, 250),
    st.sampled_from([(0.0, 1.0), (0.25, 1.0), (0.0, 2.0), (0.5, 0.6)]),
    st.sampled_from([2, 3, 16, 1 << 18]),
    st.sampled_from([1, 5, 1000]),
)
def test_the_k_best_are_those_of_sorting(
    values: list[float], wanted: int, bounds: tuple[float, float], bins: int, few: int
) -> None:
    ifd, positions = np.array(values, float), np.arange(len(values))
    start = Candidates.between(*bounds, rows=max(len(values), 1))
    start = Candidates(start.low, start.high, start.first, start.end, bins)

    def count(candidates: Candidates) -> np.ndarray:
        counts = np.zeros(bins, np.int64)
        for part in np.array_split(positions, 3):  # as several tasks would
            found, rows = candidates.count(ifd[part], part)
            counts[found] += rows
        return counts

    def gather(candidates: Candidates) -> tuple[np.ndarray, np.ndarray]:
        bits, where = candidates.select(ifd, positions)
        assert len(bits) <= few
        return bits, where

    expected = brute_force(values, wanted, *bounds)
    counts = count(start)
    assert counts.sum() == len(brute_force(values, len(values), *bounds))
    wanted = min(wanted, int(counts.sum()))
    if not wanted:
        assert expected == []
        return
    cutoff = find_cutoff(start, counts, wanted, count, gather, few)
    assert np.flatnonzero(cutoff.keeps(ifd, positions)).tolist() == expected


def test_rows_without_a_score_are_never_kept() -> None:
    kept = Cutoff(0.0, 5, 1.0).keeps(np.array([np.nan, 0.0, 0.5, 1.0]), np.array([0, 6, 7, 8]))
    assert kept.tolist() == [False, False, True, False]


@pytest.mark.parametrize(
    ("rows", "fraction", "kept"),
    [(999, 0.1, 99), (100, 0.29, 29), (10, 0.05, 0), (7, 1.0, 7), (0, 0.5, 0)],
)
def test_a_fraction_counts_as_it_is_written(rows: int, fraction: float, kept: int) -> None:
    assert rows_to_keep(rows, fraction, None) == kept


def test_a_count_is_a_count() -> None:
    assert rows_to_keep(10, None, 3) == 3
