"""What a selection says of the rows that are kept."""

from pathlib import Path
from typing import cast

import numpy as np
import pytest

from bench.support.corpora import make_rows, write_shards
from sf_ray.corpus.planning import plan_corpus
from sf_ray.corpus.units import units_of
from sf_ray.scoring.score_set import count_units
from sf_ray.selection.bitmap import Bitmap
from sf_ray.selection.chunks import Kept
from sf_ray.selection.corpus_pass import CorpusPass
from sf_ray.selection.cutoffs import Cutoff
from sf_ray.selection.diversity.partition import Diversified
from sf_ray.selection.ranking import GroupCutoff, Ranking
from sf_ray.selection.selection import Selection
from sf_ray.storage.location import Location


def bitmap_of(*positions: int) -> Bitmap:
    bitmap = Bitmap.empty(9)
    bitmap.add(np.array(positions, np.int64))
    return bitmap


@pytest.mark.parametrize(
    ("duplicates", "diversity", "dropped", "rows"),
    [
        (None, None, [], 4),
        (bitmap_of(2, 5), None, [2, 5], 4),
        # What is not chosen is dropped; duplicates are never chosen.
        (bitmap_of(2, 5), bitmap_of(0, 8), [1, 2, 3, 4, 5, 6, 7], 2),
    ],
)
def test_rows_that_are_not_kept_are_dropped_from_every_chunk(
    tmp_path: Path,
    duplicates: Bitmap | None,
    diversity: Bitmap | None,
    dropped: list[int],
    rows: int,
) -> None:
    corpus = plan_corpus(Location(str(write_shards(tmp_path / "corpus", make_rows(9)))))
    selection = Selection(
        corpus,
        CorpusPass(Location(str(tmp_path)), False, 1.0),
        [(shard, units_of(shard.row_groups, 2)) for shard in corpus.shards],
        cast(Kept, None),
        Ranking({"ok": 9}, (), (GroupCutoff("", 9, 4, 7, 4, Cutoff(0.5, 8)),)),
        duplicates,
        None if diversity is None else Diversified(2, diversity, 1.5, True, 1.0),
    )
    assert selection.rows == rows
    chunks = selection.chunks(units_a_task=1)
    assert [len(chunk.places) for chunk in chunks] == [1] * count_units(selection.units)
    assert sum(chunk.stop - chunk.start for chunk in chunks) == 9
    in_chunks = [
        chunk.start + row
        for chunk in chunks
        if chunk.dropped is not None
        for row in np.flatnonzero(chunk.dropped.flags(chunk.start, chunk.stop)).tolist()
    ]
    assert in_chunks == dropped
