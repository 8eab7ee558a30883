import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sf_ray.selection.diversity import facility_location
from sf_ray.selection.diversity.facility_location import (
    EXACT_ROWS,
    coverage,
    greedy,
    objective,
)
from tests.support.embeddings import brute_force, on_the_sphere, seeds, whole


@given(whole, st.integers(0, 30))
def test_greedy_is_that_of_the_definition_and_ties_go_to_the_earlier_row(
    embeddings: np.ndarray, budget: int
) -> None:
    chosen = greedy(embeddings, budget)
    rows, gains = brute_force(embeddings, budget)
    assert chosen.rows.tolist() == rows
    assert chosen.gains.tolist() == gains
    assert objective(embeddings, chosen.rows) == sum(gains)


@given(st.integers(1, 60), st.integers(1, 60), seeds)
def test_gains_of_real_vectors_are_those_of_the_definition_but_for_rounding(
    n: int, budget: int, seed: int
) -> None:
    embeddings = on_the_sphere(n, 5, seed)
    chosen = greedy(embeddings, budget)
    # Where two rows are all but equal, rounding may take either: after that the paths differ, so
    # each step is held against the best one from where it stands.
    similarity = np.maximum(embeddings.astype(float) @ embeddings.astype(float).T, 0)
    best = np.zeros(n)
    for row, gain in zip(chosen.rows, chosen.gains, strict=True):
        gains = np.maximum(similarity - best, 0).sum(axis=1)
        assert gain == pytest.approx(gains[row], rel=1e-5, abs=1e-5)
        assert gains[row] == pytest.approx(gains.max(), rel=1e-5, abs=1e-5)
        best = np.maximum(best, similarity[row])
    assert len(set(chosen.rows)) == len(chosen.rows) == min(budget, n)
    assert np.all(np.diff(chosen.gains) <= 0)  # not even rounding makes a gain grow


def test_similarities_are_the_same_in_blocks_and_in_one_piece() -> None:
    n = 2 * facility_location._BLOCK + 100
    embeddings = np.random.default_rng(0).integers(-1, 2, (n, 6)).astype(np.float32)
    rows, gains = brute_force(embeddings, 40)
    chosen = greedy(embeddings, 40)
    assert chosen.rows.tolist() == rows
    assert chosen.gains.tolist() == gains


def test_coverage_is_the_same_in_blocks_and_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings = on_the_sphere(50, 4, 0)
    expected = np.maximum(embeddings @ embeddings[:7].T, 0).max(axis=1)
    monkeypatch.setattr(facility_location, "_PAIRS", 40)
    np.testing.assert_allclose(coverage(embeddings, embeddings[:7]), expected, rtol=1e-6)
    assert coverage(embeddings, embeddings[:0]).tolist() == [0.0] * 50


def test_rows_that_are_not_finite_are_named() -> None:
    embeddings = on_the_sphere(5, 3, 0)
    embeddings[3, 1] = np.nan
    with pytest.raises(ValueError, match="row 3 of the embeddings is not finite"):
        greedy(embeddings, 2)


def test_too_many_rows_for_all_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match=r"12001 rows are too many .* use diversity.choose"):
        greedy(np.zeros((EXACT_ROWS + 1, 1), np.float32), 1)
