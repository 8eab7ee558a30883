"""Units as Ray rows.

A unit is one row of a table: its rows travel as a list inside it. A few of them make a bundle,
which is one Ray row in the same way, so that Ray's cost of a task is shared between them. Ray may
merge or split blocks as it likes, and can neither tear a unit apart nor mix two of them. Arrow
wraps and unwraps without a copy; this knows nothing of Ray.
"""

from collections.abc import Sequence

import pyarrow as pa

from sf_ray.corpus.units import ReadPlan, Unit


def wrap_unit(plan: ReadPlan, unit: Unit, rows: pa.Table) -> pa.Table:
    """A unit and its rows, as one row."""
    piece = f"{plan.stem}{unit.suffix}"
    return pa.table(
        {
            "shard": [plan.file.relative],
            "start": [unit.start],
            "piece": [piece],
            "rows": _whole(rows),
        }
    )


def wrap_bundle(units: Sequence[pa.Table]) -> pa.Table:
    """One Ray row that holds some units."""
    return pa.table({"units": _whole(pa.concat_tables(units))})


def unwrap_bundle(bundle: pa.Table) -> list[pa.Table]:
    """The units of a bundle, each as one row."""
    units = pa.Table.from_struct_array(_one(bundle["units"]).flatten())
    return [units.slice(index, 1) for index in range(units.num_rows)]


def rewrap_unit(unit: pa.Table, rows: pa.Table) -> pa.Table:
    """The same unit with other rows."""
    return unit.set_column(unit.schema.get_field_index("rows"), "rows", _whole(rows))


def _whole(rows: pa.Table) -> pa.ListArray:
    struct = _one(rows.to_struct_array())
    return pa.ListArray.from_arrays(pa.array([0, len(struct)], pa.int32()), struct)


def _one(column: pa.ChunkedArray) -> pa.Array:
    # Combining copies, even a single chunk.
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def unwrap_unit(unit: pa.Table) -> pa.Table:
    """The rows that a unit's Ray row holds."""
    return pa.Table.from_struct_array(_one(unit["rows"]).flatten())
