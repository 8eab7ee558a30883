"""A summary comes back as it was kept, and is of bounded size."""

import json
from collections import Counter

import numpy as np
import pytest

from sf_ray.corpus.status import Status
from sf_ray.errors import SfRayError
from sf_ray.output.report.row_kinds import ScoreKind, StatusKind
from sf_ray.output.report.summary import ShownRow, ShownText, Summary
from sf_ray.output.report.survey import GroupCounts, nothing, survey_of
from tests.support.manifests import OLD
from tests.support.surveys import make_lengths, make_rows, shown


def test_a_summary_comes_back_as_it_was_kept() -> None:
    survey = survey_of(make_rows(3000, 1), 2, {"ü": GroupCounts(3, 2, 1)})
    row = ShownRow.of(
        [
            ShownText("user", "half of a pair: \ud800 " + "x" * 5000),
            *[ShownText("user", "more")] * 20,
        ],
        kinds=(ScoreKind.BEST, StatusKind(Status.BAD_ROW)),
        shard="a.parquet",
        row=3,
        status="ok",
        reason="",
        is_kept=True,
        scores={"ifd": 0.5, "answer_tokens": 3},
    )
    assert row.omitted == 13
    assert len(row.texts) == 8
    assert row.texts[0].omitted == 5018 - len(row.texts[0].text)
    lengths = make_lengths(3000, 1)
    kept = Summary(survey, "source", (row,), ("id (text)",), lengths)
    back = Summary.from_json(kept.to_json(), "there")
    assert back.rows == (row,)
    assert (back.column, back.unused) == ("source", ("id (text)",))
    np.testing.assert_allclose(back.survey.points.values, survey.points.values, rtol=1e-4)
    for name in ("ok", "eligible", "kept", "ppl", "by_answer", "by_prompt"):
        np.testing.assert_array_equal(getattr(back.survey, name), getattr(survey, name))
    assert back.survey.groups == {"ü": GroupCounts(3, 2, 1)}
    assert back.answer_lengths is not None
    for name in ("rows", "eligible", "kept", "normalised"):
        np.testing.assert_array_equal(getattr(back.answer_lengths, name), getattr(lengths, name))
    assert back.answer_lengths.correlation == pytest.approx(lengths.correlation, rel=1e-4)
    assert back.answer_lengths.correlated_rows == lengths.correlated_rows
    assert back.to_json() == Summary.from_json(back.to_json(), "there").to_json()
    assert Counter(back.survey.ok.tolist()) == Counter(survey.ok.tolist())


@pytest.mark.parametrize("run", ["out", "diverse"])
def test_a_summary_of_version_0_1_0_is_written_back_byte_for_byte(run: str) -> None:
    data = (OLD / run / "summary.json").read_bytes()
    assert Summary.from_json(data, "there").to_json() == data


def test_kinds_are_kept_as_plain_words() -> None:
    rows = (shown(ScoreKind.LAST_KEPT, "a"), shown(StatusKind(Status.NO_PROMPT), "b"))
    kept = json.loads(Summary(nothing(False), "", rows).to_json())
    assert [row["kinds"] for row in kept["rows"]] == [["last kept"], ["status no_prompt"]]


@pytest.mark.parametrize(
    "data", [b"", b"[]", b'{"summary_version": 99}', b'{"summary_version": 1}']
)
def test_what_is_no_summary_is_refused(data: bytes) -> None:
    with pytest.raises(SfRayError, match="out/summary.json is not a summary"):
        Summary.from_json(data, "out/summary.json")


@pytest.mark.parametrize("kind", ["of no kind", "status of_no_kind"])
def test_a_row_of_an_unknown_kind_is_no_summary_of_this_version(kind: str) -> None:
    kept = json.loads(Summary(nothing(False), "", (shown(ScoreKind.BEST, "a"),)).to_json())
    kept["rows"][0]["kinds"] = [kind]
    with pytest.raises(SfRayError, match="there is not a summary"):
        Summary.from_json(json.dumps(kept).encode(), "there")


def test_counts_of_other_lengths_are_no_summary_of_this_version() -> None:
    summary = Summary(nothing(False), "", (), answer_lengths=make_lengths(100, 1))
    kept = json.loads(summary.to_json())
    kept["answer_lengths"]["lengths"][0]["least_tokens"] = 11
    with pytest.raises(SfRayError, match="there is not a summary"):
        Summary.from_json(json.dumps(kept).encode(), "there")


def test_rows_of_a_kind_are_in_its_order_and_equal_ones_by_place() -> None:
    both = (ScoreKind.FIRST_MISSED, ScoreKind.LAST_KEPT)
    values = ((0.5, "b", 2), (0.7, "a", 9), (0.5, "b", 1), (0.6, "a", 3))
    rows = [
        shown(ScoreKind.BEST, "", kinds=both, scores={"ifd": ifd}, shard=shard, row=row)
        for ifd, shard, row in values
    ]
    summary = Summary(nothing(False), "", (*rows, shown(ScoreKind.BEST, "")))
    lowest_first = [("b", 1), ("b", 2), ("a", 3), ("a", 9)]
    assert [row.place for row in summary.rows_of(ScoreKind.LAST_KEPT)] == lowest_first
    highest_first = [("a", 9), ("a", 3), ("b", 1), ("b", 2)]
    assert [row.place for row in summary.rows_of(ScoreKind.FIRST_MISSED)] == highest_first
    assert summary.rows_of(StatusKind(Status.BAD_ROW)) == []


def test_many_texts_keep_the_first_ones_and_the_last() -> None:
    texts = [ShownText("user", str(number)) for number in range(12)]
    values = vars(shown(ScoreKind.BEST, ""))
    others = {name: values[name] for name in values if name not in ("texts", "omitted")}
    row = ShownRow.of(texts, **others)
    assert [text.text for text in row.texts] == ["0", "1", "2", "3", "4", "5", "6", "11"]
    assert row.omitted == 4
