"""Chunks of a corpus, and the rows of a chunk that may be kept, or that are kept.

Reads score pieces, and also shards where a column of the corpus divides the rows into groups. Does
not know how a corpus is spread over tasks. No Ray, no model.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sf_ray.corpus.units import Place
from sf_ray.scoring.pieces import read_tables
from sf_ray.selection.bitmap import Bitmap
from sf_ray.selection.cutoffs import Bounds, Codes, Cutoffs
from sf_ray.selection.duplicates import Digests, join
from sf_ray.selection.eligible_scores import (
    SCORE_COLUMNS,
    ifd_within,
    read_digests,
    read_some_scores,
)
from sf_ray.selection.group_column import GroupColumn
from sf_ray.selection.score_range import Positions
from sf_ray.storage.location import Location

# Of rows, in their shard; `Positions` are those in the corpus.
RowNumbers = NDArray[np.int64]


class KnownScores(Protocol):
    """Scores that were read before."""

    def between(self, start: int, stop: int) -> Sequence[pa.Table] | None:
        """`SCORE_COLUMNS` of the rows at positions [start, stop); None where they are not known."""
        ...


@dataclass(frozen=True)
class Chunk:
    """Units that follow each other in the corpus: what one task looks at.

    Attributes:
        places: The units, each with its shard.
        dropped: Which of their rows do not count, whatever their scores; None where all count.
        known: Their scores, where these need not be read again.
    """

    places: Sequence[Place]
    dropped: Bitmap | None = None
    known: KnownScores | None = None

    @property
    def start(self) -> int:
        """Position of the first row. The chunk must have one."""
        shard, unit = self.places[0]
        return shard.position + unit.start

    @property
    def stop(self) -> int:
        """Position behind the last row. The chunk must have one."""
        shard, unit = self.places[-1]
        return shard.position + unit.stop

    @property
    def positions(self) -> Positions:
        """[rows]"""
        return np.arange(self.start, self.stop)

    def known_scores(self) -> Sequence[pa.Table] | None:
        """`SCORE_COLUMNS` of the rows, in their order; None where these have to be read."""
        return None if self.known is None else self.known.between(self.start, self.stop)

    def without(self, dropped: Bitmap | None) -> "Chunk":
        """The same rows, of which those in the set are dropped; none where there is no set."""
        if dropped is None or not self.places:
            return replace(self, dropped=None)
        return replace(self, dropped=dropped.between(self.start, self.stop))


@dataclass(frozen=True)
class Grouping:
    """A column of the corpus each of whose values has a cut-off of its own.

    Attributes:
        corpus: The folder of the shards.
        column: The column.
        code_of: Value -> the code of its group.
    """

    corpus: Location
    column: GroupColumn
    code_of: Mapping[str, int]

    def codes(self, places: Sequence[Place]) -> Codes:
        """[rows] the code of each row's group.

        Raises:
            BadShardError: A shard cannot be read.
        """
        return self.column.codes(self.corpus, places, self.code_of)


class GroupRows(NamedTuple):
    """Rows of one group.

    Attributes:
        ifd: [n]; NaN where a row does not count.
        positions: [n]
    """

    ifd: NDArray[np.float64]
    positions: Positions


@dataclass(frozen=True)
class ChunkRows:
    """The rows of a chunk.

    Attributes:
        ifd: [rows]; NaN where a row does not count.
        positions: [rows]
        codes: [rows] the code of each row's group; None where there is one group.
    """

    ifd: NDArray[np.float64]
    positions: Positions
    codes: Codes | None

    def of_groups(self) -> dict[int, GroupRows]:
        """Code -> the rows of that group, for the groups that occur in the chunk."""
        if self.codes is None:
            return {0: GroupRows(self.ifd, self.positions)}
        order = np.argsort(self.codes, kind="stable")
        codes, starts = np.unique(self.codes[order], return_index=True)
        return {
            int(code): GroupRows(self.ifd[rows], self.positions[rows])
            # Not strict: of no rows there is no code, but `np.split` makes one empty part.
            for code, rows in zip(codes, np.split(order, starts[1:]), strict=False)
        }


@dataclass(frozen=True)
class Eligible:
    """Reads which rows may be kept: those that are `ok`, within the bounds, and not dropped.

    Attributes:
        scores: The folder of the score pieces.
        bounds: What a row must lie within.
        grouping: The groups that rows are in; None where all rows are one group.
    """

    scores: Location
    bounds: Bounds
    grouping: Grouping | None = None

    def read(self, chunk: Chunk) -> ChunkRows:
        """Rows of a chunk; the IFD of a row that is not eligible is NaN.

        Raises:
            BadShardError: A shard cannot be read.
            SfRayError: A score piece cannot be read.
        """
        tables = chunk.known_scores() or read_some_scores(self.scores, chunk.places, self.bounds)
        return self.rows_of(chunk, tables)

    def scores_of(self, chunk: Chunk) -> Sequence[pa.Table]:
        """`SCORE_COLUMNS` of the rows of a chunk, in their order.

        Raises:
            SfRayError: A score piece cannot be read.
        """
        return chunk.known_scores() or list(read_tables(self.scores, chunk.places, SCORE_COLUMNS))

    def rows_of(self, chunk: Chunk, scores: Iterable[pa.Table]) -> ChunkRows:
        """As `read`, of a chunk whose scores are read.

        Raises:
            BadShardError: A shard cannot be read.
        """
        ifd = np.concatenate([ifd_within(table, self.bounds) for table in scores])
        if chunk.dropped is not None:
            ifd[chunk.dropped.flags(chunk.start, chunk.stop)] = np.nan
        codes = self.grouping.codes(chunk.places) if self.grouping else None
        return ChunkRows(ifd, chunk.positions, codes)

    def digests(self, chunk: Chunk) -> Digests:
        """The eligible rows of a chunk that have a digest.

        Raises:
            SfRayError: A score piece cannot be read.
        """
        digests_of_units, position = [], chunk.start
        for unit in read_digests(self.scores, chunk.places, self.bounds):
            positions = np.arange(position, position + len(unit.ifd))
            position += len(unit.ifd)
            counts = unit.has_digest & ~np.isnan(unit.ifd)
            digests_of_units.append(Digests(unit.digest, unit.ifd, positions).take(counts))
        return join(digests_of_units)


class PlacedRows(NamedTuple):
    """Some rows of a unit, by their numbers.

    Attributes:
        place: The unit, and its shard.
        numbers: [n] numbers of the rows in the shard, increasing.
    """

    place: Place
    numbers: RowNumbers


@dataclass(frozen=True)
class Kept:
    """Reads which rows are kept.

    Attributes:
        eligible: Reads which rows may be kept.
        cutoffs: The last row that is kept of each group.
    """

    eligible: Eligible
    cutoffs: Cutoffs

    def read(self, chunk: Chunk) -> ChunkRows:
        """Rows of a chunk, as one group; the IFD of a row that is not kept is NaN.

        Raises:
            BadShardError: A shard cannot be read.
            SfRayError: A score piece cannot be read.
        """
        rows = self.eligible.read(chunk)
        keeps = self.cutoffs.keeps(rows.ifd, rows.positions, rows.codes)
        return ChunkRows(np.where(keeps, rows.ifd, np.nan), rows.positions, None)

    def of_units(self, chunk: Chunk) -> Iterator[PlacedRows]:
        """The kept rows of each unit of a chunk, for the units that have any.

        Raises:
            BadShardError: A shard cannot be read.
            SfRayError: A score piece cannot be read.
        """
        is_kept, at = ~np.isnan(self.read(chunk).ifd), 0
        for place in chunk.places:
            _, unit = place
            numbers = unit.start + np.flatnonzero(is_kept[at : at + unit.rows])
            at += unit.rows
            if len(numbers):
                yield PlacedRows(place, numbers)
