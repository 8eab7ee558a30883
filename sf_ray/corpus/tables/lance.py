"""A version of a Lance dataset: its fragments are the shards, read by Lance's own reader.

Lance knows which rows of a fragment were deleted: they are not read, and the rows that are left are
numbered from 0. No Ray.
"""

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from sf_ray.corpus.readers.row_limits import split
from sf_ray.corpus.tables.snapshot import TableSnapshot, table_errors, version_from
from sf_ray.corpus.units import Footer
from sf_ray.errors import BadShardError, SfRayError, first_line
from sf_ray.runtime.libraries import require
from sf_ray.storage.listing import File
from sf_ray.storage.location import Location
from sf_ray.storage.object_store import object_store_options, object_store_uri
from sf_ray.storage.table_names import TableName

if TYPE_CHECKING:
    from lance import LanceDataset, LanceFragment

# Rows that are read together: a fragment has no row groups.
_GROUP_ROWS = 8192
# Rows are cut into batches of about so many bytes, as those of Parquet are.
_BATCH_BYTES = 16 << 20


@dataclass(frozen=True)
class Fragment(File):
    """A fragment of a Lance dataset.

    Attributes:
        dataset_version: The version that it is read from.
        number: Its id in the dataset.
    """

    dataset_version: int
    number: int


def read_snapshot(name: TableName, options: Mapping[str, Any], retry_s: float) -> TableSnapshot:
    """Reads which fragments a version has.

    Args:
        name: The dataset.
        options: fsspec options of its files.
        retry_s: See `Location`.

    Raises:
        SfRayError: The dataset or the version is not there, or storage does not answer.
    """
    root = Location(name.uri, options, retry_s)
    version = None if name.ref is None else int(name.ref)
    missing = (
        "it cannot be opened; look at the path, and whether this version was cleaned up"
        if name.ref
        else "it cannot be opened; look at the path and the options of the storage"
    )
    with table_errors(name, missing):
        dataset = _dataset(root, version)
        fields = {field.id(): field.name() for field in dataset.lance_schema.fields()}
        files = [
            _described(root, dataset.version, fragment, fields)
            for fragment in dataset.get_fragments()
        ]
        schema = dataset.schema
    files.sort(key=lambda file: file.relative)
    return TableSnapshot(name, str(dataset.version), root, schema, tuple(files))


def read_fragment(location: Location, file: Fragment) -> Footer:
    """What a plan must know of a fragment.

    Raises:
        BadShardError: It cannot be read.
    """
    with _unreadable_is_bad(file):
        dataset = _dataset(location, file.dataset_version)
        rows = _fragment(dataset, file).count_rows()
        return Footer(_groups(rows), dataset.schema)


class LanceReader:
    """The rows of a fragment; a `ShardReader`."""

    def __init__(self, location: Location, file: Fragment) -> None:
        self._location, self._file = location, file
        with _unreadable_is_bad(file):
            self._dataset = _dataset(location, file.dataset_version)
            self._fragment = _fragment(self._dataset, file)
        self.schema: pa.Schema = self._dataset.schema

    def batches(
        self,
        rows: int,
        columns: Sequence[str] | None = None,
        groups: range | None = None,
        offset: int = 0,
    ) -> Iterator[pa.RecordBatch]:
        """See `ShardReader.batches`. Ignores `offset`: Lance finds rows by their number."""
        names = None if columns is None else list(dict.fromkeys(columns))
        with _unreadable_is_bad(self._file):
            sizes = _groups(self._fragment.count_rows())
            start = sum(sizes[: groups.start]) if groups else 0
            limit = sum(sizes[groups.start : groups.stop]) if groups else sum(sizes)
            row = start
            # Rows without columns are counted by one that nobody asked for.
            to_read = self.schema.names[:1] if names == [] else names
            found = self._fragment.to_batches(
                columns=to_read, batch_size=rows, offset=start, limit=limit
            )
            for batch in found:
                wanted = batch if names is None else batch.select(names)
                yield from split(wanted, row, self._location.max_row_bytes, rows, _BATCH_BYTES)
                row += batch.num_rows


def _groups(rows: int) -> tuple[int, ...]:
    """Rows of each part of a fragment that is read alone."""
    whole, rest = divmod(rows, _GROUP_ROWS)
    return (_GROUP_ROWS,) * whole + ((rest,) if rest else ())


def _described(
    root: Location, version: int, fragment: "LanceFragment", fields: Mapping[int, str]
) -> Fragment:
    """A fragment as a file of a listing.

    Its fingerprint are its files, their deletions and the names of its columns, so that a fragment
    that later versions share is scored once.
    """
    described = fragment.metadata.to_json()
    data = described["files"]
    names = sorted((field, fields.get(field, "")) for file in data for field in file["fields"])
    facts = [file["path"] for file in data], described["deletion_file"], names
    return Fragment(
        path=root.join(f"data/{data[0]['path']}").path,
        relative=f"fragment-{fragment.fragment_id:08d}.parquet",
        size=sum(file["file_size_bytes"] or 0 for file in data),
        version=version_from(*facts),
        dataset_version=version,
        number=fragment.fragment_id,
    )


def _fragment(dataset: "LanceDataset", file: Fragment) -> "LanceFragment":
    fragment = dataset.get_fragment(file.number)
    if fragment is None:
        raise BadShardError(file.relative, "its version of the dataset has no such fragment")
    return fragment


def _dataset(location: Location, version: int | None) -> "LanceDataset":
    uri = object_store_uri(location.uri)
    options = object_store_options(uri, location.storage_options)
    # A version never changes, and a task opens its fragments again and again. The newest is asked
    # for each time.
    opened = _opened if version is None else _opened_again
    return opened(uri, version, json.dumps(options))


def _opened(uri: str, version: int | None, options: str) -> "LanceDataset":
    require("lance", "lance")
    import lance

    return lance.dataset(uri, version=version, storage_options=json.loads(options) or None)


_opened_again = functools.lru_cache(maxsize=4)(_opened)


@contextmanager
def _unreadable_is_bad(file: Fragment) -> Iterator[None]:
    """Turns errors of Lance about a fragment into a `BadShardError`."""
    try:
        yield
    except (SfRayError, MemoryError):
        raise
    except (pa.ArrowException, OSError, ValueError, RuntimeError) as error:
        raise BadShardError(file.relative, f"cannot be read ({first_line(error)})") from error
