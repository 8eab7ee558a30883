"""Score pieces, read back as selection and writing need them. No Ray, no model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sf_ray.corpus.units import Shard, Unit
from sf_ray.errors import SfRayError
from sf_ray.selection.cutoffs import Bounds
from sf_ray.storage.files import map_requests, read_bytes
from sf_ray.storage.location import Location

# A unit, and the shard that it is of.
Place = tuple[Shard, Unit]


@dataclass(frozen=True)
class UnitScores:
    """Scores of a unit as selection needs them.

    Attributes:
        status: [rows] strings.
        ifd: [rows]; NaN where a row is not eligible: it has none, or lies outside the bounds.
    """

    status: pa.ChunkedArray
    ifd: NDArray[np.float64]


@dataclass(frozen=True)
class UnitDigests:
    """What tells copies among the rows of a unit.

    Attributes:
        digest: [rows, 2] halves of the digests.
        has_digest: [rows]; a row without one is nobody's copy.
        ifd: [rows]; NaN where a row is not eligible.
    """

    digest: NDArray[np.uint64]
    has_digest: NDArray[np.bool_]
    ifd: NDArray[np.float64]


def read_scores(scores: Location, places: Sequence[Place], bounds: Bounds) -> Iterator[UnitScores]:
    """Reads and checks the pieces of units, several at a time, in the units' order.

    Raises:
        SfRayError: A piece is missing, cannot be read, or has other rows than its name says.
    """

    def read(place: Place) -> UnitScores:
        table = _read_piece(scores, place, ["row", "status", *_columns(bounds)])
        _, unit = place
        if not np.array_equal(table["row"].to_numpy(), np.arange(unit.start, unit.stop)):
            raise _other_rows(scores, place)
        return UnitScores(table["status"], _ifd(table, bounds))

    return map_requests(scores, read, places)


def read_tables(
    scores: Location, places: Sequence[Place], columns: Sequence[str]
) -> Iterator[pa.Table]:
    """Reads columns of units whose pieces were checked, several at a time, in the units' order.

    Raises:
        SfRayError: A piece is missing, cannot be read, or has other rows than its name says.
    """
    return map_requests(scores, lambda place: _read_piece(scores, place, list(columns)), places)


def read_ifd(
    scores: Location, places: Sequence[Place], bounds: Bounds
) -> Iterator[NDArray[np.float64]]:
    """Reads the IFD of units whose pieces were checked: [rows] each; NaN where not eligible.

    Raises:
        SfRayError: A piece is missing, cannot be read, or has other rows than its name says.
    """

    def read(place: Place) -> NDArray[np.float64]:
        return _ifd(_read_piece(scores, place, _columns(bounds)), bounds)

    return map_requests(scores, read, places)


def read_digests(
    scores: Location, places: Sequence[Place], bounds: Bounds
) -> Iterator[UnitDigests]:
    """Reads what tells copies of units whose pieces were written whole.

    Raises:
        SfRayError: A piece is missing, cannot be read, or has other rows than its name says.
    """

    def read(place: Place) -> UnitDigests:
        table = _read_piece(scores, place, ["digest", *_columns(bounds)])
        digest = pa.concat_arrays(table["digest"].chunks)
        # The bytes of an array of which it may be a slice; those of a null are anything.
        words = np.frombuffer(digest.buffers()[1], np.uint64).reshape(-1, 2)
        words = words[digest.offset : digest.offset + len(digest)]
        has_digest = digest.is_valid().to_numpy(zero_copy_only=False)
        return UnitDigests(words, has_digest, _ifd(table, bounds))

    return map_requests(scores, read, places)


def _columns(bounds: Bounds) -> list[str]:
    return ["ifd", *(one.column for one in bounds.tokens)]


def _ifd(table: pa.Table, bounds: Bounds) -> NDArray[np.float64]:
    ifd: NDArray[np.float64] = table["ifd"].to_numpy().astype(np.float64, copy=False)
    eligible = bounds.holds(ifd)
    for one in bounds.tokens:
        # Only a row that was not scored, and is not eligible, may have no count.
        eligible &= one.holds(table[one.column].fill_null(-1).to_numpy().astype(np.int64))
    return np.where(eligible, ifd, np.nan)


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
