from hypothesis import given
from hypothesis import strategies as st

from sf_ray.scoring.stages.failures import Bisection


@given(st.integers(1, 300), st.sets(st.integers(0, 299), max_size=6))
def test_exactly_the_bad_rows_are_found(rows: int, bad: set[int]) -> None:
    bad = {row for row in bad if row < rows}
    search, asked = Bisection(rows), 0
    while found := search.next():
        asked += 1
        if not bad & set(range(*found)):
            search.passed()
    assert sorted(search.bad) == sorted(bad)
    assert search.is_done
    # Both halves of each range that fails, and single rows twice.
    assert asked <= 1 + len(bad) * (2 * rows.bit_length() + 2)


def test_a_row_that_fails_once_by_chance_is_not_bad() -> None:
    search, failed = Bisection(8), False
    while found := search.next():
        if found == (3, 4) and not failed:
            failed = True
        elif found[1] - found[0] == 1 or 3 not in range(*found):
            search.passed()
    assert failed
    assert search.bad == []
