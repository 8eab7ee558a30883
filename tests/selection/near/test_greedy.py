import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sf_ray.selection.bitmap import Bitmap
from sf_ray.selection.near import greedy
from sf_ray.selection.near.greedy import State, Verdicts, by_rank, judge, settle
from tests.support.near import dropped_by_hand, positions_in

# Few values, so that ties are the rule.
VALUES = st.lists(st.sampled_from([0.1, 0.5, 0.9]), min_size=1, max_size=24)


@given(VALUES, st.randoms(), st.integers(1, 5))
def test_parts_that_share_all_pairs_settle_as_greedy_does_over_all_rows(
    values: list[float], random: object, parts: int
) -> None:
    n = len(values)
    rng = np.random.default_rng(random.getrandbits(32))  # type: ignore[attr-defined]
    near = np.triu(rng.random((n, n)) < 0.2, 1)
    near |= near.T
    # A pair meets in some part, a row is in several, and some parts have rows that share nothing.
    of_parts: list[set[int]] = [set() for _ in range(parts)]
    for a, b in np.argwhere(near).tolist():
        of_parts[rng.integers(parts)] |= {a, b}
    of_parts.append(set(rng.integers(0, n, 5).tolist()))
    settled = settle(n, lambda state: [judged(values, near, part, state) for part in of_parts])
    by_hand = dropped_by_hand(values, lambda a, b: bool(near[a, b]))
    assert positions_in(settled.dropped) == by_hand
    rank = np.argsort(by_rank(np.array(values), np.arange(n)))
    expected = [a for a in range(n) if (near[a] & (rank < rank[a])).any()]
    assert positions_in(settled.near_better) == expected


def judged(values: list[float], near: np.ndarray, part: set[int], state: State) -> Verdicts:
    positions = np.array(sorted(part), np.int64)
    ranked = positions[by_rank(np.array(values)[positions], positions)]
    return judge(lambda rows, others: near[ranked[rows]][:, ranked[others]], ranked, state)


def test_a_row_stays_that_is_near_only_to_a_dropped_one() -> None:
    near = {(0, 1), (1, 2)}
    assert dropped_by_hand([0.9, 0.8, 0.7], lambda a, b: (b, a) in near or (a, b) in near) == [1]


def test_blocks_of_a_large_part_say_what_one_block_says(monkeypatch: object) -> None:
    rng = np.random.default_rng(0)
    near = np.triu(rng.random((90, 90)) < 0.05, 1)
    near |= near.T
    state = State(Bitmap.empty(90), Bitmap.empty(90).others())
    whole = judge(lambda rows, others: near[rows][:, others], np.arange(90), state)
    monkeypatch.setattr(greedy, "_ROWS", 7)  # type: ignore[attr-defined]
    monkeypatch.setattr(greedy, "_OTHERS", 5)  # type: ignore[attr-defined]
    blocks = judge(lambda rows, others: near[rows][:, others], np.arange(90), state)
    assert sorted(blocks.blocked) == sorted(whole.blocked)
    assert len(whole.blocked)


def test_where_all_rows_are_near_each_other_each_is_compared_with_the_best_alone() -> None:
    compared = 0

    def near(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        nonlocal compared
        compared += rows.size * others.size
        return np.ones((len(rows), len(others)), bool)

    n = 20_000
    settled = settle(n, lambda state: [judge(near, np.arange(n), state)])
    assert len(settled.dropped) == n - 1
    assert settled.rounds == 2
    assert compared < n * greedy._ROWS, "and not n * n"
