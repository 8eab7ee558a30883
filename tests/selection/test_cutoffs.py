from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sf_ray.selection.cutoffs import (
    Bounds,
    Cutoff,
    Cutoffs,
    GroupRange,
    Search,
    TokenBounds,
    find_cutoffs,
    first_ranges,
    parts_of,
)
from sf_ray.selection.score_range import RankKeys, ScoreRange

# Few distinct values, so that ties are the rule; NaN is a row without a score.
scores = st.lists(
    st.one_of(
        st.sampled_from([0.0, 0.25, 0.5, 0.5000000001, 0.999999, 1.0, 1.5, float("nan")]),
        st.floats(0, 2),
    ),
    max_size=200,
)
some_bounds = st.sampled_from([(0.0, 1.0), (0.25, 1.0), (0.0, 2.0), (0.5, 0.6)])
some_bins = st.sampled_from([2, 3, 16, 1 << 18])


class Corpus:
    """Rows in arrays, counted and gathered as tasks would."""

    def __init__(self, ifd: np.ndarray, codes: np.ndarray, few: int) -> None:
        self.ifd, self.codes, self.few = ifd, codes, few
        self.positions = np.arange(len(ifd))

    def count(self, ranges: Sequence[GroupRange]) -> np.ndarray:
        counts = np.zeros(
            (len(ranges), max(score_range.bins for _, score_range in ranges)), np.int64
        )
        for part in np.array_split(self.positions, 3):
            for number, (group, score_range) in enumerate(ranges):
                rows = part[self.codes[part] == group]
                in_range = score_range.count(self.ifd[rows], rows)
                counts[number, in_range.bins] += in_range.rows
        return counts

    def gather(self, ranges: Sequence[GroupRange]) -> list[RankKeys]:
        keys_of_ranges = []
        for group, score_range in ranges:
            rows = self.positions[self.codes == group]
            keys_of_ranges.append(score_range.select(self.ifd[rows], rows))
        gathered = sum(len(keys.bits) for keys in keys_of_ranges)
        assert gathered <= max(self.few, len(ranges))
        return keys_of_ranges


def by_rank(ifd: np.ndarray, rows: np.ndarray) -> list[int]:
    return sorted(rows.tolist(), key=lambda row: (-ifd[row], row))


@given(scores, st.data(), some_bounds, some_bins, st.sampled_from([1, 5, 1000]), st.integers(1, 5))
def test_the_k_best_of_each_group_are_those_of_sorting(
    values: list[float],
    data: st.DataObject,
    bounds: tuple[float, float],
    bins: int,
    few: int,
    groups: int,
) -> None:
    codes = np.array(data.draw(st.lists(
        st.integers(0, groups - 1), min_size=len(values), max_size=len(values)
    )), np.int64)  # fmt: skip
    wanted = data.draw(st.lists(st.integers(0, 80), min_size=groups, max_size=groups))
    ifd = np.array(values, float)
    good = Bounds(*bounds).holds(ifd)
    ifd = np.where(good, ifd, np.nan)
    expected, searches = [], []
    ranges = [
        GroupRange(group, replace(score_range, bins=bins))
        for group, score_range in first_ranges(bounds, max(len(values), 1), groups)
    ]
    for group in range(groups):
        ranked = by_rank(ifd, np.flatnonzero(good & (codes == group)))
        kept = ranked[: wanted[group]]
        expected += kept
        if kept:
            searches.append(Search(ranges[group], len(kept)))
    corpus = Corpus(ifd, codes, few)
    counts = corpus.count(ranges)
    assert counts.sum() == good.sum()
    searched = [search.within.group for search in searches]
    found = find_cutoffs(searches, counts[searched], corpus.count, corpus.gather, few)
    cutoffs = dict(zip(searched, found, strict=True))
    keeps = Cutoffs(tuple(cutoffs.get(group) for group in range(groups))).keeps(
        ifd, corpus.positions, codes
    )
    assert np.flatnonzero(keeps).tolist() == sorted(expected)


@given(scores, st.data(), some_bounds, some_bins, st.sampled_from([1, 5, 1000]))
def test_cuts_share_the_rows_in_their_order(
    values: list[float], data: st.DataObject, bounds: tuple[float, float], bins: int, few: int
) -> None:
    ifd = np.array(values, float)
    good = Bounds(*bounds).holds(ifd)
    ifd = np.where(good, ifd, np.nan)
    ranked = by_rank(ifd, np.flatnonzero(good))
    ends = sorted(data.draw(st.sets(st.integers(1, len(ranked) - 1))) if len(ranked) > 1 else [])
    everything = GroupRange(0, replace(ScoreRange.between(*bounds, max(len(values), 1)), bins=bins))
    corpus = Corpus(ifd, np.zeros(len(ifd), np.int64), few)
    counts = np.broadcast_to(corpus.count([everything]), (len(ends), bins))
    searches = [Search(everything, end) for end in ends]
    cuts = find_cutoffs(searches, counts, corpus.count, corpus.gather, few)
    kept = np.array(ranked, np.int64)
    rng = np.random.default_rng(0)
    kept = rng.permutation(kept)
    parts = parts_of(cuts, ifd[kept], kept)
    edges = [0, *ends, len(ranked)]
    for part in range(len(ends) + 1):
        assert by_rank(ifd, kept[parts == part]) == ranked[edges[part] : edges[part + 1]]


def test_rows_without_a_score_are_never_kept() -> None:
    cutoffs = Cutoffs((Cutoff(0.0, 5),))
    kept = cutoffs.keeps(np.array([np.nan, 0.0, 0.5, 1.0]), np.array([0, 6, 7, 8]))
    assert kept.tolist() == [False, False, True, True]


def test_a_group_without_a_cutoff_keeps_nothing() -> None:
    kept = Cutoffs((None, Cutoff(0.5, 1))).keeps(
        np.array([0.9, 0.9, 0.5]), np.array([0, 1, 2]), np.array([0, 1, 1])
    )
    assert kept.tolist() == [False, True, False]


@given(st.lists(st.integers(0, 9)), st.none() | st.integers(0, 9), st.none() | st.integers(0, 9))
def test_bounds_in_tokens_hold_at_both_ends(
    tokens: list[int], low: int | None, high: int | None
) -> None:
    within = TokenBounds("answer_tokens", low, high).holds(np.array(tokens, np.int64))
    assert within.tolist() == [
        (low is None or low <= one) and (high is None or one <= high) for one in tokens
    ]


def test_counts_of_many_groups_stay_small() -> None:
    for groups in (1, 32, 33, 10_000):
        ranges = first_ranges((0, 1), 10**9, groups)
        assert sum(score_range.bins for _, score_range in ranges) * 8 <= 64 << 20
    assert first_ranges((0, 1), 10**9, 32)[0].range.bins == 1 << 18
