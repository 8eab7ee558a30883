"""Surveys of parts add up to the survey of all, and say what a look at every row says."""

import functools
import itertools
import operator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sf_ray.config.quotas import rows_to_keep
from sf_ray.corpus.status import Status
from sf_ray.output.report.row_kinds import ScoreKind, StatusKind
from sf_ray.output.report.survey import (
    IFD_BINS,
    IFD_WIDTH,
    MOST_GROUPS,
    PPL_EDGES,
    GroupCounts,
    Survey,
    groups_of,
    nothing,
    survey_of,
)
from sf_ray.output.report.surveyed_rows import PICKS, SurveyedRows
from tests.support.surveys import make_rows, part


def assert_same(one: Survey, other: Survey) -> None:
    for name in ("ok", "eligible", "kept", "ppl", "by_answer", "by_prompt"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for name in ("prompt_tokens", "answer_tokens", "truncated", "groups"):
        assert getattr(one, name) == getattr(other, name)
    assert one.picks.keys() == other.picks.keys()
    for kind in one.picks:
        np.testing.assert_array_equal(one.picks[kind].positions, other.picks[kind].positions)
        np.testing.assert_array_equal(one.picks[kind].kept, other.picks[kind].kept)
    np.testing.assert_array_equal(one.points.values, other.points.values)


@given(st.integers(0, 4000), st.lists(st.integers(0, 4000), max_size=4), st.booleans(), st.data())
@settings(max_examples=25)
def test_parts_in_any_order_add_up_to_the_whole(
    count: int, cuts: list[int], ties: bool, data: st.DataObject
) -> None:
    rows = make_rows(count, seed=count, ties=ties)
    values, which = ["a", "b"], np.arange(count) % 2

    def survey(at: slice) -> Survey:
        of_part = part(rows, at)
        groups = groups_of(values, which[at], of_part.ok, of_part.kept)
        return survey_of(of_part, len(of_part.ifd), groups)

    edges = sorted({0, count, *(cut for cut in cuts if cut <= count)})
    parts = [survey(slice(a, b)) for a, b in itertools.pairwise(edges)]
    parts = data.draw(st.permutations(parts))
    whole = survey(slice(0, count)) + nothing(True)
    assert_same(functools.reduce(operator.add, parts, nothing(True)), whole)


@pytest.mark.parametrize("ties", [False, True])
def test_counts_and_picks_are_those_of_a_look_at_every_row(ties: bool) -> None:
    rows = make_rows(5000, seed=3, ties=ties)
    survey = survey_of(rows, 7, None)
    ok = ~np.isnan(rows.ifd)
    assert survey.ok.sum() == ok.sum() == survey.ppl.sum() == survey.by_prompt.sum()
    assert survey.kept.sum() == rows.kept.sum()
    assert survey.truncated == 7
    assert survey.answer_tokens == rows.answer_tokens[ok].sum()
    above_two = (rows.ifd[ok] >= 2).sum()
    assert survey.ok[-1] == above_two
    edges = PPL_EDGES.copy()
    edges[0], edges[-1] = -np.inf, np.inf
    expected, *_ = np.histogram2d(
        np.log10(rows.ppl_direct[ok]), np.log10(rows.ppl_conditioned[ok]), (edges, edges)
    )
    np.testing.assert_array_equal(survey.ppl, expected)

    def first(keys: np.ndarray, among: np.ndarray) -> list[int]:
        return sorted(np.flatnonzero(among), key=lambda at: (keys[at], at))[:PICKS]

    ifd = np.nan_to_num(rows.ifd)
    missed = rows.eligible & ~rows.kept
    for kind, keys, among in (
        (ScoreKind.BEST, -ifd, rows.kept),
        (ScoreKind.LAST_KEPT, ifd, rows.kept),
        (ScoreKind.FIRST_MISSED, -ifd, missed),
        (ScoreKind.BELOW_1, -ifd, ok & (ifd < 1)),
        (ScoreKind.ABOVE_1, ifd, ok & (ifd >= 1)),
        (ScoreKind.LOWEST, ifd, ok),
        (StatusKind(Status.BAD_ROW), np.arange(5000), rows.status == "bad_row"),
    ):
        assert survey.picks[kind].positions.tolist() == first(keys, among), kind
        np.testing.assert_array_equal(
            survey.picks[kind].kept, rows.kept[survey.picks[kind].positions]
        )


@given(st.integers(1, 3000), st.floats(0.001, 1))
@settings(max_examples=50)
def test_the_cut_off_of_a_fraction_is_right_to_a_bin(count: int, fraction: float) -> None:
    rows = make_rows(count, seed=count + 1)
    eligible = np.sort(rows.ifd[rows.eligible])[::-1]
    wanted = rows_to_keep(count, fraction)
    found = survey_of(rows, 0, None).cutoff_of_best(wanted)
    if not wanted or not len(eligible):
        assert found is None
        return
    exact = eligible[min(wanted, len(eligible)) - 1]
    assert found is not None
    assert found <= exact < found + IFD_WIDTH


def test_groups_count_rows_and_too_many_of_them_are_none() -> None:
    which = np.array([0, 1, 1, 0, 1])
    ok, kept = np.array([1, 1, 0, 1, 1], bool), np.array([1, 0, 0, 0, 1], bool)
    groups = groups_of(["a", "b", "c"], which, ok, kept)
    assert groups == {"a": GroupCounts(2, 2, 1), "b": GroupCounts(3, 2, 1)}
    one = survey_of(make_rows(3, 0), 0, groups)
    assert (one + one).groups == {"a": GroupCounts(4, 4, 2), "b": GroupCounts(6, 4, 2)}
    many = {str(number): GroupCounts(1, 1, 0) for number in range(MOST_GROUPS)}
    assert (one + survey_of(make_rows(3, 0), 0, many)).groups is None


def test_values_at_the_ends_of_the_axes_count_in_the_last_bins() -> None:
    rows = make_rows(6, 0)
    edge = SurveyedRows(
        rows.positions,
        np.array(["ok"] * 6, object),
        np.array([0, 1, 2**14, 2**20, 5, 5]),
        np.array([1, 1, 2**14, 2**20, 5, 5]),
        np.array([1, 1, 1e5, 1e300, 10, 10.0]),
        np.array([1, 1, 1e5, 1e300, 10, 10.0]),
        np.array([0.0, 1.5, 2.0, 1e9, 0.5, 0.5]),
        np.full(6, np.nan),
        np.zeros(6, bool),
        np.full(6, np.nan),
    )
    survey = survey_of(edge, 0, None)
    assert survey.ppl.sum() == 6
    assert survey.ppl[-1, -1] == 2
    assert survey.by_prompt[-1, -1] == 2
    assert survey.ok[0] == 1
    assert survey.ok[IFD_BINS] == 2
