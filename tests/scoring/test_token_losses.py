from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sf_ray.corpus.bundles import UnitRows, bundle_of
from sf_ray.corpus.units import Place, Unit
from sf_ray.errors import SfRayError
from sf_ray.scoring.score_set import ScoreSet, files_of, score_set_of, token_losses_of
from sf_ray.scoring.score_table import SCORE_SCHEMA
from sf_ray.scoring.stages import sink
from sf_ray.scoring.stages.sink import PieceSink
from sf_ray.scoring.token_losses import DIFFERENCES, read_token_losses
from sf_ray.storage.location import Location
from tests.support.scored import shards_of

UNITS = shards_of(4, unit_rows=2)
PLACES = [Place(shard, unit) for shard, units in UNITS for unit in units]
NATS = [[0.5, -0.25], None, [1e-7], [3.0, 0.0, -1.0]]


def scores_of(unit: Unit) -> pa.Table:
    rows = [
        {"shard": "a", "row": row, "status": "ok", "truncated": False, "ifd": 0.5}
        for row in range(unit.start, unit.stop)
    ]
    return pa.Table.from_pylist(rows, schema=SCORE_SCHEMA)


def put(folder: Location, token_losses: bool) -> None:
    units = []
    for (shard, unit), nats in zip(PLACES, (NATS[:2], NATS[2:]), strict=True):
        table = scores_of(unit)
        if token_losses:
            table = table.append_column(DIFFERENCES, pa.array(nats, pa.list_(pa.float32())))
        units.append(UnitRows("a", unit.start, shard.piece(unit), table))
    # As they travel: through a bundle.
    PieceSink(folder).write([bundle_of(units)], None)


@pytest.fixture
def score_set(tmp_path: Path) -> ScoreSet:
    return score_set_of(Location(str(tmp_path)), {"unit_rows": 2})


def bytes_of(folder: Location) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder.path).glob("*.parquet")}


@pytest.fixture(autouse=True)
def _no_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.util.get_node_ip_address", lambda: "here")


def test_pieces_are_the_same_bytes_with_and_without_token_losses(
    score_set: ScoreSet, tmp_path: Path
) -> None:
    without = Location(str(tmp_path / "without"))
    put(without, False)
    put(score_set.pieces, True)
    assert bytes_of(score_set.pieces) == bytes_of(without)
    assert len(bytes_of(without)) == 2
    units = list(read_token_losses(score_set.pieces, PLACES))
    assert [unit.counts.tolist() for unit in units] == [[2, 0], [1, 3]]
    nats = np.concatenate([unit.nats for unit in units])
    assert nats.tolist() == np.float32([0.5, -0.25, 1e-7, 3.0, 0.0, -1.0]).tolist()


def test_a_piece_is_put_after_its_token_losses_and_stays_as_it_is(
    score_set: ScoreSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    put_table = sink.put_table

    def noted(where: Location, table: pa.Table, encoding: Any) -> None:
        order.append(where.path)
        put_table(where, table, encoding)

    monkeypatch.setattr(sink, "_PUT_THREADS", 1)
    monkeypatch.setattr(sink, "put_table", noted)
    put(score_set.pieces, True)
    names = [shard.piece(unit) for shard, unit in PLACES]
    assert order == [
        where.path for name in names for where in files_of(score_set.pieces, name, True)
    ]
    order.clear()
    for name in names:
        Path(score_set.pieces.join(name).path).write_bytes(b"of another machine")
    put(score_set.pieces, True)
    assert order == [token_losses_of(score_set.pieces).join(name).path for name in names]
    assert set(bytes_of(score_set.pieces).values()) == {b"of another machine"}


def missing(score_set: ScoreSet, token_losses: bool) -> list[str]:
    left = score_set.missing(UNITS, token_losses)
    return [shard.piece(unit) for shard, units in left for unit in units]


@pytest.mark.parametrize("lost", ["piece", "token losses", "emptied"])
def test_a_unit_is_missing_until_all_of_its_files_are_there(score_set: ScoreSet, lost: str) -> None:
    put(score_set.pieces, True)
    assert missing(score_set, True) == missing(score_set, False) == []
    name = PLACES[1].shard.piece(PLACES[1].unit)
    beside, piece = (Path(it.path) for it in files_of(score_set.pieces, name, True))
    if lost == "emptied":
        beside.write_bytes(b"")
    else:
        (piece if lost == "piece" else beside).unlink()
    assert missing(score_set, True) == [name]
    assert missing(score_set, False) == ([name] if lost == "piece" else [])


def table(rows: Sequence[int], nats: Sequence[Any], type_: pa.DataType) -> pa.Table:
    return pa.table({"row": pa.array(rows, pa.int64()), DIFFERENCES: pa.array(nats, type_)})


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        (table([0, 1], [[1.0], None], pa.list_(pa.float64())), "are not those of token losses"),
        (table([0, 1], [[np.nan], None], pa.list_(pa.float32())), "that are not finite"),
        (table([0, 1], [[None], None], pa.list_(pa.float32())), "nulls where there must be none"),
        (table([0], [[1.0]], pa.list_(pa.float32())), "the rows that its name says"),
        (table([1, 2], [[1.0], [1.0]], pa.list_(pa.float32())), "the rows that its name says"),
        (None, "cannot be read"),
    ],
)
def test_token_losses_that_are_none_are_refused_with_what_to_do(
    score_set: ScoreSet, written: pa.Table | None, problem: str
) -> None:
    put(score_set.pieces, True)
    name = PLACES[0].shard.piece(PLACES[0].unit)
    beside = Path(token_losses_of(score_set.pieces).join(name).path)
    if written is None:
        beside.write_bytes(beside.read_bytes()[:-20])
    else:
        pq.write_table(written, beside)
    with pytest.raises(SfRayError, match=problem) as caught:
        list(read_token_losses(score_set.pieces, PLACES))
    assert "delete the file and score again with --token-losses" in str(caught.value)
    assert name in str(caught.value)
