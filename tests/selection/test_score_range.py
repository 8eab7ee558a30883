from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sf_ray.selection.score_range import ScoreRange, bits_of, value_of

# Few distinct values, so that ties are the rule; NaN is a row without a score.
scores = st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.5000000001, 1.5, float("nan")]), min_size=1)


@given(scores, st.sampled_from([(0.0, 1.0), (0.25, 2.0)]), st.sampled_from([2, 3, 1 << 18]))
def test_narrowing_ends_at_the_row_of_the_wanted_rank(
    values: list[float], bounds: tuple[float, float], bins: int
) -> None:
    ifd, positions = np.array(values), np.arange(len(values))
    inside = np.flatnonzero((ifd >= bounds[0]) & (ifd < bounds[1]))
    ranked = sorted(inside.tolist(), key=lambda row: (-ifd[row], row))
    for wanted, row in enumerate(ranked, 1):
        score_range = replace(ScoreRange.between(*bounds, len(values)), bins=bins)
        left, rows = wanted, len(ranked)
        while rows > 1:
            occurring = score_range.count(ifd, positions)
            assert occurring.rows.sum() == rows == len(score_range.select(ifd, positions).bits)
            counts = np.zeros(bins, np.int64)
            counts[occurring.bins] = occurring.rows
            score_range, left, rows = score_range.narrow(counts, left)
        assert left == 1
        last = score_range.select(ifd, positions)
        assert last.positions.tolist() == [row]
        assert [value_of(bits) for bits in last.bits] == [ifd[row]]


@given(st.lists(st.floats(allow_nan=False), min_size=2))
def test_bits_are_in_the_order_of_any_values(values: list[float]) -> None:
    bits = bits_of(np.array(values))
    assert [value_of(it) for it in bits] == [value + 0.0 for value in values]
    assert np.argsort(bits, kind="stable").tolist() == np.argsort(values, kind="stable").tolist()
    nan = bits_of(np.array([np.nan, -np.nan]))
    assert ((nan < bits.min()) | (nan > bits.max())).all()
