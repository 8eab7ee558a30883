from hypothesis import given
from hypothesis import strategies as st

from sf_ray.scoring.stages.failures import Bisection, Failures, UnitState


@given(st.integers(1, 300), st.sets(st.integers(0, 299), max_size=6))
def test_exactly_the_bad_rows_are_found(rows: int, bad: set[int]) -> None:
    bad = {row for row in bad if row < rows}
    search, asked = Bisection(rows), 0
    while bounds := search.next():
        asked += 1
        if not bad & set(range(*bounds)):
            search.passed()
    assert sorted(search.bad) == sorted(bad)
    assert search.is_done
    # Both halves of each range that fails, and single rows twice.
    assert asked <= 1 + len(bad) * (2 * rows.bit_length() + 2)


def test_a_row_that_fails_once_by_chance_is_not_bad() -> None:
    search, failed = Bisection(8), False
    while bounds := search.next():
        if bounds == (3, 4) and not failed:
            failed = True
        elif bounds[1] - bounds[0] == 1 or 3 not in range(*bounds):
            search.passed()
    assert failed
    assert search.bad == []


def test_the_first_unfinished_unit_of_a_bundle_is_to_blame_for_a_death() -> None:
    failures = Failures()
    for _ in range(3):  # the process dies over a, and then over a again, and so on
        failures.units_started(["a", "b"])
    assert failures.units_started(["a", "b"]) == [UnitState.SUSPECT, UnitState.RETRIED]
    failures.unit_scored("a")
    assert failures.units_started(["b"]) == [UnitState.RETRIED]


def test_a_unit_that_was_handed_to_two_actors_is_forgotten_when_one_has_scored_it() -> None:
    failures = Failures()
    failures.units_started(["a"])
    failures.units_started(["a"])
    failures.unit_scored("a")
    assert failures.units_started(["a"]) == [UnitState.NEW]
