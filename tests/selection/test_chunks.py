"""Which rows of a chunk may be kept, and which are."""

from pathlib import Path

import numpy as np
import pytest

from sf_ray.selection.bitmap import Bitmap
from sf_ray.selection.chunks import Chunk, ChunkRows, Eligible, Kept
from sf_ray.selection.corpus_pass import chunks_of
from sf_ray.selection.cutoffs import Bounds, Cutoff, Cutoffs
from sf_ray.storage.location import Location
from tests.support.scored import shards_of, write_pieces

UNITS = shards_of(3, 7, unit_rows=3)
IFD = [0.1, 0.9, 0.2, 0.8, 0.3, 0.7, 0.4, 0.6, 0.5, 0.95]


@pytest.fixture
def scores(tmp_path: Path) -> Location:
    location = Location(str(tmp_path))
    digests = [bytes([row % 4]) * 16 for row in range(10)]
    rows = [{"ifd": ifd, "digest": digest} for ifd, digest in zip(IFD, digests, strict=True)]
    write_pieces(location, UNITS, rows)
    return location


def bitmap_of(*positions: int) -> Bitmap:
    bitmap = Bitmap.empty(10)
    bitmap.add(np.array(positions, np.int64))
    return bitmap


def test_units_are_grouped_in_order_and_each_chunk_knows_where_it_is() -> None:
    chunks = chunks_of(UNITS, units_a_task=2)
    assert [(chunk.start, chunk.stop) for chunk in chunks] == [(0, 6), (6, 10)]
    assert chunks[1].positions.tolist() == [6, 7, 8, 9]
    assert [chunk.dropped for chunk in chunks] == [None, None]


def test_dropped_rows_have_no_ifd_and_the_others_keep_theirs(scores: Location) -> None:
    rows = [
        Eligible(scores, Bounds(0, 1)).read(chunk)
        for chunk in chunks_of(UNITS, bitmap_of(1, 6, 9), units_a_task=1)
    ]
    ifd = np.concatenate([chunk.ifd for chunk in rows])
    expected = [np.nan if row in (1, 6, 9) else value for row, value in enumerate(IFD)]
    np.testing.assert_array_equal(ifd, expected)
    assert np.concatenate([chunk.positions for chunk in rows]).tolist() == list(range(10))


def test_a_chunk_without_a_set_of_dropped_rows_drops_none(scores: Location) -> None:
    (chunk,) = chunks_of(UNITS, bitmap_of(1))
    rows = Eligible(scores, Bounds(0, 1)).read(chunk.without(None))
    np.testing.assert_array_equal(rows.ifd, IFD)
    assert Chunk([]).without(bitmap_of(1)) == Chunk([])


def test_rows_of_groups_are_apart_and_in_order() -> None:
    ifd, positions = np.array([0.1, 0.2, 0.3, 0.4]), np.arange(4, 8)
    groups = ChunkRows(ifd, ifd, positions, np.array([2, 0, 2, 0])).of_groups()
    assert {code: rows.positions.tolist() for code, rows in groups.items()} == {
        0: [5, 7],
        2: [4, 6],
    }
    assert groups[2].values.tolist() == [0.1, 0.3]
    ((code, everything),) = ChunkRows(ifd, ifd, positions, None).of_groups().items()
    assert (code, everything.positions.tolist()) == (0, [4, 5, 6, 7])
    none = np.empty(0, np.int64)
    assert ChunkRows(none.astype(float), none.astype(float), none, none).of_groups() == {}


def test_kept_rows_of_units_are_numbered_in_their_shard(scores: Location) -> None:
    kept = Kept(Eligible(scores, Bounds(0, 1)), Cutoffs((Cutoff(0.7, 5),)))
    (chunk,) = chunks_of(UNITS, bitmap_of(9))
    units = list(kept.of_units(chunk))
    found = [
        (place.shard.file.relative, place.unit.start, numbers.tolist()) for place, numbers in units
    ]
    assert found == [("a.parquet", 0, [1]), ("b.parquet", 0, [0, 2])]
    assert np.flatnonzero(~np.isnan(kept.read(chunk).ifd)).tolist() == [1, 3, 5]


def test_digests_are_those_of_eligible_rows(scores: Location) -> None:
    eligible = Eligible(scores, Bounds(0.35, 1))
    parts = [eligible.digests(chunk) for chunk in chunks_of(UNITS, units_a_task=2)]
    positions = np.concatenate([part.positions for part in parts]).tolist()
    assert positions == [row for row, ifd in enumerate(IFD) if ifd >= 0.35]
    halves = np.concatenate([part.digest[:, 0] for part in parts]).tolist()
    assert len(set(halves)) == len({row % 4 for row in positions})
