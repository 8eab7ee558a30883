"""Reads Parquet: the footer at the end of a file, and its rows, by their meaning or to copy them.

A batch is bounded by bytes, because the rows of one corpus may be a thousand times as large as
those of another. Knows no Ray and no model.
"""

import functools
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from sf_ray.corpus.readers.arrow_checks import check_schema
from sf_ray.corpus.readers.parquet_footer import (
    Chunk,
    StoredColumns,
    is_encrypted,
    located_chunks,
    without_meaning,
)
from sf_ray.corpus.readers.parquet_rows import ParquetRows
from sf_ray.corpus.readers.row_limits import MAX_ROW_BYTES, rows_problem
from sf_ray.corpus.readers.thrift_compact import CompactError
from sf_ray.corpus.units import Footer
from sf_ray.errors import BadShardError, first_line
from sf_ray.storage.listing import File
from sf_ray.storage.location import Location
from sf_ray.storage.versioned_file import read_range, unreadable_is_bad

# Most Parquet footers are smaller than this, so that one request is enough.
_FOOTER_BYTES = 64 * 1024
# Footers up to this size are kept as Python values once they are parsed: 100 MB of these, at most.
_FOOTER_BYTES_AGAIN = 1 << 20
# Larger than any real footer; a larger one would take gigabytes as Python values.
_MOST_FOOTER_BYTES = 256 << 20
# How values become Arrow values by their meaning. INT96 reaches year 9999 in microseconds, and only
# 2262 in nanoseconds.
_MEANING = {"coerce_int96_timestamp_unit": "us", "arrow_extensions_enabled": True}


def read_parquet_footer(location: Location, file: File) -> Footer:
    """Reads a Parquet footer with one ranged read, or with two where the footer is large.

    Raises:
        BadShardError: The file is not Parquet, is incomplete, encrypted, or gone.
        SfRayError: Storage failed.
    """
    footer = _footer_bytes(file, lambda start, end: read_range(location, file, start, end))
    metadata = _metadata(file, footer)
    if metadata.serialized_size < len(footer):  # a signature follows where columns are encrypted
        with _unreadable_footer_is_bad(file):
            if is_encrypted(footer):
                raise _encrypted(file)
    rows = _rows_of(metadata)
    if problem := rows_problem(rows, file.size):
        raise BadShardError(file.relative, problem)
    try:
        # Opened as for reading, so that the types are those of the rows that will be read.
        with pq.ParquetFile(
            pa.BufferReader(_as_file(footer)), metadata=metadata, **_MEANING
        ) as parquet:
            check_schema(parquet.schema_arrow)
            return Footer(rows, parquet.schema_arrow)
    except (pa.ArrowException, OSError) as error:
        raise BadShardError(
            file.relative, f"its schema cannot be read ({first_line(error)})"
        ) from error


class ParquetReader:
    """The rows of a Parquet file; a `ShardReader`.

    Attributes:
        schema: Columns and types.
        row_groups: Rows of each row group.
    """

    def __init__(
        self, file: File, handle: io.RawIOBase, max_row_bytes: int = MAX_ROW_BYTES
    ) -> None:
        self._file = file
        with unreadable_is_bad(file):
            footer = _footer_bytes(file, lambda start, end: _read_at(handle, start, end))
        metadata = _metadata(file, footer)
        chunks = _located(file, footer, metadata)
        self.row_groups = _rows_of(metadata)
        self._rows = ParquetRows(file, handle, metadata, chunks, _MEANING, max_row_bytes)
        with (
            unreadable_is_bad(file),
            pq.ParquetFile(handle, metadata=metadata, **_MEANING) as parquet,
        ):
            self.schema: pa.Schema = parquet.schema_arrow
            check_schema(self.schema)

    def batches(
        self,
        rows: int,
        columns: Sequence[str] | None = None,
        groups: range | None = None,
        offset: int = 0,
    ) -> Iterator[pa.RecordBatch]:
        """See `ShardReader.batches`. Ignores `offset`: the footer says where row groups begin."""
        names = None if columns is None else list(dict.fromkeys(columns))
        with unreadable_is_bad(self._file):
            for batch in self._rows.batches(rows, names, groups):
                if names is not None:
                    # Asked for a column "a", Parquet also reads a column "a.b". A name may be
                    # there twice, so columns are chosen by their places.
                    places = [
                        place
                        for name in names
                        for place, found in enumerate(batch.schema.names)
                        if found == name
                    ]
                    batch = batch.select(places)
                yield batch


