import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sf_ray.selection.duplicates import Digests, join

# (digest, IFD) of each row; few of either, so that equal rows and ties are the rule.
rows = st.lists(
    st.tuples(
        st.tuples(st.integers(0, 2), st.integers(0, 3)), st.sampled_from([0.1, 0.5, 0.9])
    ),
    max_size=60,
)  # fmt: skip


def duplicates_by_hand(values: list[tuple[tuple[int, int], float]]) -> list[int]:
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
def test_of_equal_rows_the_highest_ranked_stays_however_rows_are_spread(
    values: list[tuple[tuple[int, int], float]], parts: int, tasks: int
) -> None:
    dropped: list[int] = []
    spread: list[list[Digests]] = []
    for task in np.array_split(np.arange(len(values)), tasks):  # as tasks would
        of_task = digests_of(values).take(task)
        are_duplicates = of_task.are_duplicates()
        dropped += of_task.positions[are_duplicates].tolist()
        spread.append(of_task.take(~are_duplicates).split(parts))
        assert len(spread[-1]) == parts
    for part in zip(*spread, strict=True):
        joined = join(list(part))
        dropped += joined.positions[joined.are_duplicates()].tolist()
    assert sorted(dropped) == duplicates_by_hand(values)
