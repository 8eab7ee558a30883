import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sf_ray.selection.diversity import partition
from sf_ray.selection.diversity.facility_location import Chosen, greedy, objective
from sf_ray.selection.diversity.partition import (
    choose,
    choose_by_parts,
    divide,
    fit_centres,
    merge,
    nearest,
    ratio_to_exact,
    sample_of,
    share_of,
    split,
)
from tests.support.embeddings import brute_force, on_the_sphere, seeds, whole


def clusters(count: int, rows: int, seed: int = 0) -> np.ndarray:
    """[count * rows, 32]: cluster after cluster, each near a direction of its own."""
    near = np.repeat(np.eye(count, 32, dtype=np.float32), rows, axis=0)
    near += 0.3 * on_the_sphere(count * rows, 32, seed)
    return near / np.linalg.norm(near, axis=1, keepdims=True)


@pytest.mark.parametrize("pick", [choose, lambda e, k: choose_by_parts(e, k, 2)])
@pytest.mark.parametrize("n", [0, 1, 7])
def test_a_budget_of_all_rows_or_more_chooses_all(pick: object, n: int) -> None:
    embeddings = np.concatenate([on_the_sphere(n, 4, 0)[: n - 1], np.zeros((min(n, 1), 4))])
    embeddings = embeddings.astype(np.float32)
    for budget in (n, n + 5):
        assert sorted(pick(embeddings, budget).rows.tolist()) == list(range(n))
    assert pick(embeddings, 0).rows.tolist() == []


@given(st.lists(whole, min_size=1, max_size=4), st.integers(0, 40))
def test_merged_gains_are_greedy_where_parts_have_nothing_in_common(
    parts: list[np.ndarray], budget: int
) -> None:
    together = np.zeros((sum(map(len, parts)), 3 * len(parts)), np.float32)
    starts = np.cumsum([0, *map(len, parts)])
    for place, part in enumerate(parts):  # three dimensions of its own for each part
        rows = slice(starts[place], starts[place + 1])
        together[rows, 3 * place : 3 * place + 3] = part
    inside = [greedy(part, len(part)) for part in parts]
    kept = merge([chosen.gains for chosen in inside], budget)
    rows = np.concatenate(
        [start + each.rows[:k] for start, each, k in zip(starts, inside, kept, strict=False)]
    )
    _, gains = brute_force(together, budget)
    assert len(rows) == min(budget, len(together))
    assert objective(together, rows) == sum(gains)


def test_of_equal_gains_the_earlier_parts_are_kept() -> None:
    one, two = np.array([3, 1, 1], np.float32), np.array([2, 1], np.float32)
    assert merge([one, two], 4).tolist() == [3, 1]
    assert merge([two, one], 4).tolist() == [2, 2]
    assert merge([], 4).tolist() == []


@given(st.lists(st.integers(0, 1000), max_size=20), st.floats(0, 1), st.floats(1, 4))
def test_shares_of_parts_suffice(sizes: list[int], share: float, slack: float) -> None:
    budget = int(share * sum(sizes))
    shares = [share_of(size, sum(sizes), budget, slack) for size in sizes if size]
    assert sum(shares) >= budget
    assert all(0 <= each <= size for each, size in zip(shares, filter(None, sizes), strict=True))


@given(whole, st.integers(1, 30), seeds)
def test_parts_are_bounded_and_hold_every_row_once(
    embeddings: np.ndarray, part_rows: int, seed: int
) -> None:
    for parts in (divide(embeddings, part_rows, seed), split(embeddings, part_rows, seed)):
        assert sorted(np.concatenate([*parts, []]).tolist()) == list(range(len(embeddings)))
        assert max(map(len, parts), default=0) <= part_rows
        assert all(np.all(np.diff(rows) > 0) for rows in parts)


def test_splitting_rows_that_are_all_alike_ends() -> None:
    sizes = [len(rows) for rows in split(np.ones((1000, 2), np.float32), 10)]
    assert sum(sizes) == 1000
    assert max(sizes) <= 10


def test_splitting_keeps_rows_that_are_alike_together() -> None:
    embeddings = clusters(2, 60)
    assert [rows.tolist() for rows in sorted(split(embeddings, 60), key=min)] == [
        list(range(60)),
        list(range(60, 120)),
    ]


def test_centres_lie_amid_their_rows() -> None:
    embeddings = clusters(3, 100)
    fitted = fit_centres(embeddings, 3, seed=1)
    np.testing.assert_allclose(np.linalg.norm(fitted, axis=1), 1, rtol=1e-5)
    labels = nearest(embeddings, fitted).reshape(3, 100)
    assert np.all(labels == labels[:, :1])
    assert len(set(labels[:, 0])) == 3


def test_centres_of_too_few_rows_are_these_rows() -> None:
    embeddings = on_the_sphere(3, 4, 0)
    np.testing.assert_allclose(fit_centres(embeddings, 9, seed=0), embeddings, rtol=1e-6)
    assert len(fit_centres(embeddings[:0], 2, seed=0)) == 0


def test_nearest_is_the_same_in_blocks_and_the_first_of_equal_centres(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    embeddings = on_the_sphere(20, 4, 0)
    centres = embeddings[[5, 5, 11]]
    expected = np.argmax(embeddings @ centres.T, axis=1)
    monkeypatch.setattr(partition, "_BLOCK", 3)
    labels = nearest(embeddings, centres)
    assert labels.tolist() == expected.tolist()
    assert 1 not in labels


def test_the_same_seed_gives_the_same_choice_whatever_the_order_of_calls() -> None:
    embeddings = on_the_sphere(400, 8, 0)
    first, other = (choose_by_parts(embeddings, 40, 50, seed) for seed in (3, 4))
    again = choose_by_parts(embeddings, 40, 50, 3)
    assert first.rows.tolist() == again.rows.tolist()
    assert first.gains.tolist() == again.gains.tolist()
    assert first.rows.tolist() != other.rows.tolist()
    assert np.all(np.diff(first.gains) <= 0)
    assert len({*first.rows.tolist()}) == 40


def test_few_rows_are_chosen_exactly_and_many_by_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings = on_the_sphere(300, 8, 0)
    assert (
        choose(embeddings, 30, part_rows=20).rows.tolist() == greedy(embeddings, 30).rows.tolist()
    )
    monkeypatch.setattr(partition, "EXACT_ROWS", 299)
    by_parts: Chosen = choose(embeddings, 30, part_rows=20)
    assert by_parts.rows.tolist() == choose_by_parts(embeddings, 30, 20).rows.tolist()


def test_by_parts_comes_near_exact_greedy_and_says_how_near() -> None:
    embeddings = clusters(8, 60)
    exact = objective(embeddings, greedy(embeddings, 48).rows)
    by_parts = objective(embeddings, choose_by_parts(embeddings, 48, 120).rows)
    drawn = objective(embeddings, sample_of(480, 48, 0))
    assert drawn < by_parts
    assert 0.97 < by_parts / exact <= 1.001
    assert ratio_to_exact(embeddings, 480, 48, 120) == pytest.approx(by_parts / exact)
    sample = embeddings[sample_of(480, 240, 0)]
    assert 0.95 < ratio_to_exact(sample, 480, 48, 120) <= 1.01
    assert ratio_to_exact(embeddings[:0], 0, 4) == 1.0
