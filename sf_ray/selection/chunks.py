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
from sf_ray.selection.criterion import BY_IFD, Criterion
from sf_ray.selection.cutoffs import Bounds, Codes, Cutoffs
from sf_ray.selection.duplicates import Digests, join
from sf_ray.selection.eligible_scores import (
    SCORE_COLUMNS,
    TOKENS,
    columns_of,
    ifd_within,
    read_digests,
    tokens_of,
)
from sf_ray.selection.group_column import GroupColumn
from sf_ray.selection.lengths import LENGTHS, length_of
from sf_ray.selection.score_range import Positions, Weights
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
        values: [n] what rows are ranked by; NaN where a row does not count.
        positions: [n]
        weights: [n] how much each row counts; None where all count the same.
    """

    values: NDArray[np.float64]
    positions: Positions
    weights: Weights | None = None


@dataclass(frozen=True)
class ChunkRows:
    """The rows of a chunk.

    Attributes:
        ifd: [rows]; NaN where a row does not count.
        values: [rows] what rows are ranked by; NaN where a row does not count.
        positions: [rows]
        codes: [rows] the code of each row's group; None where there is one group.
        weights: [rows] how much each row counts; None where all count the same.
    """

    ifd: NDArray[np.float64]
    values: NDArray[np.float64]
    positions: Positions
    codes: Codes | None
    weights: Weights | None = None

    def of_groups(self) -> dict[int, GroupRows]:
        """Code -> the rows of that group, for the groups that occur in the chunk."""
        if self.codes is None:
            return {0: GroupRows(self.values, self.positions, self.weights)}
        order = np.argsort(self.codes, kind="stable")
        codes, starts = np.unique(self.codes[order], return_index=True)
        return {
            int(code): GroupRows(
                self.values[rows],
                self.positions[rows],
                None if self.weights is None else self.weights[rows],
            )
            # Not strict: of no rows there is no code, but `np.split` makes one empty part.
            for code, rows in zip(codes, np.split(order, starts[1:]), strict=False)
        }


@dataclass(frozen=True)
class Eligible:
    """Reads which rows may be kept: those that are `ok`, within the bounds, and not dropped.

    Attributes:
        scores: The folder of the score pieces.
        bounds: What a row must lie within.
        criterion: What rows are ranked by.
        grouping: The groups that rows are in; None where all rows are one group.
        by_length: Whether each group is divided into one for each length of answers, whose code is
            `LENGTHS` times that of the group, and the length.
        by_tokens: Whether a row counts as many times as it has tokens, of prompt and answer.
    """

    scores: Location
    bounds: Bounds
    criterion: Criterion = BY_IFD
    grouping: Grouping | None = None
    by_length: bool = False
    by_tokens: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the score table that are looked at."""
        more = list(self.criterion.columns)
        if self.by_length:
            more.append("answer_tokens")
        if self.by_tokens:
            more += TOKENS
        return tuple(dict.fromkeys([*columns_of(self.bounds), *more]))

    @property
    def ranks_by_ifd(self) -> bool:
        """Whether the value that a row is ranked by is its IFD."""
        return self.criterion == BY_IFD

    @property
    def within(self) -> tuple[float, float]:
        """The least value that an eligible row may have, and one above all."""
        if self.ranks_by_ifd:
            return (self.bounds.min_ifd, self.bounds.max_ifd)
        return self.criterion.within

    def read(self, chunk: Chunk) -> ChunkRows:
        """Rows of a chunk; the IFD and the value of a row that is not eligible are NaN.

        Row numbers are not checked: every selection reads each piece once with `read_checked`.

        Raises:
            BadShardError: A shard cannot be read.
            SfRayError: A score piece cannot be read.
        """
        tables = chunk.known_scores() or read_tables(self.scores, chunk.places, self.columns)
        return self.rows_of(chunk, tables)

    def with_own(self, chunk: Chunk, scores: pa.Table) -> pa.Table:
        """The scores of a chunk, with what ranks its rows and would else be read again."""
        return self.criterion.with_own(chunk.places, scores)

    def scores_of(self, chunk: Chunk) -> Sequence[pa.Table]:
        """`SCORE_COLUMNS` of the rows of a chunk, in their order; known scores may have more.

        Raises:
            SfRayError: A score piece cannot be read.
        """
        return chunk.known_scores() or list(read_tables(self.scores, chunk.places, SCORE_COLUMNS))

    def rows_of(self, chunk: Chunk, scores: Iterable[pa.Table]) -> ChunkRows:
        """As `read`, of a chunk whose scores are read.

        Raises:
            BadShardError: A shard cannot be read.
        """
        table = pa.concat_tables(scores)
        ifd = ifd_within(table, self.bounds)
        if chunk.dropped is not None:
            ifd[chunk.dropped.flags(chunk.start, chunk.stop)] = np.nan
        values = self._values(chunk.places, table, ifd)
        codes = self.codes(chunk.places, table)
        weights = tokens_of(table) if self.by_tokens else None
        return ChunkRows(ifd, values, chunk.positions, codes, weights)

    def codes(self, places: Sequence[Place], scores: pa.Table) -> Codes | None:
        """[rows] the code of each row's group; None where all rows are one group.

        Args:
            places: Units.
            scores: [rows] the scores of their rows.

        Raises:
            BadShardError: A shard cannot be read.
        """
        codes = self.grouping.codes(places) if self.grouping else None
        if not self.by_length:
            return codes
        # A row without a score has no length, and is not eligible.
        length = length_of(scores["answer_tokens"].fill_null(0).to_numpy().astype(np.int64))
        return length if codes is None else codes * LENGTHS + length

    def _values(
        self, places: Sequence[Place], scores: pa.Table, ifd: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """[rows] what rows are ranked by; NaN where `ifd` is."""
        if self.ranks_by_ifd:
            return ifd
        return np.where(np.isnan(ifd), np.nan, self.criterion.values(places, scores))

    def digests(self, chunk: Chunk) -> Digests:
        """The eligible rows of a chunk that have a digest.

        Raises:
            SfRayError: A score piece cannot be read.
        """
        digests_of_units, position = [], chunk.start
        units = read_digests(self.scores, chunk.places, self.columns)
        for place, unit in zip(chunk.places, units, strict=True):
            positions = np.arange(position, position + place.unit.rows)
            position += place.unit.rows
            values = self._values([place], unit.scores, ifd_within(unit.scores, self.bounds))
            counts = unit.has_digest & ~np.isnan(values)
            digests_of_units.append(Digests(unit.digest, values, positions).take(counts))
        return join(digests_of_units)


class PlacedRows(NamedTuple):
    """Some rows of a unit, by their numbers.

    Attributes:
        place: The unit, and its shard.
        numbers: [n] numbers of the rows in the shard, increasing.
    """

    place: Place
    numbers: RowNumbers

    @property
    def positions(self) -> Positions:
        """[n] in the corpus."""
        return self.place.shard.position + self.numbers


def placed(chunk: Chunk, is_wanted: NDArray[np.bool_]) -> Iterator[PlacedRows]:
    """The wanted rows of each unit of a chunk, for the units that have any.

    Args:
        chunk: The chunk.
        is_wanted: [rows of the chunk]
    """
    at = 0
    for place in chunk.places:
        numbers = place.unit.start + np.flatnonzero(is_wanted[at : at + place.unit.rows])
        at += place.unit.rows
        if len(numbers):
            yield PlacedRows(place, numbers)


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
        """Rows of a chunk, as one group; IFD and value of a row that is not kept are NaN.

        Raises:
            BadShardError: A shard cannot be read.
            SfRayError: A score piece cannot be read.
        """
        rows = self.eligible.read(chunk)
        keeps = self.cutoffs.keeps(rows.values, rows.positions, rows.codes)
        ifd, values = (np.where(keeps, of_rows, np.nan) for of_rows in (rows.ifd, rows.values))
        return ChunkRows(ifd, values, rows.positions, None, rows.weights)

    def of_units(self, chunk: Chunk) -> Iterator[PlacedRows]:
        """The kept rows of each unit of a chunk, for the units that have any.

        Raises:
            BadShardError: A shard cannot be read.
            SfRayError: A score piece cannot be read.
        """
        return placed(chunk, ~np.isnan(self.read(chunk).ifd))
