"""Kept rows -> a snapshot of an Iceberg table, by PyIceberg, whose configuration has the catalogue.

Files are written into the table's own folder first, a part of the rows in memory at a time, and
then added in one transaction, as PyIceberg advises for rows that do not fit into memory: its own
`append` hands all batches of a reader to its threads at once. Until the transaction is through no
reader sees anything, and where it fails its files are removed.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from sf_ray.errors import SfRayError, UsageError, first_line
from sf_ray.output.commits.columns import Fitted, fitted
from sf_ray.output.commits.commit import (
    ATTEMPTS,
    ROWS,
    Committed,
    KeptRows,
    Mode,
    is_answer,
    overtaken,
    worn_out,
)
from sf_ray.runtime.libraries import require
from sf_ray.runtime.log import say
from sf_ray.storage.iceberg_catalog import catalog_of
from sf_ray.storage.table_names import TableName

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.io import FileIO
    from pyiceberg.table import Table, Transaction
    from pyiceberg.table.snapshots import Snapshot

_MAIN = "main"
# A file ends when it has this size on disk, and a row group when it takes this much memory.
_FILE_BYTES, _ROW_GROUP_BYTES = 128 << 20, 64 << 20


class IcebergTarget:
    """A branch of an Iceberg table; a `commit.Target`."""

    is_table = True

    def __init__(self, table: TableName, mode: Mode) -> None:
        require("iceberg", "pyiceberg")
        self.name = table.public_name
        self._table = table
        self._mode = mode
        self._branch = _MAIN if table.ref is None else table.ref
        self._columns = pa.schema([])
        self._head: int | None = None
        if self._branch.isdigit():
            raise UsageError(
                f"--commit-to {self.name}: behind the @ must stand a branch, and {self._branch} is "
                "a snapshot, which never changes"
            )

    def check(self, columns: pa.Schema | None) -> None:
        """See `Target.check`."""
        from pyiceberg.exceptions import NoSuchNamespaceError
        from pyiceberg.table.refs import SnapshotRefType

        assert columns is not None
        self._columns = columns
        with _explained(self.name):
            catalog = catalog_of(self._table, {})
            try:
                catalog.load_namespace_properties(self._table.identifier[:-1])
            except NoSuchNamespaceError:
                raise UsageError(
                    f"--commit-to {self.name}: the catalogue has no namespace "
                    f"{'.'.join(self._table.identifier[:-1])!r}; create it, or name another"
                ) from None
            table = self._load(catalog)
            if table is None:
                self._refuse_branch_of_no_table()
                self._said(fitted("iceberg", self.name, columns, pa.schema([])), is_new=True)
                return
            ref = table.metadata.refs.get(self._branch)
            if ref is not None and ref.snapshot_ref_type != SnapshotRefType.BRANCH:
                raise UsageError(
                    f"--commit-to {self.name}: {self._branch!r} is a tag: name a branch"
                )
            if not table.spec().is_unpartitioned():
                raise UsageError(
                    f"--commit-to {self.name}: the table is partitioned, and sf-ray writes only "
                    "into tables that are not; commit to another one, and insert from there"
                )
            self._said(self._fitted(table), is_new=False)
            self._head = _id(self._head_of(table))
            _try_to_write(table)

    def find(self, request_id: str) -> Committed | None:
        """See `Target.find`."""
        with _explained(self.name):
            table = self._load(catalog_of(self._table, {}))
            return None if table is None else self._find(table, request_id)

    def commit(self, kept: KeptRows) -> Committed:
        """See `Target.commit`."""
        from pyiceberg.exceptions import (
            CommitFailedException,
            TableAlreadyExistsError,
            ValidationException,
        )

        with _explained(self.name):
            for _ in range(ATTEMPTS):
                catalog = catalog_of(self._table, {})
                table = self._load(catalog)
                if table is not None and (found := self._find(table, kept.request_id)):
                    return found
                self._refuse_overtaken(table)
                # Now: the attempt brings `table` up to date when it is overtaken.
                before = None if table is None else table.metadata_location
                try:
                    return self._commit(catalog, table, kept)
                except (CommitFailedException, ValidationException, TableAlreadyExistsError):
                    now = self._load(catalog)
                    if before is not None and now and now.metadata_location == before:
                        raise  # nobody was faster: it is something else
        raise worn_out(self.name)

    def _commit(self, catalog: "Catalog", table: "Table | None", kept: KeptRows) -> Committed:
        """One attempt, in one transaction."""
        from pyiceberg.exceptions import (
            CommitFailedException,
            TableAlreadyExistsError,
            ValidationException,
        )
        from pyiceberg.expressions import AlwaysTrue

        properties = kept.properties(self._mode)
        fit = self._fitted(table)
        if table is None:
            transaction: Transaction = catalog.create_table_transaction(
                self._table.identifier, fit.schema
            )
            io = transaction._table.io  # the staged table, which nothing else gives access to
        else:
            transaction, io = table.transaction(), table.io
            self._make_branch(table, transaction)
            if fit.added:
                with transaction.update_schema() as update:
                    update.union_by_name(pa.schema([fit.schema.field(n) for n in fit.added]))
        written: list[str] = []
        try:
            _write(transaction, io, fit.schema, kept, written)
            if self._mode == "overwrite" and table is not None:
                with warnings.catch_warnings():  # of a branch that has no rows
                    warnings.simplefilter("ignore", UserWarning)
                    transaction.delete(AlwaysTrue(), properties, branch=self._branch)
            transaction.add_files(
                written, properties, check_duplicate_files=False, branch=self._branch
            )
        except BaseException:  # whatever ends the run
            _remove(io, written)
            raise
        try:
            done = transaction.commit_transaction()
        except (CommitFailedException, ValidationException, TableAlreadyExistsError):
            # Of any other error it is not known whether the table has the files now.
            _remove(io, written)
            raise
        return self._committed(self._head_of(done), kept.rows)

    def _load(self, catalog: "Catalog") -> "Table | None":
        from pyiceberg.exceptions import NoSuchTableError

        try:
            return catalog.load_table(self._table.identifier)
        except NoSuchTableError:
            return None

    def _fitted(self, table: "Table | None") -> Fitted:
        theirs = pa.schema([]) if table is None else table.schema().as_arrow()
        return fitted("iceberg", self.name, self._columns, theirs)

    def _head_of(self, table: "Table") -> "Snapshot | None":
        """The newest snapshot of the branch; of a branch that is to be made, the main branch's."""
        return table.snapshot_by_name(self._branch) or table.snapshot_by_name(_MAIN)

    def _find(self, table: "Table", request_id: str) -> Committed | None:
        from pyiceberg.table.snapshots import ancestors_of

        if self._branch not in table.metadata.refs:
            return None
        for snapshot in ancestors_of(table.snapshot_by_name(self._branch), table.metadata):
            properties = snapshot.summary.additional_properties if snapshot.summary else {}
            answer = is_answer(properties, request_id, self._mode)
            if answer is not None:
                rows = int(properties.get(ROWS, 0))
                return self._committed(snapshot, rows, is_new=False) if answer else None
        return None

    def _make_branch(self, table: "Table", transaction: "Transaction") -> None:
        """Makes a branch that is missing out of the main one, in the same transaction."""
        from pyiceberg.table.update.snapshot import ManageSnapshots

        main = table.snapshot_by_name(_MAIN)
        if self._branch not in table.metadata.refs and main is not None:
            with ManageSnapshots(transaction) as update:
                update.create_branch(main.snapshot_id, self._branch)

    def _refuse_branch_of_no_table(self) -> None:
        if self._branch != _MAIN:
            raise UsageError(
                f"--commit-to {self.name}: there is no such table, and so no branch of it; leave "
                f"@{self._branch} out, and the table is made"
            )

    def _refuse_overtaken(self, table: "Table | None") -> None:
        head = None if table is None else self._head_of(table)
        if self._mode == "overwrite" and head is not None and head.snapshot_id != self._head:
            what = head.summary.operation.value if head.summary else "snapshot"
            raise overtaken(self.name, f"snapshot {head.snapshot_id} ({what})")

    def _committed(self, snapshot: "Snapshot | None", rows: int, is_new: bool = True) -> Committed:
        return Committed(self.name, f"snapshot {_id(snapshot)}", rows, is_new)

    def _said(self, fit: Fitted, is_new: bool) -> None:
        """Says what the table will look like, before that is paid for."""
        if not is_new and fit.added:
            say(f"note: {self.name} gets new columns: {', '.join(fit.added)}")
        if fit.untyped:
            say(f"note: {', '.join(fit.untyped)}: null in every row, so text in {self.name}")


