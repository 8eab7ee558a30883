"""Whole units of the corpus as rows of a Ray dataset.

A bundle is one Ray row that holds a few units, so that they share the cost of a Ray task. Each unit
is one row of a struct array, and its own rows are a list inside that row. Ray may therefore merge
or split blocks as it likes: it can neither tear a unit apart nor mix two units (docs/adr/0001).

    bundle: one row, column "units": list<struct<shard, start, piece, rows: list<struct<...>>>>

Arrow wraps and unwraps lists of structs without a copy. Knows neither Ray nor what the rows of a
unit are: encoded rows, scores, texts and embeddings all travel this way.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from sf_ray.corpus.units import ReadPlan, Unit

# A bundle is full at this size: enough to be worth a Ray task, whatever its rows are.
_BUNDLE_BYTES = 16 << 20


@dataclass(frozen=True)
class UnitRows:
    """A unit and a table of its rows, as they travel between processes.

    Attributes:
        shard: Relative path of the shard.
        start: Row number in the shard of the unit's first row.
        piece: Name of the unit's piece, below the folder that holds the pieces.
        rows: Values of the unit's rows, or of some of them.
    """

    shard: str
    start: int
    piece: str
    rows: pa.Table

    @classmethod
    def of(cls, plan: ReadPlan, unit: Unit, rows: pa.Table) -> "UnitRows":
        """A unit of a read plan, with a table of its rows."""
        return cls(plan.file.relative, unit.start, f"{plan.stem}{unit.suffix}", rows)

    def with_rows(self, rows: pa.Table) -> "UnitRows":
        """The same unit with another table, e.g. with scores in place of encoded rows."""
        return replace(self, rows=rows)


def bundle_of(units: Sequence[UnitRows]) -> pa.Table:
    """One Ray row that holds some units whose tables have the same schema."""
    table = pa.table(
        {
            "shard": [unit.shard for unit in units],
            "start": [unit.start for unit in units],
            "piece": [unit.piece for unit in units],
            "rows": pa.chunked_array([_as_one_list(unit.rows) for unit in units]),
        }
    )
    return pa.table({"units": _as_one_list(table)})


def bundles_of(
    units: Iterable[UnitRows], max_units: int = sys.maxsize, max_rows: int = sys.maxsize
) -> Iterator[pa.Table]:
    """Bundles of units, in their order; each is full at 16 MiB, or at one of the limits.

    Args:
        units: Taken one by one: a bundle is yielded before the next unit is asked for.
        max_units: Units that a bundle holds at most.
        max_rows: Rows at which a bundle is full; units stay whole, so the last one may exceed it.
    """
    held: list[UnitRows] = []
    rows = size_bytes = 0
    for unit in units:
        held.append(unit)
        rows += unit.rows.num_rows
        size_bytes += unit.rows.nbytes
        if len(held) >= max_units or rows >= max_rows or size_bytes >= _BUNDLE_BYTES:
            yield bundle_of(held)
            held, rows, size_bytes = [], 0, 0
    if held:
        yield bundle_of(held)


def units_of_bundle(bundle: pa.Table) -> list[UnitRows]:
    """The units of a bundle, which is a table of one row."""
    units = _one_chunk(bundle["units"]).flatten()
    shards, starts, pieces, rows = (
        units.field(name) for name in ("shard", "start", "piece", "rows")
    )
    return [
        UnitRows(
            shards[index].as_py(),
            starts[index].as_py(),
            pieces[index].as_py(),
            pa.Table.from_struct_array(rows.slice(index, 1).flatten()),
        )
        for index in range(len(units))
    ]


def _as_one_list(table: pa.Table) -> pa.ListArray:
    """[1] the rows of a table as one list of structs."""
    rows = _one_chunk(table.to_struct_array())
    return pa.ListArray.from_arrays(pa.array([0, len(rows)], pa.int32()), rows)


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    # combine_chunks copies, even where there is a single chunk.
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
