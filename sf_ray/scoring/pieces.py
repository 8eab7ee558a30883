"""Score pieces, read back as selection and writing need them. No Ray, no model."""

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from sf_ray.corpus.units import Place
from sf_ray.errors import SfRayError
from sf_ray.storage.files import map_requests, read_bytes
from sf_ray.storage.location import Location


def read_tables(
    scores: Location, places: Sequence[Place], columns: Sequence[str]
) -> Iterator[pa.Table]:
    """Reads columns of units whose pieces were checked, several at a time, in the units' order.

    Raises:
        SfRayError: A piece is missing, cannot be read, or has other rows than its name says.
    """
    return map_requests(scores, lambda place: _read_piece(scores, place, list(columns)), places)


def _read_piece(scores: Location, place: Place, columns: list[str]) -> pa.Table:
    shard, unit = place
    table = read_piece(scores.join(shard.piece(unit)), columns)
    if table.num_rows != unit.rows:
        raise _other_rows(scores, place)
    return table


def read_piece(location: Location, columns: Sequence[str]) -> pa.Table:
    """Columns of one piece.

    Raises:
        SfRayError: It is missing or cannot be read.
    """
    try:
        with pq.ParquetFile(
            pa.BufferReader(read_bytes(location)), page_checksum_verification=True
        ) as parquet:
            return parquet.read(list(columns), use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise SfRayError(
            f"score piece {location.public_uri} cannot be read ({error}); delete it and score again"
        ) from error


def _other_rows(scores: Location, place: Place) -> SfRayError:
    shard, unit = place
    return other_rows(scores.join(shard.piece(unit)))


def other_rows(location: Location) -> SfRayError:
    """A piece holds other rows than those of its unit."""
    return SfRayError(
        f"score piece {location.public_uri} does not hold the rows that its name says; delete it "
        "and score again"
    )
