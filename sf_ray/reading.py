"""Rows of the corpus: Parquet -> one table a unit -> values of a row. No Ray, no model."""

from collections.abc import Iterator, Sequence

import pyarrow as pa

from sf_ray.errors import BadShardError
from sf_ray.locations import Location
from sf_ray.shards import open_shard
from sf_ray.units import ReadPlan

_BATCH_ROWS = 4096


def read_units(location: Location, plan: ReadPlan, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Reads the given columns of each unit of a plan, in order, streaming through the file.

    Raises:
        BadShardError: The shard changed, is gone, or cannot be read.
        SfRayError: Storage failed.
    """
    position = plan.first_row
    with open_shard(location, plan.file) as parquet:
        batches = parquet.iter_batches(
            _BATCH_ROWS,
            row_groups=list(plan.row_groups),
            columns=list(columns),
            use_threads=False,  # many tasks read side by side
        )
        held: list[pa.RecordBatch] = []  # rows [position, position + held rows)
        for unit in plan.units:
            while position + sum(batch.num_rows for batch in held) < unit.stop:
                try:
                    held.append(next(batches))
                except StopIteration:
                    raise BadShardError(
                        plan.file.relative, f"ends before row {unit.stop} that its footer promises"
                    ) from None
                # Rows before this unit are not needed: let go of their memory.
                while held and position + held[0].num_rows <= unit.start:
                    position += held.pop(0).num_rows
            rows = pa.Table.from_batches(held)
            yield rows.slice(unit.start - position, unit.rows)


def values_of(column: pa.ChunkedArray) -> list[object]:
    """Python values of a text column; a cell that is not valid UTF-8 stays bytes.

    Parquet does not check its strings, so one broken cell must not take the others with it.
    """
    try:
        values: list[object] = column.to_pylist()
        return values
    except UnicodeDecodeError:
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        cells = column.cast(pa.large_binary()).to_pylist()
        return [cell if cell is None else _text_or_bytes(cell) for cell in cells]


def _text_or_bytes(cell: bytes) -> str | bytes:
    try:
        return cell.decode()
    except UnicodeDecodeError:
        return cell
