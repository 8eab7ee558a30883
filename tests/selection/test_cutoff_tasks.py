"""Counting over chunks of score pieces, in this process: no Ray."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sf_ray.corpus.planning import plan_corpus
from sf_ray.corpus.units import Place, units_of
from sf_ray.errors import SfRayError
from sf_ray.scoring.bad_rows import BadRow
from sf_ray.selection import group_column
from sf_ray.selection.bitmap import Bitmap
from sf_ray.selection.chunks import Chunk, Eligible, Grouping
from sf_ray.selection.corpus_pass import CorpusPass, chunks_of
from sf_ray.selection.cutoff_tasks import count_rows, count_values, gather_rows, rank
from sf_ray.selection.cutoffs import Bounds, Cutoff, GroupRange
from sf_ray.selection.group_column import find_column
from sf_ray.selection.ranking import GroupCutoff, GroupRequest
from sf_ray.selection.score_range import ScoreRange, value_of
from sf_ray.storage.location import Location
from tests.support.scored import InThisProcess, shards_of, write_pieces

in_this_process = cast(CorpusPass, InThisProcess())

# Two shards, units of 4 rows; ties, rows without a score, and rows out of bounds.
IFD = [0.5, 0.9, None, 0.5, 0.7, 1.2, 0.7, 0.1, 0.9, None, 0.3, 0.7, None, 0.2]
UNITS = shards_of(9, 5, unit_rows=4)
ROWS: list[dict[str, Any]] = [
    {"ifd": ifd} if ifd is not None else {"status": "bad_row"} for ifd in IFD
]


class ByParity:
    """Stands for a `Grouping`: rows at even positions are one group, the others another."""

    def codes(self, places: list[Place]) -> np.ndarray:
        return Chunk(places).positions % 2


@pytest.fixture
def scores(tmp_path: Path) -> Location:
    location = Location(str(tmp_path))
    write_pieces(location, UNITS, ROWS)
    return location


def best(positions: list[int], wanted: int) -> list[int]:
    """The best of some rows, by sorting; only those of IFD below 1 count."""
    eligible = [p for p in positions if IFD[p] is not None and IFD[p] < 1]
    return sorted(eligible, key=lambda p: (-IFD[p], p))[:wanted]


@pytest.mark.parametrize("wanted", [1, 2, 3, 5, 10])
def test_the_wanted_rows_are_those_of_sorting_whatever_the_chunks(
    scores: Location, wanted: int
) -> None:
    for units_a_task in (1, 2, 100):
        chunks = chunks_of(UNITS, units_a_task=units_a_task)
        eligible = Eligible(scores, Bounds(0, 1))
        requests = [GroupRequest("", len(IFD), wanted)]
        ranking = rank(in_this_process, chunks, len(IFD), eligible, requests)
        last = best(list(range(len(IFD))), wanted)[-1]
        assert ranking.groups == (
            GroupCutoff("", len(IFD), wanted, 10, wanted, Cutoff(IFD[last], last)),
        )
        assert (ranking.wanted, ranking.eligible, ranking.kept) == (wanted, 10, wanted)


def test_fewer_eligible_rows_than_wanted_are_all_kept_and_none_wanted_need_no_cutoff(
    scores: Location,
) -> None:
    chunks, eligible = chunks_of(UNITS), Eligible(scores, Bounds(0, 1))
    many, none = (
        rank(in_this_process, chunks, len(IFD), eligible, [GroupRequest("", len(IFD), wanted)])
        for wanted in (50, 0)
    )
    assert many.groups[0] == GroupCutoff("", len(IFD), 50, 10, 10, Cutoff(0.1, 7))
    assert none.groups[0] == GroupCutoff("", len(IFD), 0, 10, 0, None)
    assert none.cutoffs.by_group == (None,)


def test_each_group_has_a_cutoff_of_its_own(scores: Location) -> None:
    grouping = cast(Grouping, ByParity())
    eligible = Eligible(scores, Bounds(0, 1), grouping=grouping)
    requests = [GroupRequest("even", 7, 2), GroupRequest("odd", 7, 1), GroupRequest("absent", 0, 3)]
    chunks = chunks_of(UNITS, units_a_task=1)
    ranking = rank(in_this_process, chunks, len(IFD), eligible, requests)
    even, odd = best(list(range(0, 14, 2)), 2), best(list(range(1, 14, 2)), 1)
    assert ranking.groups == (
        GroupCutoff("even", 7, 2, 5, 2, Cutoff(IFD[even[-1]], even[-1])),
        GroupCutoff("odd", 7, 1, 5, 1, Cutoff(IFD[odd[-1]], odd[-1])),
        GroupCutoff("absent", 0, 3, 0, 0, None),
    )


def test_dropped_rows_are_never_eligible(scores: Location) -> None:
    dropped = Bitmap.empty(len(IFD))
    dropped.add(np.array([1, 8]))  # the two best
    chunks = chunks_of(UNITS, dropped, units_a_task=1)
    requests = [GroupRequest("", len(IFD), 1)]
    ranking = rank(in_this_process, chunks, len(IFD), Eligible(scores, Bounds(0, 1)), requests)
    assert ranking.groups[0] == GroupCutoff("", len(IFD), 1, 8, 1, Cutoff(0.7, 4))


def test_statuses_are_counted_and_the_first_bad_rows_named_whichever_chunk_ends_first(
    tmp_path: Path,
) -> None:
    bad = {0: "empty_answer", 5: "bad_row", 6: "bad_row", 9: "engine_error", 13: "bad_row"}
    rows = [{"ifd": 0.5} if row not in bad else {"status": bad[row]} for row in range(13)]
    rows.append({"status": "answer_too_short"})  # of which nobody is to blame
    write_pieces(Location(str(tmp_path)), UNITS, rows)
    chunks = chunks_of(UNITS, units_a_task=1)
    eligible = Eligible(Location(str(tmp_path)), Bounds(0, 1))
    ranking = rank(in_this_process, chunks, 14, eligible, [GroupRequest("", 14, 1)])
    assert ranking.status_counts == {
        "ok": 9, "empty_answer": 1, "bad_row": 2, "engine_error": 1, "answer_too_short": 1
    }  # fmt: skip
    assert ranking.bad == (
        BadRow("a.parquet", 0, "empty_answer"),
        BadRow("a.parquet", 5, "bad_row"),
        BadRow("a.parquet", 6, "bad_row"),
    )


def test_rows_of_ranges_are_counted_and_gathered_over_all_chunks(scores: Location) -> None:
    chunks, eligible = chunks_of(UNITS, units_a_task=1), Eligible(scores, Bounds(0, 1))
    halves = [
        GroupRange(0, ScoreRange.between(low, high, len(IFD))) for low, high in ((0, 0.5), (0.5, 1))
    ]
    counts = count_rows(in_this_process, chunks, eligible, halves)
    assert counts.shape == (2, halves[0].range.bins)
    assert counts.sum(axis=1).tolist() == [3, 7]
    low, high = gather_rows(in_this_process, chunks, eligible, halves)
    assert sorted(low.positions.tolist()) == [7, 10, 13]
    assert sorted(high.positions.tolist()) == [0, 1, 3, 4, 6, 8, 11]
    assert [IFD[p] for p in high.positions] == list(map(value_of, high.bits))


def test_values_of_a_column_are_counted_and_too_many_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pa.table({"source": ["web", "chat", None, "web", "chat", "web", "code"]})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=3)
    corpus = plan_corpus(Location(str(tmp_path)))
    units = [(shard, units_of(shard.row_groups, 3)) for shard in corpus.shards]
    chunks = chunks_of(units, units_a_task=1)
    column = find_column(corpus.schema, "source")
    counts = count_values(in_this_process, chunks, corpus.location, column)
    assert counts == {"web": 3, "chat": 2, "code": 1, "null": 1}
    # No chunk has more than three values.
    monkeypatch.setattr(group_column, "MOST_VALUES", 3)
    with pytest.raises(SfRayError, match="has more than 3 values"):
        count_values(in_this_process, chunks, corpus.location, column)
