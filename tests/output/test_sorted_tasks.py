"""Where one output file ends and the next begins, counted in this process: no Ray."""

from dataclasses import replace
from pathlib import Path
from typing import cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sf_ray.corpus.planning import plan_corpus
from sf_ray.corpus.units import units_of
from sf_ray.output import sorted_tasks
from sf_ray.output.sorted_tasks import count_parts, find_cuts, write_in_order
from sf_ray.selection.chunks import Eligible, Kept
from sf_ray.selection.corpus_pass import CorpusPass
from sf_ray.selection.cutoffs import Bounds, Cutoff, Cutoffs
from sf_ray.selection.ranking import GroupCutoff, Ranking
from sf_ray.selection.selection import Selection
from sf_ray.storage.location import Location
from tests.support.scored import InThisProcess, write_pieces

IFD = [0.5, 0.9, 0.3, 0.5, 0.7, 0.2, 0.7, 0.1, 0.9, 0.5]


@pytest.fixture
def selection(tmp_path: Path) -> Selection:
    """The 8 best of 10 rows; ranked 1, 8, 4, 6, 0, 3, 9, 2."""
    pq.write_table(pa.table({"a": ["x"] * 10}), tmp_path / "a.parquet", row_group_size=5)
    corpus = plan_corpus(Location(str(tmp_path)))
    scores = Location(str(tmp_path / "scores"))
    units = [(shard, units_of(shard.row_groups, 3)) for shard in corpus.shards]
    (tmp_path / "scores").mkdir()
    write_pieces(scores, units, [{"ifd": ifd} for ifd in IFD])
    last = Cutoff(0.3, 2)
    return Selection(
        corpus,
        cast(CorpusPass, InThisProcess()),
        units,
        Kept(Eligible(scores, Bounds(0, 1)), Cutoffs((last,))),
        Ranking({"ok": 10}, (), (GroupCutoff("", 10, 8, 10, 8, last),)),
    )


def test_cuts_make_parts_of_equally_many_rows(selection: Selection) -> None:
    assert find_cuts(selection, 1) == []
    assert find_cuts(selection, 2) == [Cutoff(0.7, 6)]
    assert find_cuts(selection, 3) == [Cutoff(0.9, 8), Cutoff(0.5, 0)]
    best_first = [1, 8, 4, 6, 0, 3, 9, 2]
    assert find_cuts(selection, 8) == [Cutoff(IFD[row], row) for row in best_first[:-1]]


def test_parts_are_bounded_in_bytes_and_in_rows(
    selection: Selection, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert count_parts(selection) == 1
    monkeypatch.setattr(sorted_tasks, "PART_ROWS", 3)
    assert count_parts(selection) == 3
    kept_bytes = selection.corpus.bytes * 8 // 10
    monkeypatch.setattr(sorted_tasks, "PART_BYTES", -(-kept_bytes // 5))
    assert count_parts(selection) == 5
    monkeypatch.setattr(sorted_tasks, "PART_BYTES", 1)
    assert count_parts(selection) == 8  # no part is empty
    nothing = replace(selection, ranking=Ranking({"ok": 10}, (), ()))
    assert count_parts(nothing) == 0
    assert write_in_order(nothing, find_cuts(nothing, 0), [], nothing.corpus.location, "ifd") == []
