"""Passes over pieces on disk, in this process: no Ray."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sf_ray.corpus.units import Place
from sf_ray.errors import SfRayError
from sf_ray.scoring.partial_sets import RowSet
from sf_ray.scoring.pieces import read_place
from sf_ray.scoring.score_set import ScoreSet
from sf_ray.scoring.score_table import SCORE_SCHEMA
from sf_ray.selection.corpus_pass import CorpusPass
from sf_ray.selection.exact import rescoring_tasks
from sf_ray.selection.exact.rescoring_tasks import Layer, draw_sample, measure_errors, mix
from sf_ray.storage.location import Location
from tests.support.scored import InThisProcess, shards_of, write_pieces

UNITS = shards_of(9, 5, unit_rows=4)
PLACES = [Place(shard, unit) for shard, units in UNITS for unit in units]
ROWS = [
    {"ifd": 0.5 + 0.01 * row, "answer_tokens": 10 * row + 1} if row % 5 else {"status": "bad_row"}
    for row in range(14)
]
in_this_process = cast(CorpusPass, InThisProcess())


@pytest.fixture
def base(tmp_path: Path) -> Location:
    location = Location(str(tmp_path / "base"))
    (tmp_path / "base").mkdir()
    write_pieces(location, UNITS, ROWS)
    return location


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def each(function: Callable[[Any], Any], items: Sequence[Any], stall_s: float) -> Iterator[Any]:
        return map(function, items)

    monkeypatch.setattr(rescoring_tasks, "parallel_map", each)


def layer_of(folder: Path, rows: dict[int, dict[str, Any]]) -> Layer:
    """A layer with scores of some rows, by position; units without one have no piece."""
    flags, folder_of = {}, Location(str(folder))
    folder.mkdir()
    for shard, unit in PLACES:
        start = shard.position + unit.start
        positions = [position for position in rows if start <= position < start + unit.rows]
        if positions:
            flags[shard.piece(unit)] = np.isin(np.arange(start, start + unit.rows), positions)
            columns = [
                {"shard": shard.file.relative, "row": at - shard.position, "status": "ok",
                 "truncated": False} | rows[at]
                for at in positions
            ]  # fmt: skip
            table = pa.Table.from_pylist(columns, schema=SCORE_SCHEMA)
            pq.write_table(table, folder / shard.piece(unit))
    return Layer(folder_of, RowSet.of_flags(flags))


def rows_in(pieces: Location) -> list[dict[str, Any]]:
    tables = [read_place(pieces, place, SCORE_SCHEMA.names) for place in PLACES]
    return [row for table in tables for row in table.to_pylist()]


def test_a_sample_has_equally_many_rows_of_each_length_that_have_a_score(base: Location) -> None:
    score_set = ScoreSet(Location(base.uri.rpartition("/")[0]), "base", {})
    # Rows 1 to 3 have up to 32 tokens, 4 to 12 up to 128, and 13 has 131; 0, 5 and 10 are bad.
    sample = draw_sample(in_this_process, score_set, UNITS, 8)
    flags = np.concatenate([sample.flags(shard.piece(unit), unit.rows) for shard, unit in PLACES])
    positions = np.flatnonzero(flags)
    assert np.searchsorted([4, 13], positions, "right").tolist() == [0, 0, 1, 1, 2]
    assert not {0, 5, 10} & {*positions}
    assert sample == draw_sample(in_this_process, score_set, UNITS, 8)


def test_errors_are_measured_on_the_rows_of_the_sample_alone(
    base: Location, tmp_path: Path
) -> None:
    score_set = ScoreSet(Location(str(tmp_path)), "base", {})
    again = {
        1: {"ifd": 0.51 * np.exp(0.02), "answer_tokens": 11},
        9: {"ifd": 0.59, "answer_tokens": 91},
        12: {"status": "non_finite"},
    }
    bands = measure_errors(score_set, layer_of(tmp_path / "again", again), UNITS)
    assert [errors and errors.rows for errors in bands.lengths] == [None, 1, 1, None]
    assert bands.lengths[1] is not None
    assert bands.lengths[1].largest_error == pytest.approx(0.02)


def test_a_mixed_piece_has_the_rows_of_the_layers_in_their_places(
    base: Location, tmp_path: Path
) -> None:
    first = layer_of(tmp_path / "1", {1: {"ifd": 9.0}, 3: {"ifd": 8.0}, 13: {"ifd": 7.0}})
    second = layer_of(tmp_path / "2", {2: {"ifd": 6.0, "answer_tokens": 5}})
    (tmp_path / "mixed").mkdir()
    target = Location(str(tmp_path / "mixed"))
    mix(base, [first, second], target, UNITS, 1.0)
    expected = rows_in(base)
    for at, ifd in ((1, 9.0), (3, 8.0), (13, 7.0), (2, 6.0)):
        expected[at] |= {"ifd": ifd, "answer_tokens": 5 if at == 2 else None}
    assert rows_in(target) == expected


def test_a_piece_with_other_rows_than_were_scored_again_is_refused(
    base: Location, tmp_path: Path
) -> None:
    layer = layer_of(tmp_path / "1", {1: {"ifd": 9.0}})
    other = layer_of(tmp_path / "2", {2: {"ifd": 9.0}})
    with pytest.raises(
        SfRayError, match="does not hold the rows that were scored again; delete it"
    ):
        mix(base, [Layer(layer.pieces, other.rows)], Location(str(tmp_path)), UNITS, 1.0)
