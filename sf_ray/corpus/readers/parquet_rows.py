"""The rows of Parquet row groups, in batches that are small and safe to look at.

A small file may unpack to any size: each value of a dictionary is stored once, however many rows
refer to it. Knows the footer's chunks, and not what columns mean.
"""

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from sf_ray.corpus.readers.arrow import has_dictionary
from sf_ray.corpus.readers.arrow_checks import check_batch
from sf_ray.corpus.readers.parquet_footer import BYTE_ARRAY, FIXED, Chunk
from sf_ray.corpus.readers.parquet_pages import PageGuard
from sf_ray.corpus.readers.parquet_weights import (
    REPEATED_BYTES,
    VALUE_BYTES,
    LargeRowsError,
    WatchedChunk,
)
from sf_ray.corpus.readers.row_limits import split
from sf_ray.storage.listing import File

# About the most that a batch takes.
_BATCH_BYTES = 32 << 20
# Row groups are read together up to this size, as they are in memory before compression. A larger
# one is not fetched as a whole but in pieces of `_PIECE_BYTES` for each column.
_TOGETHER_BYTES = 128 << 20
_PIECE_BYTES = 4 << 20
# What is stored once may be repeated in every row: a value of a dictionary, in a page that few
# writers make larger than this.
_REPEATED_PAGE_BYTES = 1 << 20


@dataclass(frozen=True)
class ParquetRows:
    """What is read from, and how.

    Attributes:
        file, handle: The shard.
        metadata: Its footer.
        chunks: Those of each row group.
        types: How values become Arrow values.
        max_row_bytes: The largest row.
    """

    file: File
    handle: io.RawIOBase
    metadata: pq.FileMetaData
    chunks: Sequence[Sequence[Chunk]]
    types: dict[str, object]
    max_row_bytes: int

    def batches(
        self, rows: int, columns: list[str] | None, groups: range | None
    ) -> Iterator[pa.RecordBatch]:
        """Reads row groups one after the other, and small ones together."""
        leaves = _leaves_below(self.metadata, columns)
        row = 0
        together: list[int] = []
        together_bytes, together_rows = 0, rows
        for group in range(self.metadata.num_row_groups) if groups is None else groups:
            group_bytes, group_rows = self._size(group, leaves, rows)
            if together and together_bytes + group_bytes > _TOGETHER_BYTES:
                yield from self._some(row, together_rows, columns, together, together_bytes)
                row += sum(self.metadata.row_group(read).num_rows for read in together)
                together, together_bytes, together_rows = [], 0, rows
            together.append(group)
            together_bytes += group_bytes
            together_rows = min(together_rows, group_rows)
        if together:
            yield from self._some(row, together_rows, columns, together, together_bytes)

    def _some(
        self,
        first_row: int,
        rows: int,
        columns: list[str] | None,
        groups: list[int],
        unpacked_bytes: int,
    ) -> Iterator[pa.RecordBatch]:
        """The rows of some row groups, in batches that are safe to look at."""
        done = 0
        while True:
            guard = self._guard(columns, groups, rows)
            try:
                read = 0
                for batch in self._arrow_batches(guard, rows, columns, groups, unpacked_bytes):
                    new = batch.slice(max(0, done - read))
                    read += batch.num_rows
                    if new.num_rows:
                        _check_dictionaries(new)
                        yield from split(
                            new, first_row + done, self.max_row_bytes, rows, _BATCH_BYTES
                        )
                        done += new.num_rows
                return
            except (pa.ArrowException, OSError, LargeRowsError) as error:
                # Arrow's reader keeps the guard's error, whose frames keep the reader: without
                # this, all that it holds would stay in memory.
                for kept in (error, guard.problem):
                    if kept:
                        kept.__traceback__ = None
                if not isinstance(guard.problem, LargeRowsError):
                    raise
                rows = guard.problem.rows

    def _guard(self, columns: list[str] | None, groups: list[int], rows: int) -> PageGuard:
        leaves = _leaves_below(self.metadata, columns)
        chunks = [self._watched(group, leaf) for group in groups for leaf in leaves]
        return PageGuard(self.handle, self.file.size, chunks, rows, self.max_row_bytes)

    def _watched(self, group: int, leaf: int) -> WatchedChunk:
        chunk, described = self.chunks[group][leaf], self.metadata.schema.column(leaf)
        is_fixed = described.physical_type == "FIXED_LEN_BYTE_ARRAY"
        return WatchedChunk(
            start=chunk.start,
            end=chunk.start + chunk.packed_bytes,
            leaf=leaf,
            level_bits=described.max_repetition_level.bit_length(),
            has_nulls=described.max_definition_level > 0,
            is_text=described.physical_type == "BYTE_ARRAY",
            codec=chunk.codec,
            value_bytes=described.length if is_fixed else 0,
        )

    def _size(self, group: int, leaves: Iterable[int], most_rows: int) -> tuple[int, int]:
        """(bytes of the columns of a row group before compression, rows of a batch)."""
        unpacked = 0
        for leaf in leaves:
            chunk, described = self.chunks[group][leaf], self.metadata.schema.column(leaf)
            size = chunk.unpacked_bytes
            if described.max_repetition_level:
                size = max(size, VALUE_BYTES * chunk.values)
            unpacked += size
            repeated = 0
            if chunk.has_dictionary and chunk.physical == BYTE_ARRAY:
                repeated = min(size, _REPEATED_PAGE_BYTES)
            elif chunk.physical == FIXED:
                repeated = described.length  # a null takes as much
            most_rows = min(most_rows, REPEATED_BYTES // max(repeated, 1))
        rows = max(0, self.metadata.row_group(group).num_rows)
        return unpacked, max(1, min(most_rows, _BATCH_BYTES * rows // max(unpacked, 1)))

    def _arrow_batches(
        self,
        guard: PageGuard,
        rows: int,
        columns: list[str] | None,
        groups: list[int],
        unpacked_bytes: int,
    ) -> Iterator[pa.RecordBatch]:
        is_large = unpacked_bytes > _TOGETHER_BYTES
        parquet = pq.ParquetFile(
            guard,
            metadata=self.metadata,
            pre_buffer=not is_large,
            buffer_size=_PIECE_BYTES if is_large else 0,
            page_checksum_verification=True,
            **self.types,
        )
        yield from parquet.iter_batches(
            rows,
            row_groups=groups,
            columns=columns,
            use_threads=False,  # many tasks read at the same time
        )


def _check_dictionaries(batch: pa.RecordBatch) -> None:
    """Checks columns that Arrow did not decode value by value; what it decoded is sound."""
    places = [i for i, field in enumerate(batch.schema) if has_dictionary(field.type)]
    if places:
        check_batch(batch.select(places))


def _leaves_below(metadata: pq.FileMetaData, columns: list[str] | None) -> list[int]:
    """The numbers of the leaves that are read for some top-level columns."""
    schema = metadata.schema
    if columns is None:
        return list(range(metadata.num_columns))
    starts = tuple(f"{name}." for name in columns)
    paths = [schema.column(leaf).path for leaf in range(metadata.num_columns)]
    return [leaf for leaf, path in enumerate(paths) if f"{path}.".startswith(starts)]
