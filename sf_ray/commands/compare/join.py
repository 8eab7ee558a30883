"""Two score sets of one corpus, joined row by row and compared. No Ray, no model.

Pieces are read once, in the order of the corpus, and no more rows are held than a bound says.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sf_ray.commands.compare.common_rows import (
    Block,
    ShardVersion,
    Side,
    common_blocks,
    no_common_rows,
    refuse_incomplete,
    side_of,
)
from sf_ray.commands.compare.consistency import (
    Agreement,
    Consistency,
    ScoreColumns,
    consistency_of,
    sampled,
)
from sf_ray.corpus.status import Status
from sf_ray.corpus.units import Unit
from sf_ray.scoring.pieces import other_rows, read_piece
from sf_ray.scoring.score_set import SAMPLE, ScoreSet
from sf_ray.storage.files import map_requests
from sf_ray.storage.location import Location

# Rows that are ranked at once, at most: that takes about 1.2 GiB. Of more, a sample is.
MOST_ROWS = 8_000_000
_VALUES = ("ppl_direct", "ppl_conditioned", "ifd")


@dataclass(frozen=True)
class Comparison:
    """How two score sets of one corpus compare.

    Attributes:
        a, b: The two sides.
        rows: That both sides have, whatever their status.
        statuses: (of A, of B) -> rows, where they differ.
        is_sample: The rows that are ranked are a sample of them.
        ranked: How many those are.
        consistency: Of the ranked rows.
        agreement: Of all rows.
        ifd_a, ifd_b: [ranked] in the order of the corpus; NaN unless `ok`.
        notes: What people should know.
    """

    a: Side
    b: Side
    rows: int
    statuses: Mapping[tuple[str, str], int]
    is_sample: bool
    ranked: int
    consistency: Consistency
    agreement: Agreement
    ifd_a: NDArray[np.float64]
    ifd_b: NDArray[np.float64]
    notes: tuple[str, ...]


def compare_sets(
    a: ScoreSet,
    b: ScoreSet,
    fractions: Sequence[float],
    max_ifd: float,
    is_partial: bool = False,
    most_rows: int = MOST_ROWS,
) -> Comparison:
    """Compares two score sets of one corpus.

    Args:
        a, b: The sets.
        fractions: Of the common rows: sizes of the selections to hold against each other.
        max_ifd: Only rows with an IFD below this are selected.
        is_partial: Compare what there is, where a side is not complete.
        most_rows: Rank about so many rows at most; of more, a sample.

    Raises:
        SfRayError: They have no common rows, one is not complete, or a piece cannot be read.
    """
    sides = side_of(a), side_of(b)
    if not is_partial:
        for name, side in zip("AB", sides, strict=True):
            refuse_incomplete(name, side)
    blocks = common_blocks(*sides)
    rows = sum(stop - start for _, _, _, start, stop in blocks)
    if not rows:
        raise no_common_rows(*sides)
    share = min(1.0, most_rows / rows)
    parts: list[list[NDArray[np.float64]]] = [[] for _ in range(2 * len(_VALUES))]
    statuses: Counter[tuple[str, str]] = Counter()
    agreement = Agreement()
    for relative, numbers, tables in _joined(*sides, blocks):
        statuses += _differing(tables)
        columns = [column for table in tables for column in _columns(table)]
        agreement += Agreement.of(columns[2], columns[5])
        chosen = sampled(relative, numbers, share) if share < 1 else slice(None)
        for part, column in zip(parts, columns, strict=True):
            part.append(column[chosen])
    whole = [_concatenated(part) for part in parts]
    scores_a, scores_b = ScoreColumns(*whole[:3]), ScoreColumns(*whole[3:])
    return Comparison(
        *sides,
        rows=rows,
        statuses=dict(statuses.most_common()),
        is_sample=share < 1,
        ranked=len(scores_a.ifd),
        consistency=consistency_of(scores_a, scores_b, fractions, max_ifd),
        agreement=agreement,
        ifd_a=scores_a.ifd,
        ifd_b=scores_b.ifd,
        notes=tuple(_notes(*sides)),
    )


class _Pieces:
    """Pieces of one side: each is read once, ahead of need, and asked for in order."""

    def __init__(self, side: Side, units: Sequence[tuple[ShardVersion, Unit]]) -> None:
        pieces = side.score_set.pieces
        self._units = iter(dict.fromkeys(units))
        self._tables = map_requests(
            pieces,
            lambda place: _read_piece(pieces.join(side.piece(*place)), place[1]),
            dict.fromkeys(units),
        )
        self._unit: tuple[ShardVersion, Unit] | None = None
        self._table = pa.table({})

    def rows(self, shard: ShardVersion, unit: Unit, start: int, stop: int) -> pa.Table:
        """Rows [start, stop) of a shard, which lie in this unit."""
        if self._unit != (shard, unit):
            self._unit, self._table = next(self._units), next(self._tables)
            assert self._unit == (shard, unit), "pieces are asked for in order"
        return self._table.slice(start - unit.start, stop - start)


def _joined(
    a: Side, b: Side, blocks: Sequence[Block]
) -> Iterator[tuple[str, NDArray[np.int64], tuple[pa.Table, pa.Table]]]:
    """For each block its shard, its [n] row numbers, and the rows of both sides."""
    of_a = _Pieces(a, [(shard, unit) for shard, unit, _, _, _ in blocks])
    of_b = _Pieces(b, [(shard, unit) for shard, _, unit, _, _ in blocks])
    for shard, unit_a, unit_b, start, stop in blocks:
        tables = of_a.rows(shard, unit_a, start, stop), of_b.rows(shard, unit_b, start, stop)
        yield shard.relative, np.arange(start, stop), tables


def _read_piece(location: Location, unit: Unit) -> pa.Table:
    """The columns of a piece that are compared, checked to be the rows of its unit."""
    table = read_piece(location, ["row", "status", *_VALUES])
    if not np.array_equal(table["row"].to_numpy(), np.arange(unit.start, unit.stop)):
        raise other_rows(location)
    return table.combine_chunks()


def _columns(table: pa.Table) -> list[NDArray[np.float64]]:
    """[n] each of the values; NaN unless a row is `ok`."""
    is_ok = pc.equal(table["status"], Status.OK.value).to_numpy()
    return [np.where(is_ok, table[name].to_numpy(), np.nan) for name in _VALUES]


def _differing(tables: tuple[pa.Table, pa.Table]) -> Counter[tuple[str, str]]:
    """(status of A, status of B) -> rows, where they differ."""
    status_a, status_b = (table["status"] for table in tables)
    differ = pc.not_equal(status_a, status_b)
    if not pc.any(differ).as_py():
        return Counter()
    pairs = (status.filter(differ).to_pylist() for status in (status_a, status_b))
    return Counter(zip(*pairs, strict=True))


def _concatenated(parts: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """One array of the parts, which are let go of: no two columns are held twice at a time."""
    whole = np.concatenate(parts)
    parts.clear()
    return whole


def _notes(a: Side, b: Side) -> Iterator[str]:
    if a.score_set.pieces == b.score_set.pieces:
        yield "both sides are the same scores"
    for name, side in zip("AB", (a, b), strict=True):
        if side.missing:
            yield f"units of {name} without scores, which are left out: {side.missing:,}"
        elif side.missing is None and SAMPLE not in side.score_set.identity:
            yield f"nothing beside the scores of {name} tells whether they are complete"
    mine, theirs = a.score_set.identity, b.score_set.identity
    for key in sorted(mine.keys() | theirs.keys()):
        if key != "model" and mine.get(key) != theirs.get(key):
            yield f"{key} differs: {mine.get(key)} and {theirs.get(key)}"
