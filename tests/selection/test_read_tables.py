"""Scores that one pass leaves for the others; Ray's object store is a stand-in here."""

from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa
import pytest
import ray
from ray.exceptions import ObjectLostError

from sf_ray.selection.chunks import Chunk, Eligible
from sf_ray.selection.corpus_pass import CorpusPass, chunks_of
from sf_ray.selection.cutoff_tasks import rank
from sf_ray.selection.cutoffs import Bounds
from sf_ray.selection.ranking import GroupRequest
from sf_ray.selection.read_tables import ReadTables
from sf_ray.storage.location import Location
from tests.support.scored import InThisProcess, shards_of, write_pieces

UNITS = shards_of(5, 7, unit_rows=3)
IFD = [0.5, 0.9, 0.1, 0.5, 0.7, 0.3, 0.7, 0.2, 0.9, 0.4, 0.6, 0.8]
LOST = "lost"


@pytest.fixture(autouse=True)
def store_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def get(ref: object, timeout: float) -> object:
        if ref == LOST:
            raise ObjectLostError("00", None, "")
        return ref

    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"object_store_memory": 16_000.0})


def numbers(start: int, stop: int) -> pa.Table:
    return pa.table({"position": np.arange(start, stop)})


def known(*ends: int) -> ReadTables:
    """Tables of rows from 0 to each of the ends, added in another order."""
    tables = ReadTables()
    for start, stop in reversed(list(zip((0, *ends), ends, strict=False))):
        tables.add(start, stop, cast(ray.ObjectRef, numbers(start, stop)))
    return tables


@pytest.mark.parametrize(("start", "stop"), [(0, 9), (0, 4), (3, 5), (4, 8), (8, 9)])
def test_rows_come_in_order_however_the_tables_are_cut(start: int, stop: int) -> None:
    tables = known(4, 5, 9).between(start, stop)
    assert tables is not None
    assert pa.concat_tables(tables).equals(numbers(start, stop))


def test_rows_of_which_some_are_lost_or_were_never_added_are_not_known() -> None:
    tables = known(4)
    assert tables.between(2, 6) is None
    tables.add(4, 8, cast(ray.ObjectRef, LOST))
    assert tables.between(2, 6) is None
    assert tables.between(2, 4) is not None


def test_a_chunk_takes_only_the_tables_of_its_rows() -> None:
    first, *_, last = [known(5, 12).for_chunk(chunk) for chunk in chunks_of(UNITS, None, 1)]
    for chunk, stop in ((first, 5), (last, 12)):
        assert isinstance(chunk.known, ReadTables)
        assert [table.stop for table in chunk.known.tables] == [stop]
    assert known(5, 12).for_chunk(Chunk([])) == Chunk([])


def test_there_is_room_for_few_rows_only() -> None:
    assert ReadTables.with_room(100) == ReadTables()
    assert ReadTables.with_room(101) is None


@pytest.mark.parametrize("units_a_task", [1, 2, 100])
def test_after_the_first_pass_no_piece_is_read_again(tmp_path: Path, units_a_task: int) -> None:
    scores = Location(str(tmp_path))
    write_pieces(scores, UNITS, [{"ifd": ifd} for ifd in IFD])
    in_this_process = cast(CorpusPass, InThisProcess())
    eligible = Eligible(scores, Bounds(0, 1))
    requests = [GroupRequest("", len(IFD), 5)]
    chunks = chunks_of(UNITS, units_a_task=units_a_task)
    expected = rank(in_this_process, chunks, len(IFD), eligible, requests)
    tables = ReadTables()
    assert rank(in_this_process, chunks, len(IFD), eligible, requests, tables) == expected
    for piece in tmp_path.iterdir():
        piece.unlink()
    for chunk in map(tables.for_chunk, chunks_of(UNITS, units_a_task=3)):
        assert eligible.read(chunk).ifd.tolist() == IFD[chunk.start : chunk.stop]
        assert sum(table.num_rows for table in eligible.scores_of(chunk)) == len(chunk.positions)