class StoredParquetReader:
    """The rows of a Parquet file as they are stored, to be copied; a `ShardReader`.

    Attributes:
        schema: A column for each top-level column, named by numbers, with types that can hold any
            stored value: binary for text, integers for times.
        stored: What the values mean.
    """

    def __init__(
        self, file: File, handle: io.RawIOBase, max_row_bytes: int = MAX_ROW_BYTES
    ) -> None:
        self._file = file
        with unreadable_is_bad(file):
            footer = _footer_bytes(file, lambda start, end: _read_at(handle, start, end))
        with _unreadable_footer_is_bad(file):
            plain, stored = without_meaning(footer)
            _ = stored.leaves  # which the writer needs
        self.stored: StoredColumns = stored
        metadata = _metadata(file, plain)
        chunks = _located(file, footer, metadata)
        types = _storage(_categories(_metadata(file, footer), metadata))
        self._rows = ParquetRows(file, handle, metadata, chunks, types, max_row_bytes)
        with unreadable_is_bad(file):
            source = pa.BufferReader(_as_file(plain))
            with pq.ParquetFile(source, metadata=metadata, **types) as parquet:
                self.schema: pa.Schema = parquet.schema_arrow

    def batches(
        self,
        rows: int,
        columns: Sequence[str] | None = None,
        groups: range | None = None,
        offset: int = 0,
    ) -> Iterator[pa.RecordBatch]:
        """See `ShardReader.batches`; reads all columns, because rows are copied whole."""
        assert columns is None, "rows are copied whole"
        with unreadable_is_bad(self._file):
            yield from self._rows.batches(rows, None, groups)


def _storage(categories: Sequence[str]) -> dict[str, object]:
    """How stored values become Arrow values: no offset of theirs has only 32 bits.

    Args:
        categories: Columns to read as dictionaries, which Arrow does with offsets of 32 bits only;
            a batch is far smaller than these reach.
    """
    binary_type = None if categories else pa.large_binary()
    return {
        "binary_type": binary_type,
        "list_type": pa.LargeListType,
        "read_dictionary": list(categories),
    }


def _categories(meaning: pq.FileMetaData, plain: pq.FileMetaData) -> list[str]:
    """The columns, by their names in `plain`, that Arrow reads as categories.

    Their dictionary is copied too: it has the categories that no row has, and their order.
    """
    try:
        types = meaning.schema.to_arrow_schema().types
    except pa.ArrowException:
        return []  # it has no Arrow types, so no categories of Arrow's
    names = plain.schema.to_arrow_schema().names
    return [
        name
        for name, column_type in zip(names, types, strict=True)
        if pa.types.is_dictionary(column_type)
    ]


def _footer_bytes(file: File, read: Callable[[int, int], bytes]) -> bytes:
    """The footer of a file.

    Args:
        file: The shard.
        read: Reads bytes [start, end) of it.

    Raises:
        BadShardError: The file is not Parquet, is incomplete, or encrypted.
    """
    tail, length = b"", 0
    if file.size > 12:  # two magic numbers and a length; servers refuse an empty range
        tail = read(max(file.size - _FOOTER_BYTES, 0), file.size)
        length = int.from_bytes(tail[-8:-4], "little") + 8
        if tail[-4:] == b"PAR1" and len(tail) < length <= min(file.size - 4, _MOST_FOOTER_BYTES):
            tail = read(file.size - length, file.size)
    if tail[-4:] == b"PARE":
        raise _encrypted(file)
    if tail[-4:] == b"PAR1" and _MOST_FOOTER_BYTES < length <= file.size - 4:
        raise BadShardError(file.relative, f"its Parquet footer has {length:,} bytes")
    if tail[-4:] != b"PAR1" or length > len(tail):
        raise BadShardError(
            file.relative, f"not a whole Parquet file ({file.size} bytes without a valid footer)"
        )
    return tail[-length:-8]


def _as_file(footer: bytes) -> bytes:
    """A file with a footer and nothing else, which is all that the metadata is read from."""
    return b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1"


def _metadata(file: File, footer: bytes) -> pq.FileMetaData:
    with _unreadable_footer_is_bad(file):
        return pq.read_metadata(pa.BufferReader(_as_file(footer)))


def _rows_of(metadata: pq.FileMetaData) -> tuple[int, ...]:
    """Rows of each row group."""
    return tuple(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))


# A task opens a shard once for each row group that it reads, and to find the chunks of all of them
# takes half as long as to read one.
_located_again = functools.lru_cache(maxsize=4)(located_chunks)


def _located(file: File, footer: bytes, metadata: pq.FileMetaData) -> Sequence[Sequence[Chunk]]:
    located = _located_again if len(footer) <= _FOOTER_BYTES_AGAIN else located_chunks
    with _unreadable_footer_is_bad(file):
        return located(footer, metadata.num_columns)


@contextmanager
def _unreadable_footer_is_bad(file: File) -> Iterator[None]:
    try:
        yield
    except (CompactError, pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise BadShardError(
            file.relative, f"its Parquet footer cannot be read ({first_line(error)})"
        ) from error


def _encrypted(file: File) -> BadShardError:
    return BadShardError(file.relative, "encrypted Parquet, which cannot be read without its keys")


def _read_at(handle: io.RawIOBase, start: int, end: int) -> bytes:
    handle.seek(start)
    data = b""
    while part := handle.read(end - start - len(data)):
        data += part
    return data
