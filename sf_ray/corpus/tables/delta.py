"""A version of a Delta table: its data files, the rows that deletion vectors leave, its columns.

The log is read by deltalake, rows by our own reader, which knows the limits of a row. No Ray.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa

from sf_ray.corpus.tables.columns import STORED_NAME, without_keys
from sf_ray.corpus.tables.snapshot import (
    TableColumns,
    TableSnapshot,
    file_at,
    table_errors,
    version_from,
)
from sf_ray.errors import SfRayError
from sf_ray.runtime.libraries import require
from sf_ray.storage.location import Location
from sf_ray.storage.object_store import object_store_options, object_store_uri
from sf_ray.storage.table_names import TableName

if TYPE_CHECKING:
    from deltalake import DeltaTable

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def read_snapshot(name: TableName, options: Mapping[str, Any], retry_s: float) -> TableSnapshot:
    """Reads which files a version has.

    Args:
        name: The table.
        options: fsspec options of its files.
        retry_s: See `Location`.

    Raises:
        SfRayError: The table or the version is not there, or it has files that lie elsewhere.
    """
    table = load_table(name, options)
    root = Location(name.uri, options, retry_s)
    with table_errors(name, "its log could not be read; look whether the table is whole"):
        schema = pa.schema(table.schema().to_arrow())
        actions = pa.table(table.get_add_actions(flatten=True))
        kept = _kept_rows(table)
    partitioned = [column for column in actions.column_names if column.startswith("partition.")]
    renamed, files = _renamed(schema), []
    for action in actions.to_pylist():
        path = unquote(action["path"])  # the log has paths as URIs do
        uri = path if _URI.match(path) else f"{root.uri.rstrip('/')}/{path}"
        bits = kept.get(path)
        constants = {column.removeprefix("partition."): action[column] for column in partitioned}
        file = file_at(
            root,
            uri,
            size=action["size_bytes"],
            version=version_from(action["modification_time"], renamed, bits),
            rows=action["num_records"] if bits is None else None,
            columns=TableColumns(schema, constants, bits),
        )
        files.append(file)
    files.sort(key=lambda file: file.relative)
    return TableSnapshot(name, str(table.version()), root, without_keys(schema), tuple(files))


def load_table(name: TableName, options: Mapping[str, Any]) -> "DeltaTable":
    """Loads the log of a table.

    Args:
        name: The table.
        options: fsspec options of its files.

    Raises:
        SfRayError: There is no such table or version, or storage does not answer.
    """
    require("delta", "deltalake")
    from deltalake import DeltaTable
    from deltalake.exceptions import TableNotFoundError

    uri = object_store_uri(name.uri)
    try:
        with table_errors(name, "its log could not be read; look at the storage and its options"):
            table = DeltaTable(uri, storage_options=object_store_options(uri, options))
    except SfRayError as error:
        if isinstance(error.__cause__, TableNotFoundError):
            raise SfRayError(f"{name.public_name}: no Delta table there (no _delta_log)") from None
        raise
    if name.ref is not None:
        newest = table.version()
        gone = (
            f"version {name.ref} cannot be read any more, or never was (the newest is {newest}): "
            "vacuuming and log retention end old versions"
        )
        with table_errors(name, gone):
            table.load_as_version(int(name.ref))
    return table


def _kept_rows(table: "DeltaTable") -> dict[str, bytes]:
    """Path below the table -> one bit a row, 0 where a deletion vector removes it."""
    features = table.protocol().reader_features or []
    if "deletionVectors" not in features:
        return {}
    root = table.table_uri.rstrip("/") + "/"
    found = {}
    for batch in pa.RecordBatchReader.from_stream(table.deletion_vectors()):
        for uri, rows in zip(batch["filepath"].to_pylist(), batch["selection_vector"], strict=True):
            bits = rows.values.to_numpy(zero_copy_only=False)
            packed = np.packbits(bits, bitorder="little")
            found[unquote(uri.removeprefix(root))] = packed.tobytes()
    return found


def _renamed(schema: pa.Schema) -> list[tuple[str, str]]:
    """The columns that are called otherwise in files; part of a fingerprint.

    The log does not say since when. So in a table with such names a new column costs a run.
    """
    stored = [
        (field.name, (field.metadata or {}).get(STORED_NAME, b"").decode()) for field in schema
    ]
    return [(name, other) for name, other in stored if other and other != name]
