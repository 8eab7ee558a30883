import random
import uuid

import pyarrow as pa
import pytest

from sf_ray.corpus.units import Shard, Unit
from sf_ray.errors import SfRayError
from sf_ray.scoring.pieces import read_piece, read_tables, read_unit_piece
from sf_ray.storage.files import put_bytes, put_table, read_bytes
from sf_ray.storage.listing import File
from sf_ray.storage.location import Location

SHARD = Shard(File("/x.parquet", "x.parquet", 9, "1"), (9,), 0)
UNITS = (Unit(0, 4), Unit(4, 9))


@pytest.fixture
def scores() -> Location:
    return Location(f"memory://{uuid.uuid4().hex}")


def put(scores: Location, unit: Unit, start: int, rows: int) -> Location:
    """Puts rows from `start` on under the name of a unit."""
    piece = scores.join(SHARD.piece(unit))
    put_table(piece, pa.table({"row": range(start, start + rows), "ifd": [0.5] * rows}), {})
    return piece


def test_pieces_are_read_in_the_order_of_their_units(scores: Location) -> None:
    for unit in UNITS:
        put(scores, unit, unit.start, unit.rows)
    places = [(SHARD, unit) for unit in reversed(UNITS)]
    tables = list(read_tables(scores, places, ["row"]))
    assert [table["row"].to_pylist() for table in tables] == [[4, 5, 6, 7, 8], [0, 1, 2, 3]]
    assert tables[0].column_names == ["row"]


@pytest.mark.parametrize("rows", [3, 5])
def test_a_piece_with_more_or_fewer_rows_is_refused(scores: Location, rows: int) -> None:
    piece = put(scores, UNITS[0], 0, rows)
    assert read_piece(piece, ["row"]).num_rows == rows
    for columns in (["ifd"], ["row"]):
        with pytest.raises(SfRayError, match="does not hold the rows that its name says; delete"):
            read_unit_piece(piece, UNITS[0], columns)


def test_a_piece_with_other_rows_is_refused_where_their_numbers_are_read(scores: Location) -> None:
    piece = put(scores, UNITS[0], 1, 4)
    assert read_unit_piece(piece, UNITS[0], ["ifd"]).num_rows == 4
    with pytest.raises(SfRayError, match="does not hold the rows that its name says; delete"):
        read_unit_piece(piece, UNITS[0], ["row", "ifd"])


def test_a_piece_that_is_gone_or_broken_is_named(scores: Location) -> None:
    piece = scores.join(SHARD.piece(UNITS[0]))
    with pytest.raises(SfRayError, match=r"x\.\w+\.000000000000-000000000004\.parquet"):
        read_piece(piece, ["row"])
    put_bytes(piece, b"PAR1 and nothing else")
    with pytest.raises(SfRayError, match="cannot be read .*; delete it and score again"):
        read_piece(piece, ["row"])


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"row": [0], "ifd": [float("nan")]}, "its column ifd has values that are not finite"),
        ({"row": [0], "ifd": [float("inf")]}, "its column ifd has values that are not finite"),
        ({"row": [0], "ifd": ["0.5"]}, "its column ifd is no column of scores"),
        ({"row": [None], "ifd": [0.5]}, "its column row is no column of scores"),
        ({"row": ["0"], "ifd": [0.5]}, "its column row is no column of scores"),
        ({"row": [0]}, "it has not all of the columns row, ifd"),
        ({"row": [0], "ifd": [[0.5]]}, "its column ifd is no column of scores"),
    ],
)
def test_a_piece_without_scores_is_refused_in_words(
    scores: Location, columns: dict[str, list[object]], problem: str
) -> None:
    piece = scores.join("a.parquet")
    put_table(piece, pa.table(columns), {})
    with pytest.raises(SfRayError, match=f"a.parquet cannot be read .{problem}.; delete it"):
        read_piece(piece, ["row", "ifd"])


@pytest.mark.parametrize("status", ["kept", "OK", "", "x\n\x1b[2J"])
def test_a_piece_with_a_status_that_there_is_not_is_refused(scores: Location, status: str) -> None:
    piece = scores.join("a.parquet")
    put_table(piece, pa.table({"status": ["ok", status]}), {})
    with pytest.raises(SfRayError, match="it has a status that there is not"):
        read_piece(piece, ["status"])


def test_a_piece_of_changed_bytes_is_read_or_refused(scores: Location) -> None:
    piece = put(scores, UNITS[0], 0, 4)
    whole = read_bytes(piece)
    random_ = random.Random(0)
    refused = 0
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(random_.randint(1, 4)):
            data[random_.randrange(len(data))] = random_.randrange(256)
        put_bytes(piece, bytes(data[: random_.randint(0, len(data))] if refused % 7 == 0 else data))
        try:
            read_unit_piece(piece, UNITS[0], ["row", "ifd"])
        except SfRayError:
            refused += 1
    assert refused > 100
