import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t

from sf_ray.commands.plan.estimate import (
    Drawn,
    Estimate,
    Measured,
    PlannedActors,
    SegmentCounts,
    Timed,
    price,
    ratio,
    t_quantile,
)
from sf_ray.commands.plan.text import Plan, Setting, Whole, lines_of
from sf_ray.corpus.sampling import spread_segments
from sf_ray.engine.flops import ModelCost, Work

# A token costs 2 * 100 FLOPs, a scored position 2 * 50.
COST = ModelCost({(10, 10): 1.0}, (10, 5), attention_width=0)


def drawn_from(lengths: np.ndarray, rows: int, seed: int) -> Estimate:
    """The estimated sum of a corpus of one shard from stretches of it."""
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
    held, widths = [], []
    for seed in range(400):
        lengths = corpus(np.random.default_rng(seed))
        found = drawn_from(lengths, 640, seed)
        held.append(found.low <= lengths.sum() <= found.high)
        widths.append(found.error / found.value)
    # 400 draws of 95 % lie above 0.92 in 99.5 % of cases; skewed sums cost a little more.
    assert np.mean(held) >= 0.91
    assert np.median(widths) < 0.5  # and it says something


def test_rows_alone_would_promise_too_much() -> None:
    """Without clusters, the interval of a corpus in runs would miss the truth again and again."""
    held = []
    for seed in range(100):
        lengths = in_runs(np.random.default_rng(seed))
        rows = np.concatenate(
            [lengths[part.start : part.stop] for _, part in spread_segments([6000], 640, seed)]
        )
        error = 1.96 * rows.std() / math.sqrt(len(rows))
        held.append(abs(rows.mean() - lengths.mean()) <= error)
    assert np.mean(held) < 0.8


@settings(max_examples=50)
@given(st.lists(st.integers(1, 1000), min_size=1, max_size=200), st.integers(0, 9))
def test_a_sample_of_everything_is_exact(lengths: list[int], seed: int) -> None:
    found = drawn_from(np.array(lengths), 10_000, seed)
    assert found.value == pytest.approx(sum(lengths))
    assert found.error == 0


@settings(max_examples=50)
@given(st.integers(2, 40), st.integers(0, 999), st.floats(0, 0.9))
def test_an_interval_is_that_of_the_formula(n: int, seed: int, seen: float) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(1, 50, n)
    y = x * rng.uniform(1, 3, n)
    found = ratio(y, x, seen)
    r = sum(y) / sum(x)
    spread = sum((b - r * a) ** 2 for a, b in zip(x, y, strict=True)) / (n - 1)
    variance = (1 - seen) * spread / n / (sum(x) / n) ** 2
    assert found.value == pytest.approx(r)
    assert found.error == pytest.approx(t.ppf(0.975, n - 1) * math.sqrt(variance), rel=1e-3)


def test_student_t() -> None:
    assert [t_quantile(df) for df in range(1, 500)] == pytest.approx(
        t.ppf(0.975, np.arange(1, 500)), abs=2e-3
    )


def test_one_place_cannot_tell_how_sure_it_is() -> None:
    found = ratio([10], [2], 0.5)
    assert found.as_json() == {"estimate": 5.0, "low": None, "high": None}


