"""Score pieces as selection reads them: within bounds. No Ray, no model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sf_ray.corpus.units import Place
from sf_ray.scoring.pieces import read_place
from sf_ray.selection.cutoffs import Bounds
from sf_ray.storage.files import map_requests
from sf_ray.storage.location import Location


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
        table = read_place(scores, place, ["row", "status", *_columns(bounds)])
        return UnitScores(table["status"], _ifd(table, bounds))

    return map_requests(scores, read, places)


def read_ifd(
    scores: Location, places: Sequence[Place], bounds: Bounds
) -> Iterator[NDArray[np.float64]]:
    """Reads the IFD of units whose pieces were checked: [rows] each; NaN where not eligible.

    Raises:
        SfRayError: A piece is missing, cannot be read, or has other rows than its name says.
    """

    def read(place: Place) -> NDArray[np.float64]:
        return _ifd(read_place(scores, place, _columns(bounds)), bounds)

    return map_requests(scores, read, places)


def read_digests(
    scores: Location, places: Sequence[Place], bounds: Bounds
) -> Iterator[UnitDigests]:
    """Reads what tells copies of units whose pieces were written whole.

    Raises:
        SfRayError: A piece is missing, cannot be read, or has other rows than its name says.
    """

    def read(place: Place) -> UnitDigests:
        table = read_place(scores, place, ["digest", *_columns(bounds)])
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
