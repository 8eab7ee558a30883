"""Chunks of a corpus, and what of their rows may be kept or is: scores, bounds, copies, groups.

Knows where all of it lies and reads it; not how a corpus is spread over tasks. No Ray, no model.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sf_ray.corpus.units import Place
from sf_ray.selection.bitmap import Bitmap
from sf_ray.selection.cutoffs import Bounds, Codes, Cutoffs, Positions
from sf_ray.selection.duplicates import Digests, join
from sf_ray.selection.eligible_scores import read_digests, read_ifd, read_scores
from sf_ray.selection.group_column import GroupColumn
from sf_ray.storage.location import Location

# Of rows, in their shard.
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Chunk:
    """Units that follow each other in the corpus: what one task looks at.

    Attributes:
        places: The units.
        dropped: Which of their rows do not count, whatever their scores; None where all do.
    """

    places: Sequence[Place]
    dropped: Bitmap | None = None

    @property
    def start(self) -> int:
        """Position of the first row; there has to be one."""
        shard, unit = self.places[0]
        return shard.position + unit.start

    @property
    def stop(self) -> int:
        """Position behind the last row; there has to be one."""
        shard, unit = self.places[-1]
        return shard.position + unit.stop

    @property
    def positions(self) -> Positions:
        """[rows]"""
        return np.arange(self.start, self.stop)

    def without(self, dropped: Bitmap | None) -> "Chunk":
        """The same rows, of which those that the set has are dropped."""
        if dropped is None or not self.places:
            return Chunk(self.places)
        return Chunk(self.places, dropped.between(self.start, self.stop))


@dataclass(frozen=True)
class Grouping:
    """A column of the corpus whose values have a cut-off each.

    Attributes:
        corpus: Where the shards lie.
        column: The column.
        code_of: Value -> its number.
    """

    corpus: Location
    column: GroupColumn
    code_of: Mapping[str, int]

    def codes(self, places: Sequence[Place]) -> Codes:
        """[rows] the number of each row's value."""
        return self.column.codes(self.corpus, places, self.code_of)


@dataclass(frozen=True)
class ChunkRows:
    """The rows of a chunk.

    Attributes:
        ifd: [rows]; NaN where a row does not count.
        positions: [rows]
        codes: [rows] number of each row's group; None where there is one group.
        statuses: Of each unit, where asked for.
    """

    ifd: NDArray[np.float64]
    positions: Positions
    codes: Codes | None
    statuses: tuple[pa.ChunkedArray, ...] = ()

    def of_groups(self) -> "dict[int, tuple[NDArray[np.float64], Positions]]":
        """Group -> the IFD and positions of its rows, for the groups that the chunk has."""
        if self.codes is None:
            return {0: (self.ifd, self.positions)}
        order = np.argsort(self.codes, kind="stable")
        groups, starts = np.unique(self.codes[order], return_index=True)
        return {
            int(group): (self.ifd[rows], self.positions[rows])
            for group, rows in zip(groups, np.split(order, starts[1:]), strict=False)
        }


@dataclass(frozen=True)
class Eligible:
    """Reads which rows may be kept: `ok`, within the bounds, and not dropped."""

    scores: Location
    bounds: Bounds
    grouping: Grouping | None = None

    def read(self, chunk: Chunk, with_status: bool = False) -> ChunkRows:
        """Rows of a chunk; those that are not eligible have no IFD."""
        statuses: list[pa.ChunkedArray] = []
        if with_status:
            ifd = []
            for piece in read_scores(self.scores, chunk.places, self.bounds):
                ifd.append(piece.ifd)
                statuses.append(piece.status)
        else:
            ifd = list(read_ifd(self.scores, chunk.places, self.bounds))
        all_ifd = np.concatenate(ifd)
        if chunk.dropped is not None:
            all_ifd[chunk.dropped.flags(chunk.start, chunk.stop)] = np.nan
        codes = self.grouping.codes(chunk.places) if self.grouping else None
        return ChunkRows(all_ifd, chunk.positions, codes, tuple(statuses))

    def digests(self, chunk: Chunk) -> Digests:
        """The eligible rows of a chunk that have a digest."""
        parts, position = [], chunk.start
        for unit in read_digests(self.scores, chunk.places, self.bounds):
            positions = np.arange(position, position + len(unit.ifd))
            position += len(unit.ifd)
            counts = unit.has_digest & ~np.isnan(unit.ifd)
            parts.append(Digests(unit.digest, unit.ifd, positions).take(counts))
        return join(parts)


@dataclass(frozen=True)
class Kept:
    """Reads which rows are kept.

    Attributes:
        eligible: Reads which rows may be.
        cutoffs: Up to where they are.
    """

    eligible: Eligible
    cutoffs: Cutoffs

    def read(self, chunk: Chunk) -> ChunkRows:
        """Rows of a chunk, as one group; those that are not kept have no IFD."""
        rows = self.eligible.read(chunk)
        keeps = self.cutoffs.keeps(rows.ifd, rows.positions, rows.codes)
        return ChunkRows(np.where(keeps, rows.ifd, np.nan), rows.positions, None)

    def of_units(self, chunk: Chunk) -> Iterator[tuple[Place, Numbers]]:
        """The units of a chunk of which rows are kept, and the numbers of those in the shard."""
        is_kept, at = ~np.isnan(self.read(chunk).ifd), 0
        for place in chunk.places:
            _, unit = place
            numbers = unit.start + np.flatnonzero(is_kept[at : at + unit.rows])
            at += unit.rows
            if len(numbers):
                yield place, numbers