def test_errors_of_products_add_as_squares() -> None:
    """Held against draws of both factors."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(50, 1, 200_000), rng.normal(8, 0.2, 200_000)
    one, other = Estimate(50, 1.96), Estimate(8, 1.96 * 0.2)
    assert one.times(other).error == pytest.approx(1.96 * (a * b).std(), rel=0.01)
    assert one.over(other).error == pytest.approx(1.96 * (a / b).std(), rel=0.01)
    assert (one + 3).error == one.error
    assert Estimate(1, 2).low == 0


def stretch(rows: int, conditioned: int, direct: int) -> SegmentCounts:
    return SegmentCounts(rows, {"ok": rows}, Work(conditioned), Work(direct), cpu_s=0.5)


def test_a_price_is_flops_that_are_needed_over_the_rate_at_which_they_get_done() -> None:
    drawn = Drawn([stretch(10, 700, 300), stretch(10, 700, 300)], of_rows=100)
    measured = Measured(
        start_s=7.0,
        # Parts save a tenth, and compute 90 tokens a second.
        timed=[Timed(4, 4.0, Work(400), Work(360)), Timed(4, 4.0, Work(400), Work(360))],
        # Whole units save half.
        whole=[(Work(1000), Work(500)), (Work(1000), Work(500))],
        of_units=6,
    )
    found = price(drawn, COST, measured, PlannedActors("cuda", 4, 2.0, units=6), 3.0)
    assert (found.tokens.value, found.conditioned.value, found.direct.value) == (10_000, 7000, 3000)
    assert found.flops.value == 200 * 10_000
    assert found.tokens_per_s.value == pytest.approx(180)  # repeats included
    # 10,000 / 2 tokens are computed at 90 a second; 6 units on 4 actors: two of them take 2.
    seconds = 5000 / 90
    assert found.time_s.value == pytest.approx(7 + seconds * 2 / 6)
    assert found.machine_hours.value == pytest.approx(2 * found.time_s.value / 3600)
    assert found.cost is not None
    assert found.cost.value == pytest.approx(3 * found.machine_hours.value)
    assert found.encode_cpu_s.value == pytest.approx(5)
    assert (measured.saved_in_parts, measured.saved_in_units) == pytest.approx((0.1, 0.5))


def test_a_speed_that_is_given_counts_all_tokens_and_no_start() -> None:
    drawn = Drawn([stretch(10, 700, 300), stretch(10, 500, 300)], of_rows=40)
    found = price(drawn, COST, 100.0, PlannedActors("cpu", 1, 1, units=2), None)
    assert found.time_s.value == pytest.approx(3600 / 100)
    assert found.time_s.error == pytest.approx(found.tokens.error / 100)
    assert (found.start_s, found.cost) == (None, None)


def test_gpus_that_would_wait_for_reading_are_noticed() -> None:
    drawn = Drawn([stretch(10, 700, 300)] * 2, of_rows=100)
    pool = PlannedActors("cuda", 1, 1.0, units=1)
    found = price(drawn, COST, 1000.0, pool, None)  # 10 s of scoring, 5 s of reading
    assert Setting("m", "float16", pool, cpus_beside=0.25).missing_cpus(found) == 0.25
    assert Setting("m", "float16", pool, cpus_beside=3).missing_cpus(found) == 0


def test_what_is_printed_has_intervals_where_something_was_left_out() -> None:
    drawn = Drawn([stretch(10, 700, 300), stretch(10, 500, 300)], of_rows=40)
    pool = PlannedActors("cuda", 2, 2.0, units=2)
    found = price(drawn, COST, 100.0, pool, 300)
    plan = Plan(
        Whole("corpus", 1, 2, 60, 1000, 3, 1, 40),
        Setting("demo", "float16", pool, 4),
        drawn,
        100.0,
        found,
    )
    lines = dict(lines_of(plan))
    assert lines["shards"] == "1, 2 more are skipped"
    assert lines["units"] == "3: 1 have scores, 2 to score"
    assert lines["sample"] == "20 of 40 rows to score, in 2 places"
    low, high = (f"{value:,.0f}" for value in (found.tokens.low, found.tokens.high))
    assert lines["tokens"] == f"3,600 ({low} to {high})"
    assert lines["actors"] == "2 on 2 GPUs"
    assert lines["time"].endswith("without the start of the actors")
    assert lines["price"].startswith("3.00 (")


def test_names_in_json_are_the_same_where_nothing_is_left_to_do() -> None:
    done = Plan(Whole("corpus", 1, 0, 60, 1000, 3, 3, 0))
    drawn = Drawn([stretch(10, 700, 300)], of_rows=10)
    pool = PlannedActors("cpu", 1, 1, units=2)
    found = price(drawn, COST, 100.0, pool, None)
    full = Plan(Whole("corpus", 1, 0, 60, 1000, 3, 1, 40), Setting("demo", "float32", pool, 1),
                drawn, 100.0, found)  # fmt: skip
    assert done.as_json().keys() == full.as_json().keys()
    assert lines_of(done)[-1] == ("", "nothing to do: all units have scores")
