import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sf_ray.selection.bitmap import Bitmap


@given(st.data(), st.integers(1, 100))
def test_a_bitmap_is_a_set_of_positions(data: st.DataObject, rows: int) -> None:
    members = data.draw(st.sets(st.integers(0, rows - 1)))
    start = data.draw(st.integers(0, rows))
    stop = data.draw(st.integers(start, rows))
    bitmap = Bitmap.empty(rows)
    bitmap.add(np.array(sorted(members), np.int64))
    assert len(bitmap) == len(members)
    expected = [position in members for position in range(start, stop)]
    assert bitmap.flags(start, stop).tolist() == expected
    # A slice of it, as it is sent to a task, and a slice of that.
    assert bitmap.between(start, stop).flags(start, stop).tolist() == expected
    middle = (start + stop) // 2
    assert (
        bitmap.between(start, stop).between(middle, stop).flags(middle, stop).tolist()
        == expected[middle - start :]
    )


@given(st.data(), st.integers(1, 100))
def test_the_other_rows_are_those_that_the_set_does_not_have(
    data: st.DataObject, rows: int
) -> None:
    members = data.draw(st.sets(st.integers(0, rows - 1)))
    bitmap = Bitmap.empty(rows)
    bitmap.add(np.array(sorted(members), np.int64))
    expected = [position not in members for position in range(rows)]
    assert bitmap.others().flags(0, rows).tolist() == expected
    assert bitmap.flags(0, rows).tolist() == [not other for other in expected]  # is unchanged


def test_a_position_that_is_added_twice_is_one_row() -> None:
    bitmap = Bitmap.empty(20)
    bitmap.add(np.array([3, 3, 17]))
    bitmap.add(np.array([17]))
    assert len(bitmap) == 2
