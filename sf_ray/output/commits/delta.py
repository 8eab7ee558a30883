"""Kept rows -> a version of a Delta table, by delta-rs, which streams them into the table's folder.

The request is an application transaction of the format's own: the table remembers it, and refuses
the second of two commits of one request, whoever was first.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from sf_ray.errors import SfRayError, UsageError
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
from sf_ray.storage.lease.files import try_rights
from sf_ray.storage.location import Location
from sf_ray.storage.object_store import object_store_options, object_store_uri
from sf_ray.storage.table_names import TableName
from sf_ray.text.printable import printable
from sf_ray.text.redaction import redact

if TYPE_CHECKING:
    from deltalake import DeltaTable

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_SHOWN = 400
# Of a file, and of a row group in it, as they are stored.
_FILE_BYTES, _ROW_GROUP_BYTES = 128 << 20, 32 << 20


class DeltaTarget:
    """A Delta table; a `commit.Target`."""

    is_table = True

    def __init__(
        self, table: TableName, mode: Mode, storage_options: Mapping[str, Any], retry_s: float
    ) -> None:
        require("delta", "deltalake")
        table = table.absolute()
        self.name = table.public_name
        if table.ref is not None:
            raise UsageError(
                f"--commit-to {self.name}: a commit makes the next version of the table; leave "
                f"@{table.ref} out"
            )
        self._uri = object_store_uri(table.uri)
        self._options = object_store_options(table.uri, storage_options)
        self._folder = Location(table.uri, storage_options, retry_s)
        self._mode = mode
        self._columns = pa.schema([])
        self._version: int | None = None

    def check(self, columns: pa.Schema | None) -> None:
        """See `Target.check`."""
        assert columns is not None
        self._columns = columns
        # First, because it says more of a store that does not answer, and sooner.
        try_rights(self._folder)
        with _explained(self.name):
            table = self._load()
            self._version = _version(table)
            self._refuse_overwrite_of_append_only(table)
            fit = self._fitted(table)
        if table is not None and fit.added:
            say(f"note: {self.name} gets new columns: {', '.join(fit.added)}")
        if fit.untyped:
            say(f"note: {', '.join(fit.untyped)}: null in every row, so text in {self.name}")

    def find(self, request_id: str) -> Committed | None:
        """See `Target.find`."""
        with _explained(self.name):
            table = self._load()
            return None if table is None else self._find(table, request_id)

    def commit(self, kept: KeptRows) -> Committed:
        """See `Target.commit`."""
        from deltalake.exceptions import CommitFailedError

        with _explained(self.name):
            for _ in range(ATTEMPTS):
                table = self._load()
                if table is not None and (found := self._find(table, kept.request_id)):
                    return found
                self._refuse_overtaken(table)
                try:
                    return self._commit(table, kept)
                except CommitFailedError:
                    if _version(self._load()) == _version(table):
                        raise  # nobody was faster: it is something else
        raise worn_out(self.name)

    def _commit(self, table: "DeltaTable | None", kept: KeptRows) -> Committed:
        """One attempt, which is one transaction."""
        from deltalake import CommitProperties, Transaction, WriterProperties, write_deltalake

        fit = self._fitted(table)
        schema = fit.schema if table is None else _as_there(table, fit)
        errors: list[Exception] = []
        rows = pa.RecordBatchReader.from_batches(schema, _noting(kept.batches(schema), errors))
        count = 1 + (_transaction(table, kept.request_id) or 0)
        # An overwrite removes what it has read, and is to fail where there is more by now.
        is_exact = self._mode == "overwrite"
        try:
            write_deltalake(
                self._uri if table is None else table,
                rows,
                mode="error" if table is None and is_exact else self._mode,
                schema_mode="merge" if table is not None and fit.added else None,
                storage_options=self._options,
                target_file_size=_FILE_BYTES,
                writer_properties=WriterProperties(
                    compression="ZSTD", max_row_group_size=_rows_of_a_row_group(kept)
                ),
                commit_properties=CommitProperties(
                    custom_metadata=kept.properties(self._mode),
                    app_transactions=[Transaction(_app(kept.request_id), count)],
                    max_commit_retries=0 if is_exact else None,
                ),
            )
        except Exception:
            if errors:  # the library would say no more than that reading has failed
                raise errors[0] from None
            raise
        done = self._load()
        return Committed(self.name, f"version {_version(done)}", kept.rows)

    def _load(self) -> "DeltaTable | None":
        from deltalake import DeltaTable
        from deltalake.exceptions import TableNotFoundError

        try:
            return DeltaTable(self._uri, storage_options=self._options)
        except TableNotFoundError:
            return None

    def _fitted(self, table: "DeltaTable | None") -> Fitted:
        theirs = pa.schema([]) if table is None else _columns_of(table)
        return fitted("delta", self.name, self._columns, theirs)

    def _find(self, table: "DeltaTable", request_id: str) -> Committed | None:
        if _transaction(table, request_id) is None:
            return None
        for info in table.history():
            answer = is_answer(info, request_id, self._mode)
            if answer is not None:
                rows = int(info.get(ROWS, 0))
                version = f"version {info['version']}"
                return Committed(self.name, version, rows, is_new=False) if answer else None
        # The table remembers the request for longer than the log of its commits is kept.
        return Committed(self.name, f"a version before {table.version()}", 0, is_new=False)

    def _refuse_overwrite_of_append_only(self, table: "DeltaTable | None") -> None:
        configuration = {} if table is None else table.metadata().configuration
        if self._mode == "overwrite" and configuration.get("delta.appendOnly") == "true":
            raise UsageError(
                f"--commit-to {self.name}: rows of this table may only be added "
                "(delta.appendOnly); take --commit-mode append"
            )

    def _refuse_overtaken(self, table: "DeltaTable | None") -> None:
        version = _version(table)
        if self._mode == "overwrite" and version is not None and version != self._version:
            raise overtaken(self.name, f"version {version}")


def _noting(batches: Iterator[pa.RecordBatch], errors: list[Exception]) -> Iterator[pa.RecordBatch]:
    """The same batches; notes the exception that ends them."""
    try:
        yield from batches
    except Exception as error:
        errors.append(error)
        raise


def _version(table: "DeltaTable | None") -> int | None:
    return None if table is None else table.version()


def _rows_of_a_row_group(kept: KeptRows) -> int:
    """How many rows a row group has, at most: the library holds one in memory, of any size."""
    stored = sum(shard.bytes for shard in kept.manifest.output.shards)
    return max(1, min(1 << 20, _ROW_GROUP_BYTES * kept.rows // max(1, stored)))


def _app(request_id: str) -> str:
    return f"sf-ray:{request_id}"


def _transaction(table: "DeltaTable | None", request_id: str) -> int | None:
    """How often a request has been committed; None for never."""
    return None if table is None else table.transaction_version(_app(request_id))


def _columns_of(table: "DeltaTable") -> pa.Schema:
    return pa.schema(table.schema().to_arrow())


def _as_there(table: "DeltaTable", fit: Fitted) -> pa.Schema:
    """The columns of the table, which has null in those that the rows lack, then the added ones."""
    ours = {field.name: field for field in fit.schema}
    there = [ours.get(field.name, field) for field in _columns_of(table)]
    return pa.schema([*there, *(ours[name] for name in fit.added)])


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Turns what delta-rs raises into an error that says where, in one line."""
    try:
        yield
    except (SfRayError, MemoryError):
        raise
    except Exception as error:
        # The cause stands last, in a tree of lines with colours.
        text = " ".join(_COLOUR.sub("", redact(str(error))).replace("↳", "").split())
        shown = text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]} ... {text[-_SHOWN // 2 :]}"
        raise SfRayError(
            f"{name}: Delta's library does not do what was asked ({printable(shown, most=1000)}); "
            "look at the table, the store and the credentials. The same command finds what is "
            "committed, and goes on"
        ) from error
