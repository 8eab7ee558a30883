"""Reads Parquet: the footer at the end of a file, and its rows, by their meaning or to copy them.

A batch is bounded by bytes, because the rows of one corpus may be a thousand times as large as
those of another. Knows no Ray and no model.
"""

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from sf_ray.corpus.readers.parquet_footer import StoredColumns, is_encrypted, without_meaning
from sf_ray.corpus.readers.thrift_compact import CompactError
from sf_ray.corpus.units import Footer
from sf_ray.errors import BadShardError, first_line
from sf_ray.storage.files import File
from sf_ray.storage.location import Location
from sf_ray.storage.versioned_file import read_range, unreadable_is_bad

# Most Parquet footers are smaller than this, so that one request is enough.
_FOOTER_BYTES = 64 * 1024
# About the most that a batch takes.
_BATCH_BYTES = 32 << 20
# Row groups are read together up to this size, as they are in memory before compression. A larger
# one is not fetched as a whole but in pieces of `_PIECE_BYTES` for each column.
_TOGETHER_BYTES = 128 << 20
_PIECE_BYTES = 4 << 20
# A value that is repeated is stored once, in a page of its own, and a few bytes stand for it in
# each row; so rows may be far larger in memory than the footer says. Where that page is not small,
# a batch has no more rows than these.
_REPEATED_ROWS, _REPEATED_PAGE_BYTES, _NUMBER_BYTES = 4096, 16 << 10, 16
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
    rows = tuple(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
    try:
        # Opened as for reading, so that the types are those of the rows that will be read.
        with pq.ParquetFile(
            pa.BufferReader(_as_file(footer)), metadata=metadata, **_MEANING
        ) as parquet:
            return Footer(rows, parquet.schema_arrow)
    except (pa.ArrowException, OSError) as error:
        raise BadShardError(
            file.relative, f"its schema cannot be read ({first_line(error)})"
        ) from error


class ParquetReader:
    """The rows of a Parquet file; a `ShardReader`."""

    def __init__(self, file: File, handle: io.RawIOBase) -> None:
        self._file, self._handle = file, handle
        with unreadable_is_bad(file), pq.ParquetFile(handle, **_MEANING) as parquet:
            self.schema: pa.Schema = parquet.schema_arrow
            self._metadata = parquet.metadata

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
            for batch in _batches(self._handle, self._metadata, _MEANING, rows, names, groups):
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

    def __init__(self, file: File, handle: io.RawIOBase) -> None:
        self._file, self._handle = file, handle
        with unreadable_is_bad(file):
            footer = _footer_bytes(file, lambda start, end: _read_at(handle, start, end))
        with _unreadable_footer_is_bad(file):
            plain, stored = without_meaning(footer)
        self.stored: StoredColumns = stored
        self._metadata = _metadata(file, plain)
        self._types = _storage(_categories(_metadata(file, footer), self._metadata))
        with unreadable_is_bad(file):
            source = pa.BufferReader(_as_file(plain))
            with pq.ParquetFile(source, metadata=self._metadata, **self._types) as parquet:
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
            yield from _batches(self._handle, self._metadata, self._types, rows, None, groups)


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


def _batches(
    handle: io.RawIOBase,
    metadata: pq.FileMetaData,
    types: dict[str, object],
    rows: int,
    columns: list[str] | None,
    groups: range | None,
) -> Iterator[pa.RecordBatch]:
    """Reads row groups one after the other, and small ones together."""
    leaves = _leaves_below(metadata, columns)
    together: list[int] = []
    together_bytes, together_rows = 0, rows
    for group in range(metadata.num_row_groups) if groups is None else groups:
        group_bytes, group_rows = _size(metadata.row_group(group), leaves, rows)
        if together and together_bytes + group_bytes > _TOGETHER_BYTES:
            yield from _read(
                handle, metadata, types, together_rows, columns, together, together_bytes
            )
            together, together_bytes, together_rows = [], 0, rows
        together.append(group)
        together_bytes += group_bytes
        together_rows = min(together_rows, group_rows)
    if together:
        yield from _read(handle, metadata, types, together_rows, columns, together, together_bytes)


def _read(
    handle: io.RawIOBase,
    metadata: pq.FileMetaData,
    types: dict[str, object],
    rows: int,
    columns: list[str] | None,
    groups: list[int],
    unpacked_bytes: int,
) -> Iterator[pa.RecordBatch]:
    is_large = unpacked_bytes > _TOGETHER_BYTES
    parquet = pq.ParquetFile(
        handle,
        metadata=metadata,
        pre_buffer=not is_large,
        buffer_size=_PIECE_BYTES if is_large else 0,
        page_checksum_verification=True,
        **types,
    )
    yield from parquet.iter_batches(
        rows,
        row_groups=groups,
        columns=columns,
        use_threads=False,  # many tasks read at the same time
    )


def _leaves_below(metadata: pq.FileMetaData, columns: list[str] | None) -> list[int]:
    """The numbers of the leaves that are read for some top-level columns."""
    schema = metadata.schema
    if columns is None:
        return list(range(metadata.num_columns))
    starts = tuple(f"{name}." for name in columns)
    paths = [schema.column(leaf).path for leaf in range(metadata.num_columns)]
    return [leaf for leaf, path in enumerate(paths) if f"{path}.".startswith(starts)]


def _size(group: pq.RowGroupMetaData, leaves: Iterable[int], most_rows: int) -> tuple[int, int]:
    """(bytes of the columns of a row group before compression, rows of a batch)."""
    unpacked = 0
    for leaf in leaves:
        column = group.column(leaf)
        unpacked += column.total_uncompressed_size
        if column.has_dictionary_page and column.physical_type == "BYTE_ARRAY":
            page = column.data_page_offset - (column.dictionary_page_offset or 0)
            rest = column.total_compressed_size - page
            if page > _REPEATED_PAGE_BYTES and rest < _NUMBER_BYTES * column.num_values:
                most_rows = min(most_rows, _REPEATED_ROWS)
    fitting = _BATCH_BYTES * group.num_rows // max(unpacked, 1)
    return unpacked, max(1, min(most_rows, fitting))


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
        if tail[-4:] == b"PAR1" and length > len(tail) and length + 4 <= file.size:
            tail = read(file.size - length, file.size)
    if tail[-4:] == b"PARE":
        raise _encrypted(file)
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


@contextmanager
def _unreadable_footer_is_bad(file: File) -> Iterator[None]:
    try:
        yield
    except (CompactError, pa.ArrowException, OSError) as error:
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
