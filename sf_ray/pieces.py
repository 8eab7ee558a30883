"""Score pieces, read back as selection and writing need them. No Ray, no model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sf_ray.errors import SfRayError
from sf_ray.locations import Location
from sf_ray.storage import map_requests, read_bytes
from sf_ray.units import Shard, Unit

# A unit, and the shard that it is of.
Place = tuple[Shard, Unit]


@dataclass(frozen=True)
class UnitScores:
    """Scores of a unit as selection needs them.

    Attributes:
        status: [rows] strings.
        ifd: [rows]; NaN where a row has none.
    """

    status: pa.ChunkedArray
    ifd: NDArray[np.float64]


def read_scores(scores: Location, places: Sequence[Place]) -> Iterator[UnitScores]:
    """Reads and checks the pieces of units, several at a time, in the units' order.

    Raises:
        SfRayError: A piece is missing, cannot be read, or has other rows than its name says.
    """

    def read(place: Place) -> UnitScores:
        table = _read_piece(scores, place, ["row", "status", "ifd"])
        _, unit = place
        if not np.array_equal(table["row"].to_numpy(), np.arange(unit.start, unit.stop)):
            raise _other_rows(scores, place)
        return UnitScores(table["status"], _ifd(table))

    return map_requests(scores, read, places)


def read_ifd(scores: Location, places: Sequence[Place]) -> Iterator[NDArray[np.float64]]:
    """Reads no more than the IFD of units whose pieces were checked: [rows] each; NaN for none.

    Raises:
        SfRayError: A piece is missing, cannot be read, or has other rows than its name says.
    """
    return map_requests(scores, lambda place: _ifd(_read_piece(scores, place, ["ifd"])), places)


def _ifd(table: pa.Table) -> NDArray[np.float64]:
    ifd: NDArray[np.float64] = table["ifd"].to_numpy().astype(np.float64, copy=False)
    return ifd


def _read_piece(scores: Location, place: Place, columns: list[str]) -> pa.Table:
    shard, unit = place
    location = scores.join(shard.piece(unit))
    try:
        with pq.ParquetFile(
            pa.BufferReader(read_bytes(location)), page_checksum_verification=True
        ) as parquet:
            table = parquet.read(columns, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise SfRayError(
            f"score piece {location.public_uri} cannot be read ({error}); delete it and score again"
        ) from error
    if table.num_rows != unit.rows:
        raise _other_rows(scores, place)
    return table


def _other_rows(scores: Location, place: Place) -> SfRayError:
    shard, unit = place
    where = scores.join(shard.piece(unit)).public_uri
    return SfRayError(
        f"score piece {where} does not hold the rows that its name says; delete it and score again"
    )
