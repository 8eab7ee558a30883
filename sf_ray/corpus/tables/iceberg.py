"""A snapshot of an Iceberg table: its data files, and what they call its columns.

The catalogue is found as pyiceberg finds it: by its own configuration file or environment. Metadata
is read by pyiceberg, rows by our own reader, which knows the limits of a row. No Ray.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from sf_ray.corpus.tables.columns import DEFAULT, FIELD_ID, OTHER_NAMES, without_keys
from sf_ray.corpus.tables.snapshot import (
    TableColumns,
    TableSnapshot,
    file_at,
    refuse,
    table_errors,
    version_from,
)
from sf_ray.errors import SfRayError
from sf_ray.runtime.libraries import require
from sf_ray.storage.iceberg_catalog import catalog_of, options_of
from sf_ray.storage.location import Location
from sf_ray.storage.table_names import TableName

if TYPE_CHECKING:
    from pyiceberg.manifest import DataFile as IcebergFile
    from pyiceberg.schema import Schema
    from pyiceberg.table import Table
    from pyiceberg.table.name_mapping import MappedField, NameMapping
    from pyiceberg.table.snapshots import Snapshot

# Snapshots that an error names.
_SHOWN = 3
_REWRITE = (
    "write its files anew, e.g. with Spark's `CALL CATALOG.system.rewrite_data_files(table => "
    "'TABLE', options => map('delete-file-threshold', '1'))`"
)
_NAME_MAPPING = "schema.name-mapping.default"


def read_snapshot(name: TableName, options: Mapping[str, Any], retry_s: float) -> TableSnapshot:
    """Reads which files a snapshot has.

    Args:
        name: The table.
        options: fsspec options of its files.
        retry_s: See `Location`.

    Raises:
        SfRayError: The catalogue, the table or the snapshot is not there, or the snapshot has files
            that would give wrong rows.
    """
    table = load_table(name, options)
    snapshot = _snapshot(table, name)
    if snapshot is None:
        raise SfRayError(f"{name.public_name}: the table is empty: nothing was ever written to it")
    with table_errors(
        name, "its files could not be listed; look whether its metadata can be read from here"
    ):
        schema = _schema(table, snapshot, name)
        mapping, schemas = table.name_mapping(), list(table.schemas().values())
        columns, renamed = _columns(schema, mapping), _renamed(schema, schemas)
        files = _readable_files(table, snapshot, name)
    root = Location(table.location(), options or options_of(table.io.properties), retry_s)
    without_ids = (
        ""
        if mapping
        else "its columns have no field ids, so that nobody can tell which is which once one was "
        f"renamed; give the table the property {_NAME_MAPPING}"
    )
    shards = [
        file_at(
            root,
            file.file_path,
            size=file.file_size_in_bytes,
            version=version_from(file.record_count, renamed),
            rows=file.record_count,
            columns=TableColumns(
                columns, _partition(table, schema, file), refuse_without_ids=without_ids
            ),
        )
        for file in files
    ]
    return TableSnapshot(
        name,
        str(snapshot.snapshot_id),
        root,
        without_keys(columns),
        tuple(sorted(shards, key=lambda shard: shard.relative)),
        _former(schema, schemas),
    )


def _schema(table: "Table", snapshot: "Snapshot", name: TableName) -> "Schema":
    """The columns of a snapshot; of the newest state those that the table has now.

    Then a column may have been changed since the last row was written.
    """
    if name.ref is None or snapshot.schema_id is None:
        return table.schema()
    return table.schemas()[snapshot.schema_id]


def _readable_files(table: "Table", snapshot: "Snapshot", name: TableName) -> list["IcebergFile"]:
    """The data files of a snapshot.

    Raises:
        SfRayError: Some would give wrong rows.
    """
    summary = {} if snapshot.summary is None else snapshot.summary.additional_properties
    if int(summary.get("total-equality-deletes") or 0):  # of which pyiceberg plans nothing
        raise SfRayError(f"{name.public_name}: rows of it are removed by equality; {_REWRITE}")
    tasks = list(table.scan(snapshot_id=snapshot.snapshot_id).plan_files())
    files = [task.file for task in tasks]
    refuse(
        name,
        (task.file.file_path for task in tasks if task.delete_files),
        "have rows that a delete file removes",
        _REWRITE,
    )
    refuse(
        name,
        (file.file_path for file in files if file.file_format.value != "PARQUET"),
        "are no Parquet",
        "write them anew with the table property write.format.default=parquet",
    )
    refuse(
        name,
        (file.file_path for file in files if file.key_metadata is not None),
        "are encrypted",
        "sf-ray has no keys: copy the rows to a table without encryption",
    )
    return files


def load_table(name: TableName, options: Mapping[str, Any]) -> "Table":
    """Loads a table's metadata from its catalogue.

    Args:
        name: The table.
        options: fsspec options of its files, which go before those of the catalogue.

    Raises:
        SfRayError: There is no such catalogue or table, or the catalogue does not answer.
    """
    require("iceberg", "pyiceberg")
    from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError

    try:
        with table_errors(
            name,
            f"the catalogue {name.catalog} did not answer; look at its section in .pyiceberg.yaml "
            f"or at PYICEBERG_CATALOG__{name.catalog.upper()}__URI, and whether it is up",
        ):
            return catalog_of(name, options).load_table(name.identifier)
    except SfRayError as error:
        if isinstance(error.__cause__, NoSuchTableError | NoSuchNamespaceError):
            raise SfRayError(
                f"{name.public_name}: the catalogue {name.catalog} has no table {name.name}"
            ) from None
        raise


def _snapshot(table: "Table", name: TableName) -> "Snapshot | None":
    """The snapshot that a name asks for; None where the table has none yet.

    Raises:
        SfRayError: It is not there any more, or never was.
    """
    ref = name.ref
    if ref is None:
        return table.current_snapshot()
    found = table.snapshot_by_name(ref)
    if found is None and ref.isdigit():
        found = table.snapshot_by_id(int(ref))
    if found is None:
        last = [str(snapshot.snapshot_id) for snapshot in table.snapshots()][-_SHOWN:]
        refs = sorted(table.refs())
        raise SfRayError(
            f"{name.public_name}: the table has no snapshot, branch or tag {ref}: it may have "
            f"expired. The last snapshots are {', '.join(last) or 'none'}; branches and tags: "
            f"{', '.join(refs) or 'none'}"
        )
    return found


def _columns(schema: "Schema", mapping: "NameMapping | None") -> pa.Schema:
    """The columns as Arrow has them, with ids, other names and defaults in the metadata."""
    from pyiceberg.io.pyarrow import schema_to_pyarrow

    names = dict(_mapped_names(mapping or ()))
    columns = []
    for column, field in zip(schema_to_pyarrow(schema), schema.fields, strict=True):
        column = _with_names(column, names)
        if field.initial_default is not None:
            default = json.dumps(field.initial_default, default=str)
            column = column.with_metadata({**column.metadata, DEFAULT: default})
        columns.append(column)
    return pa.schema(columns)


def _mapped_names(fields: Iterable["MappedField"]) -> Iterator[tuple[str, list[str]]]:
    """Id -> the names that files without ids have for the column, also inside of others."""
    for field in fields:
        if field.field_id is not None:
            yield str(field.field_id), sorted(field.names)
        yield from _mapped_names(field.fields)


def _with_names(column: pa.Field, names: Mapping[str, list[str]]) -> pa.Field:
    """A column whose metadata has its id and its other names, at any depth of structs and lists."""
    field_id = column.metadata[FIELD_ID].decode()
    known = {FIELD_ID: field_id}
    if field_id in names:
        known[OTHER_NAMES] = json.dumps(names[field_id])
    inside = column.type
    if pa.types.is_struct(inside):
        inside = pa.struct([_with_names(field, names) for field in inside])
    elif pa.types.is_large_list(inside):
        inside = pa.large_list(_with_names(inside.value_field, names))
    return pa.field(column.name, inside, metadata=known)


def _renamed(schema: "Schema", schemas: Iterable["Schema"]) -> list[tuple[int, str]]:
    """The columns whose name was another one's, or that had another name; part of a fingerprint.

    A file's scores hold as long as its columns are called the same. A column that was only added
    changes nothing of older files.
    """
    names, ids = defaultdict(set), defaultdict(set)
    for other in schemas:
        for field_id, column in _names_of(other).items():
            names[field_id].add(column)
            ids[column].add(field_id)
    return [
        (field_id, column)
        for field_id, column in sorted(_names_of(schema).items())
        if len(names[field_id]) > 1 or len(ids[column]) > 1
    ]


def _names_of(schema: "Schema") -> dict[int, str]:
    """Id -> the name of the column, with those of the columns that it lies in."""
    return {
        field_id: column
        for field_id in schema.field_ids
        if (column := schema.find_column_name(field_id)) is not None
    }


def _former(schema: "Schema", schemas: Iterable["Schema"]) -> tuple[str, ...]:
    now = set(schema.column_names)
    return tuple(sorted({name for other in schemas for name in other.column_names} - now))


def _partition(table: "Table", schema: "Schema", file: "IcebergFile") -> dict[str, Any]:
    """Column -> value, of the columns by whose values the file's rows were put together.

    Files that came from Hive have such values in their paths only.
    """
    from pyiceberg.transforms import IdentityTransform

    spec, values = table.specs()[file.spec_id], file.partition
    return {
        column: values[place]
        for place, field in enumerate(spec.fields)
        if isinstance(field.transform, IdentityTransform)
        and (column := schema.find_column_name(field.source_id)) is not None
    }
