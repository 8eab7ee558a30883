import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sf_ray.selection.diversity.division import Division, fit_division
from sf_ray.selection.diversity.partition import fit_centres
from sf_ray.selection.near.cells import (
    EmbeddedRows,
    cells_of,
    judge_cells,
    near_a_better_one,
    of_norm_1,
)
from sf_ray.selection.near.greedy import Settled, settle
from tests.support.embeddings import on_the_sphere
from tests.support.near import dropped_by_hand, positions_in


def some_rows(n: int, seed: int, dimensions: int = 8) -> EmbeddedRows:
    """Rows around a few directions, some of them twice, in half precision."""
    rng = np.random.default_rng(seed)
    centres = on_the_sphere(6, dimensions, seed)[rng.integers(0, 6, n)]
    embeddings = of_norm_1(centres + 0.25 * rng.standard_normal((n, dimensions)))
    embeddings[rng.integers(0, n, n // 5)] = embeddings[0]
    values = rng.choice([0.2, 0.4, 0.6, 0.8], n)
    return EmbeddedRows(np.arange(n), values, embeddings.astype(np.float16))


def by_hand(rows: EmbeddedRows, threshold: float) -> list[int]:
    embeddings = rows.embeddings.astype(np.float64)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    cosines = embeddings @ embeddings.T
    return dropped_by_hand(rows.values.tolist(), lambda a, b: cosines[a, b] >= threshold - 1e-6)


def settled_by_cells(
    rows: EmbeddedRows, centres: np.ndarray, threshold: float, most: int
) -> Settled:
    cells = cells_of(of_norm_1(rows.embeddings), centres, threshold, most)
    row, rank = np.nonzero(cells >= 0)
    spread, of_rows = rows.take(row), cells[row, rank]
    return settle(
        len(rows.positions), lambda state: [judge_cells(spread, of_rows, threshold, state)]
    )


@given(st.integers(2, 80), st.integers(0, 2**32), st.sampled_from([0.8, 0.9, 0.95, 1.0]))
def test_cells_within_reach_find_every_near_pair(n: int, seed: int, threshold: float) -> None:
    rows = some_rows(n, seed)
    centres = fit_centres(of_norm_1(rows.embeddings), min(n, 7), 0)
    settled = settled_by_cells(rows, centres, threshold, most=7)
    assert positions_in(settled.dropped) == by_hand(rows, threshold)


@given(st.integers(2, 80), st.integers(0, 2**32), st.integers(1, 3))
def test_with_fewer_cells_what_is_dropped_is_near_a_better_row_that_is_kept(
    n: int, seed: int, most: int
) -> None:
    rows = some_rows(n, seed)
    centres = fit_centres(of_norm_1(rows.embeddings), min(n, 7), 0)
    settled = settled_by_cells(rows, centres, 0.9, most)
    dropped = settled.dropped.contains(rows.positions)
    kept = rows.take(~dropped)
    assert near_a_better_one(rows.take(dropped), kept, 0.9).all()


@given(st.integers(1, 40), st.integers(0, 2**32))
def test_rows_near_a_better_one_are_those_of_a_comparison_by_hand(n: int, seed: int) -> None:
    rows = some_rows(n, seed)
    embeddings = of_norm_1(rows.embeddings).astype(np.float64)
    cosines = embeddings @ embeddings.T
    rank = np.argsort(np.lexsort((rows.positions, -rows.values)))
    expected = [bool(((cosines[a] >= 0.9 - 1e-6) & (rank < rank[a])).any()) for a in range(n)]
    assert near_a_better_one(rows, rows, 0.9).tolist() == expected


def test_rows_of_no_direction_are_near_to_none() -> None:
    rows = EmbeddedRows(np.arange(3), np.ones(3), np.zeros((3, 4), np.float16))
    settled = settled_by_cells(rows, np.zeros((1, 4), np.float32), 0.5, most=3)
    assert not positions_in(settled.dropped)


def test_equal_rows_are_near_at_a_cosine_of_1() -> None:
    embedding = on_the_sphere(1, 384, 0).astype(np.float16)
    rows = EmbeddedRows(np.arange(2), np.array([0.5, 0.9]), np.repeat(embedding, 2, axis=0))
    settled = settled_by_cells(rows, of_norm_1(embedding), 1.0, most=1)
    assert positions_in(settled.dropped) == [0]


@pytest.mark.parametrize("most", [1, 3])
def test_a_division_expects_a_row_in_each_of_its_cells(most: int) -> None:
    embeddings = on_the_sphere(400, 8, 1)

    def labels_of(rows: np.ndarray, centres: np.ndarray) -> np.ndarray:
        cells = cells_of(rows, centres, 0.5, most)
        return cells[cells >= 0]

    division: Division = fit_division(embeddings, 4000, 5, 500, labels_of)
    labels = labels_of(embeddings, division.centres)
    expected = np.bincount(labels, minlength=5) * 10
    assert (division.count >= expected / 500).all()
    assert division.bins >= len(labels) * 10 / 500 / 2
