"""What a report shows of all scores: counts in fixed bins, and the rows that are worth a look.

Of fixed size, whatever the corpus is: parts of it are surveyed apart and put together in any order.
Plain arrays: knows neither where scores lie nor how they are shown.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from sf_ray.selection.cutoffs import Positions

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Ints = NDArray[np.int64]

# Bins of IFD are this wide and end at 2; one more holds what lies above.
IFD_WIDTH, IFD_BINS = 1 / 4096, 8192
# Axes of the densities: log10 of a perplexity, IFD, log2 of tokens. Ends hold what lies beyond.
PPL_EDGES = np.linspace(0, 5, 101)
IFD_EDGES = np.linspace(0, 1.5, 76)
TOKEN_EDGES = np.linspace(0, 14, 57)
# Rows that stand for all of them in a plot of points, and rows to read of each kind.
POINTS, PICKS = 2000, 10
# Values of a column that are told apart; more are no groups, but names or texts.
MOST_GROUPS = 1000


@dataclass(frozen=True)
class SurveyedRows:
    """Some rows of a corpus and what became of them.

    Attributes:
        positions: [n] in the corpus.
        status: [n] strings.
        prompt_tokens, answer_tokens: [n]; -1 where a row has none.
        ppl_direct, ppl_conditioned, ifd: [n]; NaN where a row has none.
        eligible: [n] could be kept.
        kept: [n]
        cutoff: [n] IFD of the cut-off of each row's group; NaN where its group keeps nothing.
    """

    positions: Positions
    status: NDArray[np.object_]
    prompt_tokens: Ints
    answer_tokens: Ints
    ppl_direct: Floats
    ppl_conditioned: Floats
    ifd: Floats
    eligible: Flags
    kept: Flags
    cutoff: Floats

    @property
    def ok(self) -> Flags:
        """[n] have a score."""
        return ~np.isnan(self.ifd)


@dataclass(frozen=True)
class Picks:
    """The few rows of a kind that come first.

    Attributes:
        keys: [<= PICKS] by which they do, lowest first; ties by position.
        positions: [<= PICKS]
        kept: [<= PICKS] whether they are.
    """

    keys: Floats
    positions: Positions
    kept: Flags

    @classmethod
    def of(cls, keys: Floats, rows: SurveyedRows, among: Flags) -> "Picks":
        """The first of [n] rows by [n] keys, among those that are flagged."""
        at = np.flatnonzero(among)
        if len(at) > PICKS:  # all that may be among the first, ties included
            at = at[keys[at] <= np.partition(keys[at], PICKS - 1)[PICKS - 1]]
        return cls(keys[at], rows.positions[at], rows.kept[at])._first()

    def __add__(self, other: "Picks") -> "Picks":
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Picks(*map(np.concatenate, pairs))._first()

    def _first(self) -> "Picks":
        order = np.lexsort((self.positions, self.keys))[:PICKS]
        return Picks(self.keys[order], self.positions[order], self.kept[order])


@dataclass(frozen=True)
class Points:
    """Rows that stand for all of those with a score, chosen by a hash of their positions.

    Attributes:
        hashes: [<= POINTS], sorted.
        values: [<= POINTS, 6] direct and conditioned perplexity, IFD, prompt and answer tokens, 1
            where a row is kept.
    """

    hashes: NDArray[np.uint64]
    values: Floats

    def __add__(self, other: "Points") -> "Points":
        hashes = np.concatenate([self.hashes, other.hashes])
        order = np.argsort(hashes, kind="stable")[:POINTS]
        return Points(hashes[order], np.concatenate([self.values, other.values])[order])


@dataclass(frozen=True)
class GroupCounts:
    """Rows that share a value of a column: all, those with a score, those that are kept."""

    rows: int
    ok: int
    kept: int

    def __add__(self, other: "GroupCounts") -> "GroupCounts":
        return GroupCounts(self.rows + other.rows, self.ok + other.ok, self.kept + other.kept)


@dataclass(frozen=True)
class Survey:
    """Counts and examples of some rows; adding two is the survey of both.

    Attributes:
        ok, eligible, kept: [IFD_BINS + 1] rows by IFD.
        ppl: [100, 100] rows with a score by log10 of direct and of conditioned perplexity.
        by_answer, by_prompt: [56, 75] rows with a score by log2 of tokens and by IFD.
        prompt_tokens, answer_tokens: Of rows with a score.
        truncated: Rows of which the window cut the answer.
        picks: Kind -> rows to read.
        points: Rows for plots of points.
        groups: Value -> its rows; None where no column was asked for, or it has too many values.
    """

    ok: Ints
    eligible: Ints
    kept: Ints
    ppl: Ints
    by_answer: Ints
    by_prompt: Ints
    prompt_tokens: int
    answer_tokens: int
    truncated: int
    picks: Mapping[str, Picks]
    points: Points
    groups: Mapping[str, GroupCounts] | None

    def __add__(self, other: "Survey") -> "Survey":
        return Survey(
            self.ok + other.ok,
            self.eligible + other.eligible,
            self.kept + other.kept,
            self.ppl + other.ppl,
            self.by_answer + other.by_answer,
            self.by_prompt + other.by_prompt,
            self.prompt_tokens + other.prompt_tokens,
            self.answer_tokens + other.answer_tokens,
            self.truncated + other.truncated,
            _added(self.picks, other.picks),
            self.points + other.points,
            _groups_added(self.groups, other.groups),
        )

    def cutoff_of_best(self, rows: int) -> float | None:
        """About the IFD of the last of the so many best eligible rows; None where none is kept.

        Too low by `IFD_WIDTH` at most.
        """
        best_first = np.cumsum(self.eligible[::-1])
        wanted = min(rows, int(best_first[-1]))
        if not wanted:
            return None
        return float(IFD_WIDTH * (IFD_BINS - int(np.searchsorted(best_first, wanted))))


def survey_of(
    rows: SurveyedRows, truncated: int, groups: Mapping[str, GroupCounts] | None
) -> Survey:
    """Surveys rows.

    Args:
        rows: They.
        truncated: How many of them the window cut.
        groups: What they come to by the values of a column.
    """
    ok, log_direct = rows.ok, _log10(rows.ppl_direct)
    shown = ok & (rows.answer_tokens > 0)
    return Survey(
        _by_ifd(rows.ifd[ok]),
        _by_ifd(rows.ifd[ok & rows.eligible]),
        _by_ifd(rows.ifd[ok & rows.kept]),
        _density(log_direct[ok], PPL_EDGES, _log10(rows.ppl_conditioned)[ok], PPL_EDGES),
        _by_tokens(rows.answer_tokens[shown], rows.ifd[shown]),
        _by_tokens(rows.prompt_tokens[ok], rows.ifd[ok]),
        int(rows.prompt_tokens[ok].sum()),
        int(rows.answer_tokens[ok].sum()),
        truncated,
        _picks_of(rows),
        _points_of(rows),
        groups,
    )


def nothing(with_groups: bool) -> Survey:
    """The survey of no rows."""
    floats, counts, flags = np.empty(0), np.empty(0, np.int64), np.empty(0, np.bool_)
    status = np.empty(0, np.object_)
    rows = SurveyedRows(
        counts, status, counts, counts, floats, floats, floats, flags, flags, cutoff=floats
    )
    return survey_of(rows, 0, {} if with_groups else None)


def total(parts: Iterable[Survey], with_groups: bool) -> Survey:
    """The survey of all parts."""
    return reduce(lambda one, other: one + other, parts, nothing(with_groups))


def groups_of(values: Sequence[str], which: Ints, ok: Flags, kept: Flags) -> dict[str, GroupCounts]:
    """Counts rows by value.

    Args:
        values: The values that occur.
        which: [n] which of them each row has.
        ok, kept: [n]
    """
    count = len(values)
    columns = (
        np.bincount(which[flags], minlength=count).tolist() for flags in (slice(None), ok, kept)
    )
    return {
        value: GroupCounts(*counts)
        for value, *counts in zip(values, *columns, strict=True)
        if counts[0]
    }


def _by_ifd(ifd: Floats) -> Ints:
    bins = np.minimum(ifd / IFD_WIDTH, IFD_BINS).astype(np.int64)
    return np.bincount(bins, minlength=IFD_BINS + 1).astype(np.int64)


def _by_tokens(tokens: Ints, ifd: Floats) -> Ints:
    return _density(np.log2(np.maximum(tokens, 1)), TOKEN_EDGES, ifd, IFD_EDGES)


def _density(x: Floats, x_edges: Floats, y: Floats, y_edges: Floats) -> Ints:
    """[n] and [n] -> [x bins, y bins]; what lies beyond an end counts in the last bin there."""
    shape = len(x_edges) - 1, len(y_edges) - 1
    at = [
        np.clip(((v - e[0]) / (e[1] - e[0])).astype(np.int64), 0, len(e) - 2)
        for v, e in ((x, x_edges), (y, y_edges))
    ]
    flat = np.bincount(at[0] * shape[1] + at[1], minlength=shape[0] * shape[1])
    return flat.reshape(shape).astype(np.int64)


def _log10(values: Floats) -> Floats:
    with np.errstate(invalid="ignore"):
        return np.log10(values)


def _picks_of(rows: SurveyedRows) -> dict[str, Picks]:
    ok, ifd = rows.ok, rows.ifd
    missed = ok & rows.eligible & ~rows.kept & (ifd <= rows.cutoff)
    kinds = {
        "best": (-ifd, rows.kept),
        "last kept": (ifd - rows.cutoff, rows.kept),
        "first missed": (rows.cutoff - ifd, missed),
        "below 1": (-ifd, ok & (ifd < 1)),
        "above 1": (ifd, ok & (ifd >= 1)),
        "lowest": (ifd, ok),
    }
    picks = {name: Picks.of(keys, rows, among) for name, (keys, among) in kinds.items()}
    by_place = rows.positions.astype(np.float64)
    for status in np.unique(rows.status[~ok].astype(str)):
        picks[f"status {status}"] = Picks.of(by_place, rows, ~ok & (rows.status == status))
    return picks


def _points_of(rows: SurveyedRows) -> Points:
    with np.errstate(over="ignore"):  # a hash: each bit of a position decides half of all bits
        hashes = (rows.positions.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        hashes = (hashes ^ (hashes >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)
    at = np.flatnonzero(rows.ok)
    if len(at) > POINTS:
        at = at[np.argpartition(hashes[at], POINTS)[:POINTS]]
    at = at[np.argsort(hashes[at], kind="stable")]
    columns = (
        *(rows.ppl_direct, rows.ppl_conditioned, rows.ifd),
        *(rows.prompt_tokens, rows.answer_tokens, rows.kept),
    )
    return Points(hashes[at], np.stack([column[at].astype(np.float64) for column in columns], 1))


def _added(one: Mapping[str, Picks], other: Mapping[str, Picks]) -> dict[str, Picks]:
    return {
        name: one[name] + other[name]
        if name in one and name in other
        else one.get(name) or other[name]
        for name in {**one, **other}
    }


def _groups_added(
    one: Mapping[str, GroupCounts] | None, other: Mapping[str, GroupCounts] | None
) -> dict[str, GroupCounts] | None:
    if one is None or other is None or len({*one, *other}) > MOST_GROUPS:
        return None
    return {
        value: one.get(value, GroupCounts(0, 0, 0)) + other.get(value, GroupCounts(0, 0, 0))
        for value in {**one, **other}
    }
