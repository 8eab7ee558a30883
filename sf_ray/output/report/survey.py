"""What a report shows of all scores: counts in fixed bins, and a few rows one by one.

A survey has a bounded size, however large the corpus is: parts of the corpus are surveyed
separately, and their surveys are added in any order. Plain arrays: this module does not know where
scores lie or how a survey is shown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sf_ray.output.report.row_kinds import RowKind
from sf_ray.output.report.surveyed_rows import (
    Flags,
    Floats,
    Ints,
    Picks,
    Points,
    SurveyedRows,
    picks_of,
    points_of,
)

# Bins of IFD are this wide and end at 2; one more bin holds the rows above.
IFD_WIDTH, IFD_BINS = 1 / 4096, 8192
# Bins of the densities: log10 of a perplexity, IFD, log2 of a number of tokens. The first and the
# last bin also hold the rows beyond them.
PPL_EDGES = np.linspace(0, 5, 101)
IFD_EDGES = np.linspace(0, 1.5, 76)
TOKEN_EDGES = np.linspace(0, 14, 57)
# A column with more values than this is not counted by value: it holds names or texts, not groups.
MOST_GROUPS = 1000


@dataclass(frozen=True)
class GroupCounts:
    """Counts of the rows that share a value of a column.

    Attributes:
        rows: All of them.
        ok: Rows with a score.
        kept: Rows that are kept.
    """

    rows: int
    ok: int
    kept: int

    def __add__(self, other: "GroupCounts") -> "GroupCounts":
        return GroupCounts(self.rows + other.rows, self.ok + other.ok, self.kept + other.kept)


@dataclass(frozen=True)
class Survey:
    """Counts and examples of some rows; the sum of two is the survey of both.

    Attributes:
        ok: [IFD_BINS + 1] rows with a score, by IFD.
        eligible: [IFD_BINS + 1] rows that may be kept, by IFD.
        kept: [IFD_BINS + 1] rows that are kept, by IFD.
        ppl: [100, 100] rows with a score, by log10 of direct and of conditioned perplexity.
        by_answer: [56, 75] rows with a score, by log2 of answer tokens and by IFD.
        by_prompt: [56, 75] rows with a score, by log2 of prompt tokens and by IFD.
        prompt_tokens: Of all rows with a score.
        answer_tokens: Of all rows with a score.
        truncated: Rows whose answer is cut by the window.
        picks: Kind -> rows to read.
        points: A sample of the rows with a score.
        groups: Value of a column -> its rows; None where no column was asked for, or where the
            column has more than `MOST_GROUPS` values.
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
    picks: Mapping[RowKind, Picks]
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
            _add_picks(self.picks, other.picks),
            self.points + other.points,
            _add_groups(self.groups, other.groups),
        )

    def cutoff_of_best(self, rows: int) -> float | None:
        """The IFD from which on the best `rows` eligible rows would be kept; None for no row.

        Read from the bins: too low by `IFD_WIDTH` at most.
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
        rows: The rows.
        truncated: How many of them have an answer that the window cuts.
        groups: Counts of the rows by the values of a column; None without a column.
    """
    ok, log_direct = rows.ok, _log10(rows.ppl_direct)
    shown = ok & (rows.answer_tokens > 0)
    return Survey(
        by_ifd(rows.ifd[ok]),
        by_ifd(rows.ifd[ok & rows.eligible]),
        by_ifd(rows.ifd[ok & rows.kept]),
        _density(log_direct[ok], PPL_EDGES, _log10(rows.ppl_conditioned)[ok], PPL_EDGES),
        _by_tokens(rows.answer_tokens[shown], rows.ifd[shown]),
        _by_tokens(rows.prompt_tokens[ok], rows.ifd[ok]),
        int(rows.prompt_tokens[ok].sum()),
        int(rows.answer_tokens[ok].sum()),
        truncated,
        picks_of(rows),
        points_of(rows),
        groups,
    )


def nothing(with_groups: bool) -> Survey:
    """The survey of no rows."""
    floats, counts, flags = np.empty(0), np.empty(0, np.int64), np.empty(0, np.bool_)
    status = np.empty(0, np.object_)
    rows = SurveyedRows(
        counts, status, counts, counts, floats, floats, floats, floats, flags, floats
    )
    return survey_of(rows, 0, {} if with_groups else None)


def groups_of(values: Sequence[str], which: Ints, ok: Flags, kept: Flags) -> dict[str, GroupCounts]:
    """Counts rows by value.

    Args:
        values: The values that occur.
        which: [n] index of each row's value.
        ok: [n] whether a row has a score.
        kept: [n] whether a row is kept.
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


def by_ifd(ifd: Floats) -> Ints:
    """Counts [n] rows by their IFD: [IFD_BINS + 1]."""
    bins = np.minimum(ifd / IFD_WIDTH, IFD_BINS).astype(np.int64)
    return np.bincount(bins, minlength=IFD_BINS + 1).astype(np.int64)


def _by_tokens(tokens: Ints, ifd: Floats) -> Ints:
    return _density(np.log2(np.maximum(tokens, 1)), TOKEN_EDGES, ifd, IFD_EDGES)


def _density(x: Floats, x_edges: Floats, y: Floats, y_edges: Floats) -> Ints:
    """Counts rows by two values: [n] and [n] -> [x bins, y bins], all with edges evenly spaced."""
    shape = len(x_edges) - 1, len(y_edges) - 1
    x_bins, y_bins = (
        np.clip(((values - edges[0]) / (edges[1] - edges[0])).astype(np.int64), 0, len(edges) - 2)
        for values, edges in ((x, x_edges), (y, y_edges))
    )
    flat = np.bincount(x_bins * shape[1] + y_bins, minlength=shape[0] * shape[1])
    return flat.reshape(shape).astype(np.int64)


def _log10(values: Floats) -> Floats:
    with np.errstate(invalid="ignore"):
        return np.log10(values)


def _add_picks(
    one: Mapping[RowKind, Picks], other: Mapping[RowKind, Picks]
) -> dict[RowKind, Picks]:
    return {
        kind: one[kind] + other[kind]
        if kind in one and kind in other
        else one.get(kind) or other[kind]
        for kind in {**one, **other}
    }


def _add_groups(
    one: Mapping[str, GroupCounts] | None, other: Mapping[str, GroupCounts] | None
) -> dict[str, GroupCounts] | None:
    if one is None or other is None or len({*one, *other}) > MOST_GROUPS:
        return None
    none = GroupCounts(0, 0, 0)
    return {value: one.get(value, none) + other.get(value, none) for value in {**one, **other}}
