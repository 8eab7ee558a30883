"""The passes over score pieces that `--exact` needs, in Ray tasks: drawing, measuring, mixing.

Scores no row. Does not know what follows from what it finds.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from sf_ray.corpus.status import Status
from sf_ray.corpus.units import Place
from sf_ray.errors import SfRayError
from sf_ray.runtime.tasks import parallel_map
from sf_ray.scoring.partial_sets import RowSet
from sf_ray.scoring.pieces import read_piece, read_place, read_tables
from sf_ray.scoring.score_set import ScoreSet, ShardUnits
from sf_ray.scoring.score_table import SCORE_ENCODING, SCORE_SCHEMA
from sf_ray.selection.chunks import Chunk, Eligible
from sf_ray.selection.corpus_pass import CorpusPass, chunks_of
from sf_ray.selection.exact.bands import (
    LENGTHS,
    Bands,
    Drawn,
    Floats,
    Ints,
    bands_of,
    draw,
    nearness,
)
from sf_ray.selection.score_range import Positions
from sf_ray.selection.selection import Selection
from sf_ray.storage.files import map_requests, put_table
from sf_ray.storage.location import Location

# Units of one task that mixes pieces, which reads and puts each of them.
_UNITS_A_TASK = 64
# Rows up to this many bands from a line are scored again together with the near ones. The line
# moves a little once they are, and then finds the rows around it done.
_REACH = 1.1
# Columns of the score table by which errors are measured.
_MEASURED = ["row", "ifd", "answer_tokens"]


class Layer(NamedTuple):
    """Scores of some rows, which take the place of others.

    Attributes:
        pieces: The folder of their pieces.
        rows: Which rows they are of.
    """

    pieces: Location
    rows: RowSet


def draw_sample(
    corpus_pass: CorpusPass, score_set: ScoreSet, units: ShardUnits, rows: int
) -> RowSet:
    """Draws rows with a score: as many of each length of answer, as far as there are.

    Args:
        corpus_pass: How to go over the corpus.
        score_set: Scores of all units.
        units: All units of the corpus.
        rows: Rows of the sample.
    """
    wanted = -(-rows // LENGTHS)
    task = functools.partial(_draw, score_set.pieces, wanted)
    drawn: list[Drawn] | None = None
    for of_chunk in corpus_pass.over(task, chunks_of(units)):
        drawn = of_chunk if drawn is None else [
            a.joined(b, wanted) for a, b in zip(drawn, of_chunk, strict=True)
        ]  # fmt: skip
    positions = np.sort(np.concatenate([of_length.positions for of_length in drawn or ()]))
    return _row_set_at(positions, units)


def measure_errors(score_set: ScoreSet, sample: Layer, units: ShardUnits) -> Bands:
    """Compares the scores of the sampled rows, of which there are few, in this process.

    Args:
        score_set: Scores of all units, in the fast type.
        sample: Scores of the sampled rows, in the exact one.
        units: All units of the corpus.

    Raises:
        SfRayError: A score piece cannot be read.
    """

    def read(place: Place) -> tuple[pa.Table, pa.Table]:
        shard, unit = place
        fast = read_place(score_set.pieces, place, _MEASURED)
        flags = sample.rows.flags(shard.piece(unit), unit.rows)
        return fast.filter(pa.array(flags)), read_rows(sample, place, _MEASURED)

    places = [Place(shard, unit) for shard, its in sample.rows.units(units) for unit in its]
    pairs = list(map_requests(score_set.pieces, read, places))
    none = SCORE_SCHEMA.empty_table().select(_MEASURED)
    fast, exact = (pa.concat_tables([none, *(pair[i] for pair in pairs)]) for i in (0, 1))
    return bands_of(_floats(fast["ifd"]), _floats(exact["ifd"]), _counts(fast["answer_tokens"]))


class NearRows(NamedTuple):
    """Rows near a line that decides over them.

    Attributes:
        near: Rows that may lie on the other side of it.
        reach: These, and the ones around them.
    """

    near: RowSet
    reach: RowSet


def find_near(selection: Selection, bands: Bands) -> NearRows:
    """The rows whose place may change across a cut-off or a bound, if their scores do.

    Copies that are dropped are looked at too: once the best of them has another score, another one
    may be the best.

    Args:
        selection: By the scores as they are now.
        bands: How far these scores may be off.

    Raises:
        MarkedBadError: Shards turned out to be bad.
        SfRayError: A score piece cannot be read.
    """
    # Where all eligible rows of a group are kept, its cut-off decides nothing: the bounds do.
    cuts = np.array(
        [
            group.cutoff.value if group.cutoff and group.kept < group.eligible else np.nan
            for group in selection.ranking.groups
        ]
    )
    task = functools.partial(_near, selection.kept.eligible, bands, cuts)
    near: dict[str, bytes] = {}
    reach: dict[str, bytes] = {}
    for of_chunk in selection.corpus_pass.over(task, chunks_of(selection.units)):
        near |= of_chunk.near.bits
        reach |= of_chunk.reach.bits
    return NearRows(RowSet(near), RowSet(reach))


def mix(
    base: Location, layers: Sequence[Layer], target: Location, todo: ShardUnits, stall_s: float
) -> None:
    """Puts pieces that have the scores of one set, and those of the layers where these have some.

    Args:
        base: The folder of the pieces of all rows.
        layers: No row is in two of them.
        target: The folder that the mixed pieces go to.
        todo: The units that have no mixed piece yet.
        stall_s: Seconds to wait for the next task.

    Raises:
        SfRayError: A piece cannot be read.
    """
    tasks = []
    for chunk in chunks_of(todo, units_a_task=_UNITS_A_TASK):
        names = [shard.piece(unit) for shard, unit in chunk.places]
        of_chunk = [Layer(pieces, rows.within(names)) for pieces, rows in layers]
        tasks.append((chunk.places, of_chunk))

    def put(task: tuple[Sequence[Place], Sequence[Layer]]) -> int:
        places, of_chunk = task
        return sum(map_requests(target, lambda place: _mix(base, of_chunk, target, place), places))

    for _ in parallel_map(put, tasks, stall_s):
        pass  # an error of a task is raised when its result is taken


def _draw(pieces: Location, wanted: int, chunk: Chunk) -> list[Drawn]:
    table = pa.concat_tables(read_tables(pieces, chunk.places, ["status", "answer_tokens"]))
    is_ok = table["status"].to_numpy() == Status.OK.value
    return draw(chunk.positions, _counts(table["answer_tokens"]), is_ok, wanted)


def _near(eligible: Eligible, bands: Bands, cuts: Floats, chunk: Chunk) -> NearRows:
    bounds = eligible.bounds
    columns = list(dict.fromkeys(["ifd", "answer_tokens", *(b.column for b in bounds.tokens)]))
    table = pa.concat_tables(read_tables(eligible.scores, chunk.places, columns))
    codes = eligible.grouping.codes(chunk.places) if eligible.grouping else 0
    lines = [bounds.min_ifd, bounds.max_ifd, cuts[codes]]
    in_bands = nearness(_floats(table["ifd"]), bands.of(_counts(table["answer_tokens"])), lines)
    # Token counts are the same in every type: a row outside these bounds is never kept.
    for bound in bounds.tokens:
        in_bands[~bound.holds(_counts(table[bound.column]))] = np.inf
    names = [shard.piece(unit) for shard, unit in chunk.places]
    edges = np.cumsum([unit.rows for _, unit in chunk.places])[:-1]
    return NearRows(
        *(
            RowSet.of_flags(dict(zip(names, np.split(in_bands <= most, edges), strict=True)))
            for most in (1.0, _REACH)
        )
    )


def _mix(base: Location, layers: Sequence[Layer], target: Location, place: Place) -> int:
    """Puts the mixed piece of a unit."""
    shard, unit = place
    columns = SCORE_SCHEMA.names
    tables = [read_place(base, place, columns)]
    # The row of `tables`, one after the other, that each row of the unit is taken from.
    source, rows = np.arange(unit.rows), unit.rows
    for layer in layers:
        if shard.piece(unit) in layer.rows.bits:
            tables.append(read_rows(layer, place, columns))
            at = tables[-1]["row"].to_numpy() - unit.start
            source[at] = rows + np.arange(len(at))
            rows += len(at)
    put_table(target.join(shard.piece(unit)), pa.concat_tables(tables).take(source), SCORE_ENCODING)
    return 1


def read_rows(layer: Layer, place: Place, columns: Sequence[str]) -> pa.Table:
    """Reads the scores that a layer has for a unit, with "row" among the columns.

    Raises:
        SfRayError: The piece is missing, cannot be read, or has other rows.
    """
    shard, unit = place
    piece = layer.pieces.join(shard.piece(unit))
    table = read_piece(piece, columns)
    expected = unit.start + np.flatnonzero(layer.rows.flags(shard.piece(unit), unit.rows))
    if not np.array_equal(table["row"].to_numpy(), expected):
        raise SfRayError(
            f"score piece {piece.public_uri} does not hold the rows that were scored again; delete "
            "it and run again"
        )
    return table


def _row_set_at(positions: Positions, units: ShardUnits) -> RowSet:
    """The rows at some positions of the corpus, which are sorted."""
    flags = {}
    for shard, shard_units in units:
        for unit in shard_units:
            start = shard.position + unit.start
            first, last = np.searchsorted(positions, [start, start + unit.rows])
            if last > first:
                flags[shard.piece(unit)] = np.zeros(unit.rows, bool)
                flags[shard.piece(unit)][positions[first:last] - start] = True
    return RowSet.of_flags(flags)


def _floats(column: pa.ChunkedArray) -> Floats:
    values: Floats = column.to_numpy().astype(np.float64, copy=False)
    return values


def _counts(column: pa.ChunkedArray) -> Ints:
    """Token counts; -1 where a row has none."""
    counts: Ints = column.fill_null(-1).to_numpy().astype(np.int64)
    return counts
