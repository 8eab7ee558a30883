"""Counts by length add up, and bins and correlation are those of a look at every row."""

import dataclasses
import functools
import itertools
import operator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from sf_ray.output.report.answer_lengths import AnswerLengths, LengthCounts
from sf_ray.output.report.surveyed_rows import POINTS
from sf_ray.selection.lengths import LEAST_TOKENS, LENGTHS, length_of
from tests.support.surveys import lengths_of, make_lengths, make_rows, part


@given(st.integers(0, 500), st.lists(st.integers(0, 500), max_size=4), st.data())
def test_parts_in_any_order_add_up_to_the_whole(
    count: int, cuts: list[int], data: st.DataObject
) -> None:
    rows, codes = make_rows(count, seed=count), np.arange(count) % 3

    def counts(at: slice) -> LengthCounts:
        return LengthCounts.of(part(rows, at), codes[at], below=0.9)

    edges = sorted({0, count, *(cut for cut in cuts if cut <= count)})
    parts = data.draw(st.permutations([counts(slice(a, b)) for a, b in itertools.pairwise(edges)]))
    total = functools.reduce(operator.add, parts, LengthCounts.none())

    def of_lengths(which: np.ndarray) -> list[int]:
        lengths = length_of(rows.answer_tokens[which])
        return [int((lengths == length).sum()) for length in range(LENGTHS)]

    assert total.rows.tolist() == of_lengths(rows.ok)
    assert total.eligible.tolist() == of_lengths(rows.eligible)
    assert total.kept.tolist() == of_lengths(rows.kept)
    below = rows.eligible & (np.nan_to_num(rows.ifd, nan=2) < 0.9)
    assert total.tokens == (rows.prompt_tokens + rows.answer_tokens)[below].sum()
    assert {code: of_group.tolist() for code, of_group in total.to_normalise.items()} == {
        code: of_lengths(below & (codes == code)) for code in range(3) if below[codes == code].any()
    }


@given(st.lists(st.integers(0, 40), min_size=LENGTHS, max_size=LENGTHS))
def test_bins_hold_every_row_once_and_not_much_more_than_their_part(counts: list[int]) -> None:
    rows = np.array(counts)
    bins = AnswerLengths(rows, rows // 2, rows // 3, None, None, 0).bins()
    assert [sum(getattr(one, name) for one in bins) for name in ("rows", "eligible", "kept")] == [
        rows.sum(), (rows // 2).sum(), (rows // 3).sum()
    ]  # fmt: skip
    for one, following in itertools.pairwise(bins):
        assert one.last < following.first
    for one in bins:
        assert one.rows == rows[one.first : one.last + 1].sum()
        # At either end, half of a length may belong to the next part.
        assert 0 < one.rows <= rows.sum() / 8 + rows[[one.first, one.last]].sum() / 2
        assert one.normalised is None
    assert len(bins) <= 8


def test_a_length_of_many_rows_is_a_bin_and_no_row_makes_none() -> None:
    rows = np.zeros(LENGTHS, np.int64)
    assert AnswerLengths(rows, rows, rows, rows, None, 0).bins() == []
    rows[[3, 20, 21]] = 5, 900, 5
    (one, two, three) = AnswerLengths(rows, rows, rows, rows, None, 0).bins()
    assert [(one.first, one.last), (two.first, two.last), (three.first, three.last)] == [
        (3, 3), (20, 20), (21, 21)
    ]  # fmt: skip
    assert two.normalised == 900


@pytest.mark.parametrize("count", [5, 50, 1500])
def test_the_correlation_of_few_rows_is_that_of_all(count: int) -> None:
    rows, lengths = make_rows(count, 1), make_lengths(count, 1)
    expected = spearmanr(rows.ifd[rows.ok], rows.answer_tokens[rows.ok]).statistic
    assert lengths.correlation == pytest.approx(expected, abs=1e-12)
    assert lengths.correlated_rows == rows.ok.sum()


def test_the_correlation_of_many_rows_is_that_of_a_sample() -> None:
    rows = make_rows(20_000, 1)
    # Longer answers have a higher IFD, and nothing else decides it.
    rows = dataclasses.replace(rows, ifd=np.where(rows.ok, rows.answer_tokens / 900, np.nan))
    lengths = lengths_of(rows)
    assert (lengths.correlation, lengths.correlated_rows) == (pytest.approx(1), POINTS)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_correlation_that_is_not_defined_is_none(count: int) -> None:
    rows = make_rows(count, 4)
    same = dataclasses.replace(rows, answer_tokens=np.full(count, 30))
    assert lengths_of(same).correlation is None


def test_normalised_lengths_share_out_what_each_group_wants() -> None:
    one, two = np.zeros((2, LENGTHS), np.int64)
    one[:3], two[5] = (10, 20, 30), 8
    counts = LengthCounts(one, one, one, {0: one, 2: two}, 1000)
    kept = counts.normalised([6, 7, 3], None)
    assert kept[:6].tolist() == [1, 2, 3, 0, 0, 3]
    of_tokens = LengthCounts(one, one, one, {0: one}, 1000).normalised([60], 500)
    assert of_tokens[:3].tolist() == [5, 10, 15]
    assert LengthCounts.none().normalised([9], None).sum() == 0
    assert LEAST_TOKENS[0] == 1
