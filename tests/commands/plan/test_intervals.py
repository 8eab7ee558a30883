import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t

from sf_ray.commands.plan.intervals import Estimate, ratio, t_quantile
from sf_ray.corpus.sampling import spread_segments


def drawn_from(lengths: np.ndarray, rows: int, seed: int) -> Estimate:
    """The sum of the lengths of a corpus of one shard, estimated from segments of it."""
    parts = [
        lengths[part.start : part.stop]
        for _, part in spread_segments([len(lengths)], rows, seed)
    ]  # fmt: skip
    seen = sum(map(len, parts)) / len(lengths)
    return ratio([part.sum() for part in parts], [len(part) for part in parts], seen) * len(lengths)


def sources(rng: np.random.Generator) -> np.ndarray:
    """Rows of several sources, one after the other, with lengths of their own."""
    sizes = rng.integers(100, 900, 12)
    return np.concatenate(
        [rng.lognormal(rng.normal(5, 0.7), 0.6, size) for size in sizes]
    )  # fmt: skip


def shuffled(rng: np.random.Generator) -> np.ndarray:
    return rng.permutation(sources(rng))


def in_runs(rng: np.random.Generator) -> np.ndarray:
    """Each row is like the one before it."""
    walk = np.zeros(6000)
    steps = rng.normal(0, 1, len(walk))
    for i in range(1, len(walk)):
        walk[i] = 0.98 * walk[i - 1] + 0.2 * steps[i]
    return np.exp(4 + walk / 2)


@pytest.mark.parametrize("corpus", [sources, shuffled, in_runs])
def test_the_interval_holds_the_truth_as_often_as_it_says(
    corpus: Callable[[np.random.Generator], np.ndarray],
) -> None:
    hits, widths = [], []
    for seed in range(400):
        lengths = corpus(np.random.default_rng(seed))
        estimate = drawn_from(lengths, 640, seed)
        hits.append(estimate.low <= lengths.sum() <= estimate.high)
        widths.append(estimate.error / estimate.value)
    # 400 draws of 95 % lie above 0.92 in 99.5 % of cases; skewed sums cost a little more.
    assert np.mean(hits) >= 0.91
    assert np.median(widths) < 0.5  # and it says something


def test_rows_alone_would_promise_too_much() -> None:
    """Without clusters, the interval of a corpus in runs would miss the truth again and again."""
    hits = []
    for seed in range(100):
        lengths = in_runs(np.random.default_rng(seed))
        rows = np.concatenate(
            [lengths[part.start : part.stop] for _, part in spread_segments([6000], 640, seed)]
        )
        error = 1.96 * rows.std() / math.sqrt(len(rows))
        hits.append(abs(rows.mean() - lengths.mean()) <= error)
    assert np.mean(hits) < 0.8


@settings(max_examples=50)
@given(st.lists(st.integers(1, 1000), min_size=1, max_size=200), st.integers(0, 9))
def test_a_sample_of_everything_is_exact(lengths: list[int], seed: int) -> None:
    estimate = drawn_from(np.array(lengths), 10_000, seed)
    assert estimate.value == pytest.approx(sum(lengths))
    assert estimate.error == 0


@settings(max_examples=50)
@given(st.integers(2, 40), st.integers(0, 999), st.floats(0, 0.9))
def test_an_interval_is_that_of_the_formula(n: int, seed: int, seen: float) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(1, 50, n)
    y = x * rng.uniform(1, 3, n)
    estimate = ratio(y, x, seen)
    r = sum(y) / sum(x)
    spread = sum((b - r * a) ** 2 for a, b in zip(x, y, strict=True)) / (n - 1)
    variance = (1 - seen) * spread / n / (sum(x) / n) ** 2
    assert estimate.value == pytest.approx(r)
    assert estimate.error == pytest.approx(t.ppf(0.975, n - 1) * math.sqrt(variance), rel=1e-3)


def test_student_t() -> None:
    assert [t_quantile(df) for df in range(1, 500)] == pytest.approx(
        t.ppf(0.975, np.arange(1, 500)), abs=2e-3
    )


def test_one_cluster_gives_no_interval() -> None:
    estimate = ratio([10], [2], 0.5)
    assert estimate.as_json() == {"estimate": 5.0, "low": None, "high": None}


def test_errors_of_products_add_as_squares() -> None:
    """Compared with draws of both factors."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(50, 1, 200_000), rng.normal(8, 0.2, 200_000)
    one, other = Estimate(50, 1.96), Estimate(8, 1.96 * 0.2)
    assert one.times(other).error == pytest.approx(1.96 * (a * b).std(), rel=0.01)
    assert one.over(other).error == pytest.approx(1.96 * (a / b).std(), rel=0.01)
    assert (one + 3).error == one.error
    assert Estimate(1, 2).low == 0
