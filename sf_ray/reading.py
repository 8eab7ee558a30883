"""Rows of the corpus: Parquet -> one table a unit -> values of a row. No Ray, no model."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from sf_ray.errors import SfRayError
from sf_ray.planning import ReadPlan
from sf_ray.storage import Location, open_shard

_BATCH_ROWS = 4096


def read_units(location: Location, plan: ReadPlan, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Reads the given columns of each unit of a plan, in order, streaming through the file.

    Raises:
        SfRayError: The shard changed, or cannot be read.
    """
    shard, units = plan.shard, plan.units
    ends = np.cumsum(shard.row_groups)
    first = int(np.searchsorted(ends, units[0].start, side="right"))
    last = int(np.searchsorted(ends, units[-1].stop, side="left"))
    position = int(ends[first]) - shard.row_groups[first]
    with open_shard(location, shard.file) as parquet:
        batches = parquet.iter_batches(
            _BATCH_ROWS, row_groups=list(range(first, last + 1)), columns=list(columns)
        )
        held: list[pa.RecordBatch] = []  # rows [position, position + held rows)
        for unit in units:
            while position + sum(batch.num_rows for batch in held) < unit.stop:
                try:
                    held.append(next(batches))
                except StopIteration:
                    raise SfRayError(
                        f"shard {shard.file.relative}: ends before row {unit.stop} that its footer "
                        "promises; write it again or take it out of the corpus"
                    ) from None
                # Rows before this unit are not needed: let go of their memory.
                while held and position + held[0].num_rows <= unit.start:
                    position += held.pop(0).num_rows
            rows = pa.Table.from_batches(held)
            yield rows.slice(unit.start - position, unit.stop - unit.start)


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
