"""Reads score pieces, and checks that each holds the rows of its unit. No Ray, no model."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sf_ray.corpus.status import Status
from sf_ray.corpus.units import Place, Unit
from sf_ray.errors import SfRayError, first_line
from sf_ray.scoring.score_table import SCORE_SCHEMA
from sf_ray.storage.files import map_requests, read_bytes
from sf_ray.storage.location import Location

# Of one piece, which is held in memory: a footer can claim any number.
_MOST_ROWS = 1 << 26
_STATUSES = {status.value for status in Status}


def read_tables(
    scores: Location, places: Sequence[Place], columns: Sequence[str]
) -> Iterator[pa.Table]:
    """Reads columns of the pieces of units, several at a time, in the units' order.

    Raises:
        SfRayError: A piece is missing, cannot be read, or has other rows than its name says.
    """
    return map_requests(scores, lambda place: read_place(scores, place, columns), places)


def read_place(scores: Location, place: Place, columns: Sequence[str]) -> pa.Table:
    """Reads columns of the piece of one unit; see `read_unit_piece`.

    Args:
        scores: The folder of the pieces.
        place: The unit, and its shard.
        columns: Columns of the score table.
    """
    shard, unit = place
    return read_unit_piece(scores.join(shard.piece(unit)), unit, columns)


def read_unit_piece(piece: Location, unit: Unit, columns: Sequence[str]) -> pa.Table:
    """Reads columns of a piece that must hold the rows of a unit.

    The number of rows is checked. The row numbers are checked too where "row" is among the
    columns; a piece that was checked once need not be checked so again.

    Args:
        piece: Where the piece lies.
        unit: The unit that its name says.
        columns: Columns of the score table.

    Raises:
        SfRayError: The piece is missing, cannot be read, or has other rows than its name says.
    """
    table = read_piece(piece, columns)
    is_whole = table.num_rows == unit.rows
    if is_whole and "row" in columns:
        is_whole = np.array_equal(table["row"].to_numpy(), np.arange(unit.start, unit.stop))
    if not is_whole:
        raise SfRayError(
            f"score piece {piece.public_uri} does not hold the rows that its name says; delete it "
            "and score again"
        )
    return table


def read_piece(piece: Location, columns: Sequence[str]) -> pa.Table:
    """Reads columns of a piece, whatever rows it holds.

    Raises:
        SfRayError: The piece is missing, cannot be read, or holds no scores of ours.
    """
    try:
        table = read_rows(piece, columns)
        _check(table, columns)
    except (pa.ArrowException, OSError) as error:
        raise SfRayError(
            f"score piece {piece.public_uri} cannot be read ({first_line(error)}); delete it and "
            "score again"
        ) from error
    return table


def read_rows(where: Location, columns: Sequence[str]) -> pa.Table:
    """Reads columns of a Parquet file that holds the rows of one unit, and checks its pages.

    Raises:
        pa.ArrowException: The file, or a page of it, is damaged.
        SfRayError: It is not there, or storage failed.
    """
    with pq.ParquetFile(
        pa.BufferReader(read_bytes(where)), page_checksum_verification=True
    ) as parquet:
        if not 0 <= parquet.metadata.num_rows <= _MOST_ROWS:
            raise pa.ArrowInvalid("its footer promises more rows than a piece can have")
        # No threads: callers read several pieces at a time.
        return parquet.read(list(columns), use_threads=False)


def _check(table: pa.Table, columns: Sequence[str]) -> None:
    """Checks that a table holds what `score_table` makes.

    Raises:
        pa.ArrowInvalid: A column is missing, has another type, or has values that are no scores.
    """
    if {*table.column_names} != {*columns}:
        raise pa.ArrowInvalid(f"it has not all of the columns {', '.join(columns)}")
    table.validate(full=True)
    for name in columns:
        column, expected = table[name], SCORE_SCHEMA.field(name)
        if column.type != expected.type or (column.null_count and not expected.nullable):
            raise pa.ArrowInvalid(f"its column {name} is no column of scores")
        if (
            pa.types.is_floating(column.type)
            and not pc.all(pc.is_finite(column), min_count=0).as_py()
        ):
            raise pa.ArrowInvalid(f"its column {name} has values that are not finite")
    # Not `pc.is_in`: to make its set of values imports pandas, which takes a worker a second.
    if "status" in columns and not _STATUSES.issuperset(table["status"].unique().to_pylist()):
        raise pa.ArrowInvalid("it has a status that there is not")
