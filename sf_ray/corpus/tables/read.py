"""A table's name -> the files of one of its states. Which library reads it, its kind says."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sf_ray.corpus.tables import delta, iceberg, lance
from sf_ray.corpus.tables.snapshot import TableSnapshot, TableState
from sf_ray.errors import SfRayError
from sf_ray.storage.table_names import TableName

_READERS: Mapping[str, Callable[[TableName, Mapping[str, Any], float], TableSnapshot]] = {
    "iceberg": iceberg.read_snapshot,
    "delta": delta.read_snapshot,
    "lance": lance.read_snapshot,
}


def read_table(name: TableName, options: Mapping[str, Any], retry_s: float) -> TableSnapshot:
    """Reads which files the table has in the state that is asked for, by its metadata alone.

    Args:
        name: The table.
        options: fsspec options of its files.
        retry_s: See `Location`.

    Raises:
        SfRayError: The table or the state is not there, or has files that would give wrong rows.
    """
    return _READERS[name.kind](name, options, retry_s)


@contextmanager
def former_columns_named(table: TableState | None) -> Iterator[None]:
    """Says of a column that is missing that it may have been there before.

    Args:
        table: The table that the corpus is; None where it is none.
    """
    try:
        yield
    except SfRayError as error:
        if table is None or not table.former_columns:
            raise
        raise SfRayError(
            f"{error}\n{table.name}: columns that earlier states of the table had, and snapshot "
            f"{table.snapshot} lacks: {', '.join(table.former_columns)}; an earlier one is read "
            "with @SNAPSHOT behind the table's name"
        ) from error
