import pytest

from sf_ray.commands.plan.estimate import (
    DrawnRows,
    MeasuredSpeed,
    PlannedActors,
    ReadRows,
    SegmentCounts,
    TimedPart,
    WorkSaved,
    estimate_scoring,
)
from sf_ray.engine.flops import ModelCost, Work

# A token costs 2 * 100 FLOPs, a scored position 2 * 50.
COST = ModelCost({(10, 10): 1.0}, (10, 5), attention_width=0)


def segment(rows: int, conditioned: int, direct: int) -> SegmentCounts:
    return SegmentCounts(rows, {"ok": rows}, Work(conditioned), Work(direct), cpu_s=0.5)


def test_time_is_flops_that_are_needed_over_the_rate_at_which_they_get_done() -> None:
    drawn = DrawnRows([segment(10, 700, 300), segment(10, 700, 300)], rows_to_do=100)
    measured = MeasuredSpeed(
        start_s=7.0,
        # Parts save a tenth, and compute 90 tokens a second.
        parts=[TimedPart(4, 4.0, WorkSaved(Work(400), Work(360)))] * 2,
        # Whole units save half.
        whole_units=[WorkSaved(Work(1000), Work(500))] * 2,
        of_units=6,
        # A core reads 100 rows a second; the segments say 20, as each reads a whole row group.
        read=[ReadRows(200, 2.0), ReadRows(100, 1.0)],
    )
    estimate = estimate_scoring(drawn, COST, measured, PlannedActors("cuda", 4, 2.0, units=6), 3.0)
    assert (estimate.tokens.value, estimate.conditioned.value, estimate.direct.value) == (
        10_000,
        7000,
        3000,
    )
    assert estimate.flops.value == 200 * 10_000
    assert estimate.tokens_per_s.value == pytest.approx(180)  # repeats included
    # 10,000 / 2 tokens are computed at 90 a second; 6 units on 4 actors: two of them take 2.
    seconds = 5000 / 90
    assert estimate.time_s.value == pytest.approx(7 + seconds * 2 / 6)
    assert estimate.machine_hours.value == pytest.approx(2 * estimate.time_s.value / 3600)
    assert estimate.cost is not None
    assert estimate.cost.value == pytest.approx(3 * estimate.machine_hours.value)
    assert estimate.encode_cpu_s.value == pytest.approx(1)
    assert (measured.saved_in_parts, measured.saved_in_units) == pytest.approx((0.1, 0.5))


def test_a_speed_that_is_given_counts_all_tokens_and_no_start() -> None:
    drawn = DrawnRows([segment(10, 700, 300), segment(10, 500, 300)], rows_to_do=40)
    estimate = estimate_scoring(drawn, COST, 100.0, PlannedActors("cpu", 1, 1, units=2), None)
    assert estimate.time_s.value == pytest.approx(3600 / 100)
    assert estimate.time_s.error == pytest.approx(estimate.tokens.error / 100)
    assert (estimate.start_s, estimate.cost) == (None, None)
    assert estimate.encode_cpu_s.value == 2  # 20 rows of the segments took 1 s
