"""Scores -> cut-offs: the exact k best of any number of rows, found by counting.

A row's rank is decided by its value (higher is better) and, among equal ones, by its position in
the corpus (earlier is better). No two rows have the same rank, so the k best are the same on every
run. Rows are never sorted or gathered as a whole: a range of ranks that holds a cut-off is counted
in bins and narrowed to the bin that holds it, until few enough rows are left to look at one by one.
Cut-offs of any number of groups of rows are sought side by side. Plain arrays: this module does not
know what the groups and the values are, nor where scores lie.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sf_ray.selection.score_range import BINS, Positions, RankKeys, ScoreRange, value_of

# Of the groups that rows are in: numbers from 0 on.
Codes = NDArray[np.int64]

# Bins of all ranges that are counted side by side: 64 MiB of counts.
_BINS_IN_ALL = 1 << 23
# Rows that are looked at one by one instead of being counted again.
FEW = 1 << 18


@dataclass(frozen=True)
class TokenBounds:
    """How many tokens a row may have, both ends included; None where there is no end.

    Attributes:
        column: Column of the score table that has the number of tokens a row was scored with.
        low: The least.
        high: The most.
    """

    column: str
    low: int | None
    high: int | None

    def holds(self, tokens: NDArray[np.int64]) -> NDArray[np.bool_]:
        """[n] token counts -> [n] whether they are within."""
        within = np.ones(len(tokens), dtype=bool)
        if self.low is not None:
            within &= tokens >= self.low
        if self.high is not None:
            within &= tokens <= self.high
        return within


@dataclass(frozen=True)
class Bounds:
    """What a row must lie within to be eligible: IFD in [min_ifd, max_ifd), and tokens."""

    min_ifd: float
    max_ifd: float
    tokens: tuple[TokenBounds, ...] = ()

    def holds(self, ifd: NDArray[np.float64]) -> NDArray[np.bool_]:
        """[n] IFD -> [n] whether they are within; NaN (no score) never is."""
        within: NDArray[np.bool_] = (ifd >= self.min_ifd) & (ifd < self.max_ifd)
        return within


@dataclass(frozen=True)
class Cutoff:
    """The last row that is kept: its value and its position in the corpus."""

    value: float
    position: int


@dataclass(frozen=True)
class Cutoffs:
    """The cut-offs of all groups.

    Attributes:
        by_group: In the order of the groups' codes; None where a group keeps nothing.
    """

    by_group: tuple[Cutoff | None, ...]

    def keeps(
        self, values: NDArray[np.float64], positions: Positions, codes: Codes | None = None
    ) -> NDArray[np.bool_]:
        """Whether rows are at or before the cut-off of their group.

        Args:
            values: [n]; NaN where a row is not eligible: it is not kept.
            positions: [n]
            codes: [n] code of each row's group; None where there is one group.

        Returns:
            [n]
        """
        group = np.zeros(1, np.int64) if codes is None else codes
        last = self.last_values[group]
        last_position = np.array([-1 if cut is None else cut.position for cut in self.by_group])
        kept: NDArray[np.bool_] = values > last
        kept |= (values == last) & (positions <= last_position[group])
        return kept

    @property
    def last_values(self) -> NDArray[np.float64]:
        """[groups] value of the last row that each group keeps; NaN where it keeps nothing."""
        return np.array([np.nan if last is None else last.value for last in self.by_group])


class GroupRange(NamedTuple):
    """A range of ranks among the rows of one group.

    Attributes:
        group: The group's code.
        range: The range.
    """

    group: int
    range: ScoreRange


class Search(NamedTuple):
    """A cut-off that is sought.

    Attributes:
        within: The range that holds it.
        wanted: How many of the best rows of the range are wanted: between 1 and all. Where rows
            have weights, the sum of theirs, which the last row reaches.
    """

    within: GroupRange
    wanted: int


def first_ranges(within: tuple[float, float], rows: int, groups: int) -> list[GroupRange]:
    """A range for each group that holds all of its eligible rows.

    Args:
        within: The least value that an eligible row may have, and the one behind the highest.
        rows: All rows of the corpus.
        groups: How many groups there are.
    """
    score_range = ScoreRange.between(*within, rows)
    return [GroupRange(group, replace(score_range, bins=_bins(groups))) for group in range(groups)]


def find_cutoffs(
    searches: Sequence[Search],
    counts: NDArray[np.int64],
    count: Callable[[Sequence[GroupRange]], NDArray[np.int64]],
    gather: Callable[[Sequence[GroupRange]], Sequence[RankKeys]],
    few: int = FEW,
) -> list[Cutoff]:
    """The cut-offs that are sought, in the order of the searches.

    Args:
        searches: What is sought.
        counts: [searches, bins] rows in each bin of the searches' ranges.
        count: Ranges -> [ranges, bins] rows in each of their bins, over the whole corpus.
        gather: Ranges of few rows -> their rows, for each range.
        few: The most rows that `gather` returns in all; where there are more ranges than that, one
            row of each.
    """
    narrowed = [
        _narrow(search.within, search_counts, search.wanted)
        for search, search_counts in zip(searches, counts, strict=True)
    ]
    while True:
        # Several searches may have come down to the same range: it is read once for all of them.
        ranges = dict.fromkeys(search.within for search in narrowed)
        fair = max(1, few // max(1, len(ranges)))
        large = list(dict.fromkeys(search.within for search in narrowed if search.rows > fair))
        if not large:
            break
        finer = [
            GroupRange(group, replace(score_range, bins=_bins(len(large))))
            for group, score_range in large
        ]
        recounted = dict(zip(large, zip(finer, count(finer), strict=True), strict=True))
        narrowed = [
            _narrow(*recounted[search.within], search.wanted)
            if search.within in recounted
            else search
            for search in narrowed
        ]
    keys_of = dict(zip(ranges, gather(list(ranges)), strict=True)) if ranges else {}
    cutoffs = []
    for search in narrowed:
        bits, positions, weights = keys_of[search.within]
        order = np.lexsort((positions, ~bits))
        last = order[np.searchsorted(np.cumsum(weights[order]), search.wanted)]
        cutoffs.append(Cutoff(value_of(bits[last]), int(positions[last])))
    return cutoffs


def parts_of(
    cuts: Sequence[Cutoff], values: NDArray[np.float64], positions: Positions
) -> NDArray[np.int64]:
    """The parts that rows are in, where cuts divide all rows in the order of their ranks.

    Args:
        cuts: The last row of each part but the last, in order.
        values: [n]
        positions: [n]

    Returns:
        [n] how many of the cuts rank before each row.
    """
    # Rows and cuts in the order of ranks; a cut comes behind the row that it is at.
    all_values = np.concatenate([values, [cut.value for cut in cuts]])
    cut_positions = np.array([cut.position for cut in cuts], np.int64)
    all_positions = np.concatenate([positions, cut_positions])
    is_cut = np.arange(len(all_values)) >= len(values)
    order = np.lexsort((is_cut, all_positions, -all_values))
    before = np.empty(len(order), np.int64)
    before[order] = np.cumsum(is_cut[order])
    return before[: len(values)]


class _NarrowedSearch(NamedTuple):
    """As `Search`, with the number of rows that the range has."""

    within: GroupRange
    wanted: int
    rows: int


def _narrow(within: GroupRange, counts: NDArray[np.int64], wanted: int) -> _NarrowedSearch:
    narrowed = within.range.narrow(counts, wanted)
    return _NarrowedSearch(GroupRange(within.group, narrowed.range), narrowed.wanted, narrowed.rows)


def _bins(ranges: int) -> int:
    """Bins of each range, where `ranges` are counted side by side."""
    return max(2, min(BINS, _BINS_IN_ALL // max(1, ranges)))
