"""Shards of every kind behind one face: what a plan must know of one, and its rows.

Knows no Ray and no model; what is particular to a kind lies in that kind's module.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import pyarrow as pa

from sf_ray.corpus.readers.arrow import ArrowReader
from sf_ray.corpus.readers.file_types import FileType, file_type_of
from sf_ray.corpus.readers.json_lines import JsonReader
from sf_ray.corpus.readers.parquet import ParquetReader, read_parquet_footer
from sf_ray.corpus.units import Footer
from sf_ray.storage.files import File
from sf_ray.storage.location import Location
from sf_ray.storage.versioned_file import open_bytes


class ShardReader(Protocol):
    """The rows of an open shard.

    Attributes:
        schema: Columns and types. A JSON shard has one column: `json_shards.LINES`.
    """

    schema: pa.Schema

    def batches(
        self,
        rows: int,
        columns: Sequence[str] | None = None,
        groups: range | None = None,
        offset: int = 0,
    ) -> Iterator[pa.RecordBatch]:
        """Streams rows in their order.

        Args:
            rows: At most so many a batch.
            columns: Which top-level columns, in this order; None for all.
            groups: Which row groups; None for all. Of kinds without row groups of their own, more
                may come after the last of them.
            offset: Where the first of them starts, from `Footer.starts`.

        Raises:
            BadShardError: What is there cannot be read.
            SfRayError: Storage failed.
        """


def read_footer(location: Location, file: File) -> Footer:
    """What a plan needs to know of a shard: from Parquet's footer, or from reading all of it.

    Raises:
        BadShardError: It is not of its kind, is cut off, changed, or is gone.
        SfRayError: Storage failed.
    """
    kind = file_type_of(file.relative)
    if kind is FileType.PARQUET:
        return read_parquet_footer(location, file)
    with open_bytes(location, file) as handle:
        reader = JsonReader(file, handle) if kind is FileType.JSON else ArrowReader(file, handle)
        return reader.footer()


@contextmanager
def open_shard(location: Location, file: File) -> Iterator[ShardReader]:
    """Opens a shard, and sees to it that all that is read is of the version that was listed.

    Raises:
        BadShardError: It changed, is gone, or is not of its kind.
        SfRayError: Storage failed.
    """
    kind = file_type_of(file.relative)
    with open_bytes(location, file) as handle:
        if kind is FileType.PARQUET:
            yield ParquetReader(file, handle)
        elif kind is FileType.ARROW:
            yield ArrowReader(file, handle)
        else:
            yield JsonReader(file, handle)
