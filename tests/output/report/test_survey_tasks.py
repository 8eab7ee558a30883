"""A survey of scores written by hand, and the rows that it reads; tasks run in this process."""

import dataclasses
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sf_ray.corpus.formats import resolve_format
from sf_ray.corpus.planning import plan_corpus
from sf_ray.corpus.units import units_of
from sf_ray.output.report import survey_tasks
from sf_ray.output.report.survey_tasks import NormalisedRequest, summarise
from sf_ray.selection.bitmap import Bitmap
from sf_ray.selection.chunks import Eligible, Kept
from sf_ray.selection.corpus_pass import CorpusPass
from sf_ray.selection.cutoffs import Bounds, Cutoff, Cutoffs
from sf_ray.selection.diversity.partition import Diversified
from sf_ray.selection.group_column import find_column
from sf_ray.selection.lengths import length_of
from sf_ray.selection.ranking import GroupCutoff, Ranking
from sf_ray.selection.selection import Selection
from sf_ray.storage.location import Location
from tests.support.scored import InThisProcess, write_pieces

IFD = [0.5, 0.9, None, 0.5, 1.4, 0.7, 0.8]
TOKENS = [2, 50, None, 2, 50, 2, 50]
ROWS = NormalisedRequest(below=1, keep_tokens=None)


def bitmap_of(*positions: int) -> Bitmap:
    bitmap = Bitmap.empty(len(IFD))
    bitmap.add(np.array(positions, np.int64))
    return bitmap


@pytest.fixture
def selection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Selection:
    """Row 3 is a duplicate; the cut-off keeps 1, 5, 6 and 0, and diversity 1 and 5 of those."""
    monkeypatch.setattr(
        survey_tasks, "parallel_map", lambda function, items, _: map(function, items)
    )
    rows = [
        {"instruction": f"ask {row}", "output": f"say {row}", "source": "ab"[row % 2]}
        for row in range(len(IFD))
    ]
    rows[2]["output"] = ""
    for name, part in (("a.parquet", rows[:4]), ("b.parquet", rows[4:])):
        (tmp_path / "corpus").mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist(part), tmp_path / "corpus" / name, row_group_size=3)
    corpus = plan_corpus(Location(str(tmp_path / "corpus")))
    units = [(shard, units_of(shard.row_groups, 2)) for shard in corpus.shards]
    (tmp_path / "scores").mkdir()
    scores = Location(str(tmp_path / "scores"))
    write_pieces(scores, units, [
        {"status": "empty_answer"} if ifd is None else {
            "prompt_tokens": 3, "answer_tokens": TOKENS[row], "truncated": row == 1,
            "ppl_direct": 10.0, "ppl_conditioned": 10 * ifd, "ifd": ifd,
        }
        for row, ifd in enumerate(IFD)
    ])  # fmt: skip
    return Selection(
        corpus,
        cast(CorpusPass, InThisProcess()),
        units,
        Kept(Eligible(scores, Bounds(0, 1)), Cutoffs((Cutoff(0.5, 0),))),
        Ranking({}, (), (GroupCutoff("", 7, 3, 4, 3, Cutoff(0.5, 0)),)),
        bitmap_of(3),
        Diversified(2, bitmap_of(1, 5), 1.0, True, 1.0),
    )


def test_a_survey_counts_what_was_scored_what_could_be_kept_and_what_is(
    selection: Selection,
) -> None:
    column = find_column(selection.corpus.schema, "source")
    summary = summarise(selection, resolve_format(["instruction", "output"]), column, ROWS)
    survey = summary.survey
    counts = [int(counts.sum()) for counts in (survey.ok, survey.eligible, survey.kept)]
    assert counts == [6, 4, 2]  # the duplicate is not eligible, nor is an IFD of 1.4
    assert (survey.prompt_tokens, survey.answer_tokens, survey.truncated) == (18, 156, 1)
    assert summary.column == "source"
    assert survey.groups is not None
    assert {value: (g.rows, g.ok, g.kept) for value, g in survey.groups.items()} == {
        "a": (4, 3, 0),
        "b": (3, 3, 2),
    }


def test_picked_rows_are_read_once_with_all_that_they_say_and_why_they_are_shown(
    selection: Selection,
) -> None:
    summary = summarise(selection, resolve_format(["instruction", "output"]), None, ROWS)
    assert (summary.column, summary.survey.groups) == ("", None)
    shown = [(row.shard, row.row) for row in summary.rows]
    assert shown == sorted(set(shown))
    assert len(shown) == len(IFD)  # so few that all of them are worth a look
    by_place = dict(zip(shown, summary.rows, strict=True))
    best = by_place["a.parquet", 1]
    assert best.is_kept
    assert [text.text for text in best.texts] == ["ask 1", "say 1"]
    assert best.scores["ifd"] == 0.9
    assert best.scores["answer_tokens"] == 50
    assert len(best.kinds) > 1
    empty = by_place["a.parquet", 2]
    assert (empty.is_kept, empty.status, empty.scores) == (False, "empty_answer", {})
    assert not by_place["b.parquet", 2].is_kept  # diversity has left it out


def test_rows_are_counted_by_length_and_held_against_what_normalised_lengths_would_keep(
    selection: Selection,
) -> None:
    def of_lengths(
        selection: Selection, request: NormalisedRequest
    ) -> tuple[list[int] | None, ...]:
        summary = summarise(selection, resolve_format(["instruction", "output"]), None, request)
        found = summary.answer_lengths
        assert found is not None
        assert found.rows.sum() == 6
        return tuple(
            None if counts is None else counts[length_of(np.array([2, 50]))].tolist()
            for counts in (found.rows, found.eligible, found.kept, found.normalised)
        )

    # Diversity chooses further than lengths do.
    assert of_lengths(selection, ROWS) == ([3, 3], [2, 2], [1, 1], None)
    without = dataclasses.replace(selection, diversity=None)
    assert of_lengths(without, ROWS) == ([3, 3], [2, 2], [2, 2], [2, 1])
    # Two of the four rows that could be kept lie below 0.75, and have 10 of the tokens.
    below = NormalisedRequest(below=0.75, keep_tokens=5)
    assert of_lengths(without, below) == ([3, 3], [2, 2], [2, 2], [1, 0])
