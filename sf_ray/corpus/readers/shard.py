"""Opens a shard of any file type: its footer, which a plan needs, and its rows.

What is particular to one file type is in the module of that type. Knows no Ray and no model.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import pyarrow as pa

from sf_ray.corpus.readers.arrow import ArrowReader
from sf_ray.corpus.readers.content import HEAD_BYTES, Content, content_of, is_json_text
from sf_ray.corpus.readers.file_types import FileType, file_type_of
from sf_ray.corpus.readers.json_lines import JsonReader
from sf_ray.corpus.readers.parquet import (
    ParquetReader,
    StoredParquetReader,
    read_parquet_footer,
)
from sf_ray.corpus.tables.columns import TableReader, live_footer
from sf_ray.corpus.tables.lance import Fragment, LanceReader, read_fragment
from sf_ray.corpus.tables.snapshot import DataFile
from sf_ray.corpus.units import Footer
from sf_ray.errors import BadShardError
from sf_ray.storage.listing import File
from sf_ray.storage.location import Location
from sf_ray.storage.versioned_file import open_bytes, read_range


class ShardReader(Protocol):
    """The rows of an open shard.

    Attributes:
        schema: Columns and types. A JSON shard has one column: `json_lines.LINES`.
    """

    schema: pa.Schema

    def batches(
        self,
        rows: int,
        columns: Sequence[str] | None = None,
        groups: range | None = None,
        offset: int = 0,
    ) -> Iterator[pa.RecordBatch]:
        """Streams rows in the order of the file.

        Args:
            rows: Rows of one batch, at most.
            columns: Top-level columns to read, in this order; None for all.
            groups: Row groups to read; None for all. A JSON shard goes on after the last of them,
                to the end of the file.
            offset: Byte at which the first of these row groups begins, from `Footer.starts`.

        Raises:
            BadShardError: The shard cannot be read.
            SfRayError: Storage failed.
        """


def read_footer(location: Location, file: File) -> Footer:
    """Reads what a plan must know of a shard: Parquet's footer, or all of a shard of another type.

    Raises:
        BadShardError: The content is not of the file type, is incomplete, changed, or is gone.
        SfRayError: Storage failed.
    """
    if isinstance(file, Fragment):
        return read_fragment(location, file)
    file_type = file_type_of(file.relative)
    if file_type is FileType.JSON:
        with open_bytes(location, file) as handle:
            return JsonReader(file, handle, location.max_row_bytes).footer()
    try:
        if file_type is FileType.PARQUET:
            footer = read_parquet_footer(location, file)
            return live_footer(file, footer) if isinstance(file, DataFile) else footer
        with open_bytes(location, file) as handle:
            return ArrowReader(file, handle, location.max_row_bytes).footer()
    except BadShardError as error:
        raise _explained(location, file, error) from error


def _explained(location: Location, file: File, error: BadShardError) -> BadShardError:
    """Says of a Parquet or Arrow shard that cannot be read what it is, where it is another file."""
    if not file.size:
        return BadShardError(file.relative, f"{error.reason}; the file is empty (0 bytes)")
    head = read_range(location, file, 0, min(file.size, HEAD_BYTES))
    content = content_of(head)
    if is_json_text(head):
        content = Content("JSON", suffix=".jsonl")
    if content is None or file_type_of(f"a{content.suffix}") is file_type_of(file.relative):
        return error
    plain = file.relative.rpartition("/")[2].rpartition(".")[0]
    to_do = f"give it the name {plain}{content.suffix}" if content.suffix else content.advice
    if content.codecs:
        to_do = "unpack it"
    return BadShardError(file.relative, f"its content is {content.what}; {to_do}")


@contextmanager
def open_shard(location: Location, file: File, to_copy: bool = False) -> Iterator[ShardReader]:
    """Opens a shard, and checks before and after reading that it is the version of the listing.

    Args:
        location: The corpus.
        file: The shard.
        to_copy: The rows will be written again, not understood: a Parquet shard is opened as a
            `StoredParquetReader`, which reads stored values without their meaning. Files of a table
            are not copied: what their columns mean, only the table knows.

    Raises:
        BadShardError: The shard changed, is gone, or its content is not of its file type.
        SfRayError: Storage failed.
    """
    if isinstance(file, Fragment):
        yield LanceReader(location, file)
        return
    file_type = file_type_of(file.relative)
    with open_bytes(location, file) as handle:
        if isinstance(file, DataFile):
            yield TableReader(file, ParquetReader(file, handle, location.max_row_bytes))
        elif file_type is FileType.PARQUET:
            reader = StoredParquetReader if to_copy else ParquetReader
            yield reader(file, handle, location.max_row_bytes)
        elif file_type is FileType.ARROW:
            yield ArrowReader(file, handle, location.max_row_bytes)
        else:
            yield JsonReader(file, handle, location.max_row_bytes)
