"""What selection reads of score pieces: scores, and digests of rows.

Does not know which rows are kept. No Ray, no model.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sf_ray.corpus.units import Place
from sf_ray.scoring.pieces import read_place, read_tables
from sf_ray.selection.cutoffs import Bounds
from sf_ray.storage.files import map_requests
from sf_ray.storage.location import Location

# Columns of the score table that are read of every row, once: what ranks rows, and what the report
# counts.
SCORE_COLUMNS = (
    "status",
    "prompt_tokens",
    "answer_tokens",
    "truncated",
    "ppl_direct",
    "ppl_conditioned",
    "ifd",
)

# Columns whose sum is what a row costs to train on.
TOKENS = ("prompt_tokens", "answer_tokens")


@dataclass(frozen=True)
class UnitDigests:
    """Digests of the rows of a unit; equal rows have equal digests.

    Attributes:
        digest: [rows, 2] the two halves of each digest; any numbers where a row has none.
        has_digest: [rows]; a row without a digest is no duplicate of any other.
        scores: [rows] other columns of the score table.
    """

    digest: NDArray[np.uint64]
    has_digest: NDArray[np.bool_]
    scores: pa.Table


def read_checked(
    scores: Location, places: Sequence[Place], columns: Sequence[str] | None
) -> Iterator[pa.Table]:
    """Reads and checks the pieces of units, several at a time, in the units' order.

    Args:
        scores: The folder of the pieces.
        places: The units.
        columns: To read the statuses and these only; None for `SCORE_COLUMNS`.

    Raises:
        SfRayError: A piece is missing, cannot be read, or has other rows than its name says.
    """
    wanted = SCORE_COLUMNS if columns is None else ("status", *columns)
    # With the column "row" the reader checks every row number.
    for table in read_tables(scores, places, ["row", *wanted]):
        yield table.select(wanted)


def read_digests(
    scores: Location, places: Sequence[Place], columns: Sequence[str]
) -> Iterator[UnitDigests]:
    """Reads the digests of units, by which duplicates are found, and other columns.

    Raises:
        SfRayError: A piece is missing, cannot be read, or has another number of rows.
    """

    def read(place: Place) -> UnitDigests:
        table = read_place(scores, place, ["digest", *columns])
        digest = pa.concat_arrays(table["digest"].chunks)
        # The buffer may be that of a larger array, of which `digest` is a slice; where a value is
        # null it may hold any bytes.
        words = np.frombuffer(digest.buffers()[1], np.uint64).reshape(-1, 2)
        words = words[digest.offset : digest.offset + len(digest)]
        has_digest = digest.is_valid().to_numpy(zero_copy_only=False)
        return UnitDigests(words, has_digest, table)

    return map_requests(scores, read, places)


def columns_of(bounds: Bounds) -> list[str]:
    """The columns of the score table that bounds look at."""
    return ["ifd", *(bound.column for bound in bounds.tokens)]


def ifd_within(table: pa.Table, bounds: Bounds) -> NDArray[np.float64]:
    """[rows] IFD of scores; NaN where a row has none or lies outside the bounds."""
    ifd: NDArray[np.float64] = table["ifd"].to_numpy().astype(np.float64, copy=False)
    eligible = bounds.holds(ifd)
    for bound in bounds.tokens:
        # Only a row that was not scored may have no token count, and such a row has no IFD.
        eligible &= bound.holds(table[bound.column].fill_null(-1).to_numpy().astype(np.int64))
    return np.where(eligible, ifd, np.nan)


def tokens_of(table: pa.Table) -> NDArray[np.int64]:
    """[rows] tokens of prompt and answer that rows were scored with; 0 where they were not."""
    prompt, answer = (table[name].fill_null(0).to_numpy().astype(np.int64) for name in TOKENS)
    tokens: NDArray[np.int64] = prompt + answer
    return tokens
