"""A snapshot of a table: its data files are the shards of a corpus.

A table is no folder: which files count, and what their columns are called today, only its metadata
says. Knows no table format, and opens no file.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from sf_ray.errors import SfRayError, first_line
from sf_ray.storage.listing import File
from sf_ray.storage.location import Location
from sf_ray.storage.table_names import TableName

# Names of one protocol, under which one file may be listed by different writers.
_ALIASES = {"s3a": "s3", "s3n": "s3", "gcs": "gs", "abfss": "abfs"}


@dataclass(frozen=True)
class TableColumns:
    """What the rows of a data file are called today.

    Attributes:
        schema: The columns of the snapshot. The metadata of a field says how a data file calls it:
            see `columns.stored_at`.
        constants: Column -> the value of all rows, where the path of the file holds it: a
            partition.
        kept: One bit a row, the lowest first, 0 where a deletion vector removes the row; None where
            no row is removed.
        refuse_without_ids: Why a file is refused whose columns have no ids; "" where it is read by
            names.
    """

    schema: pa.Schema
    constants: Mapping[str, Any]
    kept: bytes | None = None
    refuse_without_ids: str = ""


@dataclass(frozen=True)
class DataFile(File):
    """A Parquet file of a table.

    Attributes:
        rows: How many rows it has, as the table says.
        columns: What its rows are called.
    """

    rows: int | None
    columns: TableColumns = field(compare=False)  # the version stands for it

    def is_version(self, info: Mapping[str, Any]) -> bool:
        """Tables never write a file twice, so that its size is proof enough."""
        return int(info["size"]) == self.size


@dataclass(frozen=True)
class TableState:
    """Which state of which table a corpus is.

    Attributes:
        name: The table, without secrets.
        format: "iceberg", "delta" or "lance".
        snapshot: Id or version.
        former_columns: Names that earlier states had, and this one lacks.
    """

    name: str
    format: str
    snapshot: str
    former_columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class TableSnapshot:
    """One state of a table.

    Attributes:
        name: The table, as the user named it.
        snapshot: Id or version of this state.
        location: The folder of the table's files.
        schema: Columns and types of all rows.
        files: The data files, or fragments.
        former_columns: Names that earlier states had, and this one lacks.
    """

    name: TableName
    snapshot: str
    location: Location
    schema: pa.Schema
    files: tuple[File, ...]
    former_columns: tuple[str, ...] = ()

    @property
    def state(self) -> TableState:
        """What is kept of it once its files are shards."""
        return TableState(self.name.public_name, self.name.kind, self.snapshot, self.former_columns)


def file_at(root: Location, uri: str, **details: Any) -> DataFile:
    """A data file, wherever the table keeps it.

    Args:
        root: The folder of the table's files.
        uri: Path or URI of the file, of which nothing is parsed behind the root.
        details: See `DataFile`.

    Raises:
        SfRayError: The file lies in another storage than the table.
    """
    folder = _plain(root.uri).rstrip("/") + "/"
    where = _plain(uri)
    if where.startswith(folder):
        relative = where.removeprefix(folder)
        path = root.join(relative).path
    elif _protocol(where) == _protocol(folder):
        path = Location(where, root.storage_options).path
        relative = path.lstrip("/")
    else:
        raise SfRayError(
            f"{root.public_uri}: its file {Location(uri).public_uri} lies in another storage; "
            "sf-ray reads tables whose files lie together: copy the table, e.g. with a `CREATE "
            "TABLE ... AS SELECT`"
        )
    if not relative.endswith(".parquet"):
        relative += ".parquet"  # the table knows what it is, others look at the name
    return DataFile(path, relative, **details)


def version_from(*facts: object) -> str:
    """The version of a data file: a hash of all that decides which rows it gives."""
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]


@contextmanager
def table_errors(name: TableName, what: str) -> Iterator[None]:
    """Turns what a table's library raises into an error that says what, where and what next.

    Args:
        name: The table.
        what: What could not be done.
    """
    try:
        yield
    except (SfRayError, MemoryError):
        raise
    # Libraries of tables raise errors of many other libraries: of databases, HTTP, Rust.
    except Exception as error:
        raise SfRayError(f"{name.public_name}: {what} ({first_line(error)})") from error


def refuse(name: TableName, files: Iterable[str], why: str, advice: str) -> None:
    """Refuses a snapshot of which some files cannot be read as they are.

    Args:
        name: The table.
        files: Those files; there may be none.
        why: What is wrong with them.
        advice: What to do.

    Raises:
        SfRayError: There are such files; names one.
    """
    bad = sorted(files)
    if bad:
        raise SfRayError(
            f"{name.public_name}: {len(bad):,} of its data files {why}, e.g. {bad[0]}; {advice}"
        )


def _plain(uri: str) -> str:
    protocol, mark, rest = uri.partition("://")
    if not mark:
        return "file://" + uri if uri.startswith("/") else uri
    return f"{_ALIASES.get(protocol, protocol)}://{rest}"


def _protocol(uri: str) -> str:
    return uri.partition("://")[0]
