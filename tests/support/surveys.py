"""Random rows for a survey: with every status, and rows without scores."""

from typing import Any

import numpy as np

from sf_ray.output.report.answer_lengths import AnswerLengths, LengthCounts
from sf_ray.output.report.row_kinds import RowKind
from sf_ray.output.report.summary import ShownRow, ShownText
from sf_ray.output.report.surveyed_rows import SurveyedRows, points_of

# Text of a corpus that would run, load or hide something, were it not escaped.
MARKUP = (
    "<script>document.title='run'</script><img src=x onerror=\"document.title='run'\">"
    "</pre></details><style>*{display:none}</style><iframe src='javascript:1'></iframe>"
    "<svg onload=\"document.title='run'\"> {{ 7 * 7 }} {% raw %} \u202e ‮ עברית العربية 🎉 \x1b[31m"
)


def make_rows(count: int, seed: int, ties: bool = False) -> SurveyedRows:
    rng = np.random.default_rng(seed)
    ifd = rng.lognormal(-0.3, 0.4, count)
    if ties:
        ifd = np.round(ifd, 1) + 0.05
    ok = rng.random(count) < 0.8
    status = np.where(ok, "ok", rng.choice(["bad_row", "empty_answer"], count)).astype(object)
    direct = rng.lognormal(3, 2, count)
    eligible = ok & (ifd < 1)
    kept = eligible & (ifd > 0.7)
    return SurveyedRows(
        np.arange(count),
        status,
        np.where(ok, rng.integers(0, 3000, count), -1),
        np.where(ok, rng.integers(1, 900, count), -1),
        np.where(ok, direct, np.nan),
        np.where(ok, direct * ifd, np.nan),
        np.where(ok, ifd, np.nan),
        np.where(eligible, ifd, np.nan),
        kept,
        np.full(count, 0.7),
    )


def lengths_of(rows: SurveyedRows) -> AnswerLengths:
    """As a run by IFD counts them that wants as many rows as it keeps."""
    counts = LengthCounts.of(rows, np.zeros(len(rows.ifd), np.int64), below=1)
    normalised = counts.normalised([int(rows.kept.sum())], None)
    return AnswerLengths.of(counts, normalised, points_of(rows))


def make_lengths(count: int, seed: int) -> AnswerLengths:
    return lengths_of(make_rows(count, seed))


def part(rows: SurveyedRows, at: slice) -> SurveyedRows:
    """Some of the rows."""
    return SurveyedRows(*(values[at] for values in vars(rows).values()))


def shown(kind: RowKind, text: str, **values: Any) -> ShownRow:
    """A row to show, of a user who says the text."""
    defaults: dict[str, Any] = {
        "kinds": (kind,),
        "shard": "a.parquet",
        "row": 1,
        "status": "ok",
        "reason": "",
        "is_kept": True,
        "scores": {"ifd": 0.8125, "ppl_direct": 3.0, "prompt_tokens": 4},
    }
    return ShownRow.of([ShownText("user", text), ShownText("assistant", "so")], **defaults | values)
