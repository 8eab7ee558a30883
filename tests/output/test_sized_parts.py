"""Which units follow each other into one file."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sf_ray.output.sized_parts import cut

SIZES = st.lists(st.integers(0, 1000) | st.just(0), max_size=60)


@given(SIZES, st.integers(1, 2000))
def test_files_have_all_units_in_order_and_none_is_empty(sizes: list[int], wanted: int) -> None:
    files = cut(np.array(sizes, np.float64), wanted)
    held = [number for file in files for number in range(len(sizes))[file]]
    assert held == sorted(set(held))
    left_out = set(range(len(sizes))) - set(held)
    assert all(sizes[number] == 0 for number in left_out)
    assert all(sum(sizes[file]) for file in files)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=200), st.integers(500, 3000))
def test_files_of_small_units_have_about_the_size(sizes: list[int], wanted: int) -> None:
    files = cut(np.array(sizes, np.float64), wanted)
    number = max(1, round(sum(sizes) / wanted))
    assert len(files) == number
    even = sum(sizes) / number
    assert all(abs(sum(sizes[file]) - even) <= 2 * max(sizes) for file in files)


def test_a_unit_larger_than_a_file_is_a_file() -> None:
    assert cut(np.array([10.0, 10.0, 10.0]), 1) == [slice(0, 1), slice(1, 2), slice(2, 3)]
    assert cut(np.array([0.0, 0.0]), 1) == cut(np.array([]), 1) == []