def _id(snapshot: "Snapshot | None") -> int | None:
    return None if snapshot is None else snapshot.snapshot_id


def _write(
    transaction: "Transaction", io: "FileIO", columns: pa.Schema, kept: KeptRows, written: list[str]
) -> None:
    """Writes the rows into the table's folder; notes each file before it is begun."""
    from pyiceberg.io.pyarrow import schema_to_pyarrow
    from pyiceberg.table.locations import load_location_provider

    metadata = transaction.table_metadata
    stored = schema_to_pyarrow(metadata.schema())  # with the ids that stand for the names
    schema = pa.schema([stored.field(name) for name in columns.names])
    places = load_location_provider(metadata.location, metadata.properties)
    unique = uuid4().hex[:12]
    groups = _row_groups(kept.batches(schema), schema)
    group = next(groups, None)
    while group is not None:
        name = f"sf-ray-{kept.request_id}-{unique}-{len(written):05d}.parquet"
        written.append(places.new_data_location(name))
        with (
            io.new_output(written[-1]).create() as stream,
            pq.ParquetWriter(stream, schema, compression="zstd") as writer,
        ):
            while group is not None:
                writer.write_table(group)
                group = next(groups, None)
                if stream.tell() >= _FILE_BYTES:
                    break


def _row_groups(batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    """Batches -> tables that are large enough to be a row group each."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(each.nbytes for each in held) >= _ROW_GROUP_BYTES:
            yield pa.Table.from_batches(held, schema)
            held = []
    if held:
        yield pa.Table.from_batches(held, schema)


def _remove(io: "FileIO", files: Sequence[str]) -> None:
    for file in files:
        # What ended the commit is the error; a file that stays is in nobody's way.
        with suppress(Exception):
            io.delete(file)


def _try_to_write(table: "Table") -> None:
    """Tries the right to write files of the table, which may not be that to read it."""
    place = table.location_provider().new_data_location(f"sf-ray-probe-{uuid4().hex[:12]}")
    try:
        with table.io.new_output(place).create() as stream:
            stream.write(b"may this run write here?")
    finally:
        _remove(table.io, [place])


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turns what PyIceberg and the client of the catalogue raise into an error that says where."""
    try:
        yield
    except (SfRayError, MemoryError):
        raise
    except Exception as error:
        raise SfRayError(
            f"{name}: the catalogue or its storage does not do what was asked "
            f"({type(error).__name__}: {first_line(error)}); look at the catalogue and at "
            "PyIceberg's configuration. The same command finds what is committed, and goes on"
        ) from error
