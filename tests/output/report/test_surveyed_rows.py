"""Picks are the first rows by a key; points are a sample, however the corpus is cut."""

from functools import reduce

import numpy as np

from sf_ray.output.report.row_kinds import ScoreKind, StatusKind
from sf_ray.output.report.surveyed_rows import (
    PICKS,
    POINTS,
    Picks,
    SurveyedRows,
    picks_of,
    points_of,
)
from tests.support.surveys import make_rows, part


def test_picks_with_ties_at_the_last_place_go_by_position() -> None:
    rows = make_rows(100, 2)
    picks = Picks.of(np.zeros(100), rows, np.arange(100) % 2 == 1)
    assert picks.positions.tolist() == list(range(1, 2 * PICKS, 2))


def test_rows_at_the_cut_off_are_compared_with_that_of_their_group() -> None:
    rows = make_rows(40, 0)
    ifd = np.tile([0.9, 0.8, 0.5, 0.4], 10)
    cutoff = np.tile([0.9, 0.9, 0.5, 0.5], 10)
    of_two_groups = SurveyedRows(
        **vars(rows)
        | {"status": np.full(40, "ok", object), "ifd": ifd, "values": ifd}
        | {"cutoff": cutoff, "kept": ifd == cutoff}
    )
    picks = picks_of(of_two_groups)
    # The last kept row of either group is at its cut-off: by position, not by IFD.
    assert picks[ScoreKind.LAST_KEPT].positions.tolist()[:4] == [0, 2, 4, 6]
    assert picks[ScoreKind.FIRST_MISSED].keys.tolist() == sorted((cutoff - ifd)[ifd != cutoff])[:10]


def test_the_statuses_that_occur_have_picks() -> None:
    picks = picks_of(make_rows(100, 0))
    statuses = [kind.status for kind in picks if isinstance(kind, StatusKind)]
    assert statuses == ["bad_row", "empty_answer"]


def test_points_are_the_same_rows_however_the_corpus_is_cut() -> None:
    rows = make_rows(10_000, seed=5)
    whole = points_of(rows)
    assert len(whole.hashes) == POINTS
    halves = [points_of(part(rows, slice(a, a + 5000))) for a in (0, 5000)]
    both = reduce(lambda one, other: one + other, halves)
    np.testing.assert_array_equal(whole.hashes, both.hashes)
    # All over the corpus, not its beginning.
    assert abs(whole.values[:, 2].mean() - np.nanmean(rows.ifd)) < 0.03
