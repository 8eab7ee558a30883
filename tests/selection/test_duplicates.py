import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sf_ray.selection.bitmap import Bitmap
from sf_ray.selection.duplicates import Digests, join

# (digest, IFD) of each row; few of either, so that copies and ties are the rule.
rows = st.lists(
    st.tuples(
        st.tuples(st.integers(0, 2), st.integers(0, 3)), st.sampled_from([0.1, 0.5, 0.9])
    ),
    max_size=60,
)  # fmt: skip


def worse_by_hand(values: list[tuple[tuple[int, int], float]]) -> list[int]:
    best: dict[tuple[int, int], int] = {}
    for row, (digest, ifd) in enumerate(values):
        if digest not in best or ifd > values[best[digest]][1]:
            best[digest] = row
    return [row for row in range(len(values)) if row not in best.values()]


def digests_of(values: list[tuple[tuple[int, int], float]]) -> Digests:
    return Digests(
        np.array([digest for digest, _ in values], np.uint64).reshape(-1, 2),
        np.array([ifd for _, ifd in values]),
        np.arange(len(values)),
    )


@given(rows, st.integers(1, 5), st.integers(1, 4))
def test_of_copies_the_best_placed_stays_however_rows_are_spread(
    values: list[tuple[tuple[int, int], float]], parts: int, tasks: int
) -> None:
    worse: list[int] = []
    spread: list[list[Digests]] = []
    for task in np.array_split(np.arange(len(values)), tasks):  # as tasks would
        of_task = digests_of(values).take(task)
        are_worse = of_task.are_worse()
        worse += of_task.positions[are_worse].tolist()
        spread.append(of_task.take(~are_worse).split(parts))
        assert len(spread[-1]) == parts
    for part in zip(*spread, strict=True):
        joined = join(list(part))
        worse += joined.positions[joined.are_worse()].tolist()
    assert sorted(worse) == worse_by_hand(values)


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
