"""A shard and the IFD of its rows -> a filtered shard of the same file type. No Ray, no model.

Rows of a shard and their scores have the same order, so they are put side by side: no join, no
shuffle. Does not know why a row is kept.
"""

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sf_ray.corpus.readers.file_types import FileType, codec_of, file_type_of
from sf_ray.corpus.readers.json_lines import LINE, LINES
from sf_ray.corpus.readers.shard import ShardReader, open_shard
from sf_ray.corpus.units import Shard
from sf_ray.errors import SfRayError
from sf_ray.output.writers.arrow_rows import filter_rows
from sf_ray.output.writers.arrow_writer import arrow_writer
from sf_ray.output.writers.column_descriptions import with_double_column
from sf_ray.output.writers.json_writer import json_writer
from sf_ray.output.writers.parquet_writer import parquet_writer, plain_parquet_writer
from sf_ray.output.writers.shard_form import AskedForm, ShardForm, form_of
from sf_ray.storage.files import put_whole
from sf_ray.storage.location import Location
from sf_ray.text.printable import printable

_BATCH_ROWS = 65536
_PARQUET_COMPRESSION = "zstd"


@dataclass(frozen=True)
class WrittenShard:
    """An output file.

    Attributes:
        relative: Its path, below the folder of such files.
        rows: How many rows it has.
        bytes: Its size.
    """

    relative: str
    rows: int
    bytes: int


class Writer(Protocol):
    """Writes rows to a file, in the order in which they come."""

    def write(self, batch: pa.RecordBatch) -> None:
        """Writes some rows, or holds them until there are enough for a row group."""


def write_shard(
    corpus: Location,
    shard: Shard,
    ifd: NDArray[np.float64],
    keep: NDArray[np.bool_],
    data: Location,
    ifd_column: str,
    asked: AskedForm = AskedForm(),  # noqa: B008 - frozen
) -> WrittenShard:
    """Writes the kept rows of one shard, in their order, with their IFD as one more column.

    Args:
        corpus: The folder of the shard.
        shard: The shard.
        ifd: [shard.rows]; NaN where there is no score.
        keep: [shard.rows] which rows are kept.
        data: The folder that the filtered shard goes to, under the name that is its own there.
        ifd_column: Name of the added column.
        asked: What of the file is not to be as in the input.

    Returns:
        What was written; where nothing is kept, no file is.

    Raises:
        BadShardError: The shard changed since it was planned, is gone, or cannot be read.
        SfRayError: A row has a field of that name already, or storage failed.
    """
    kept_rows = 0
    name = shard.written_name
    if not keep.any():
        # No file: several readers fail on one without rows.
        return WrittenShard(name, 0, 0)
    with put_whole(data.join(name)) as path:
        with open_shard(corpus, shard.file, to_copy=True) as reader:
            schema = kept_schema(reader.schema, ifd_column)
            with writer_for(name, path, schema, asked.of(form_of(reader))) as writer:
                for batch in kept_batches(reader, shard, ifd, keep, ifd_column):
                    writer.write(batch)
                    kept_rows += batch.num_rows
        size = path.stat().st_size
    return WrittenShard(name, kept_rows, size)


def kept_schema(schema: pa.Schema, ifd_column: str) -> pa.Schema:
    """The schema of `kept_batches`: the columns of the shard, then the added one."""
    schema = schema.append(pa.field(ifd_column, pa.float64()))
    if not schema.metadata:
        return schema
    return schema.with_metadata(with_double_column(schema.metadata, ifd_column))


def kept_batches(
    reader: ShardReader,
    shard: Shard,
    ifd: NDArray[np.float64],
    keep: NDArray[np.bool_],
    ifd_column: str,
) -> Iterator[pa.RecordBatch]:
    """The kept rows of an open shard, in their order, with their IFD as one more column.

    Args:
        reader: The open shard.
        shard: The shard.
        ifd: [shard.rows]; NaN where there is no score.
        keep: [shard.rows] which rows are kept.
        ifd_column: Name of the added column.

    Raises:
        BadShardError: The shard cannot be read.
        SfRayError: A JSON row has a field of that name already, or storage failed.
    """
    schema = kept_schema(reader.schema, ifd_column)
    row = 0
    for batch in reader.batches(_BATCH_ROWS):
        mask = keep[row : row + batch.num_rows]
        kept = filter_rows(batch, mask)
        refuse_field(shard, kept, row + np.flatnonzero(mask), ifd_column)
        values = pa.array(ifd[row : row + batch.num_rows][mask])
        yield pa.RecordBatch.from_arrays([*kept.columns, values], schema=schema)
        row += batch.num_rows


def refuse_field(
    shard: Shard, kept: pa.RecordBatch | pa.Table, rows: NDArray[np.int64], name: str
) -> None:
    """Refuses kept JSON rows that have a field of the added field's name already.

    Rows of other file types are not looked at: their columns are known when the corpus is planned,
    and were checked then.

    Args:
        shard: The shard of the rows.
        kept: The rows.
        rows: [n] their numbers in the shard.
        name: Name of the added field.

    Raises:
        SfRayError: A row has such a field; the error names the row.
    """
    if not kept.schema.equals(LINES):
        return
    needle = json.dumps(name).encode()
    for row, line in zip(rows, kept[LINE].to_pylist(), strict=True):
        # Parsing is slow: a row is parsed only where its text has the name, or has an escape, with
        # which the name could be written in other letters.
        if (needle in line or b"\\u" in line) and name in json.loads(line):
            raise SfRayError(
                f"row {row} of {printable(shard.file.relative)} has a field {name!r} already; "
                "name the added one with --ifd-column"
            )


def writer_for(
    name: str, path: Path, schema: pa.Schema, form: ShardForm
) -> AbstractContextManager[Writer]:
    """Opens a writer for a shard. The same rows in the same order make the same bytes.

    Args:
        name: Name of the shard; its suffix says the file type and the compression.
        path: The local file to write.
        schema: Schema of the batches. For JSON it is `kept_schema(LINES, ...)`: the writer adds the
            columns behind the line to the row as fields.
        form: How the rows are to be stored. The last column of `schema` is added to it.
    """
    file_type = file_type_of(name)
    if file_type is FileType.JSON:  # its compression is in its name
        return json_writer(path, schema, codec_of(name), form.is_array)
    if file_type is FileType.ARROW:
        ipc = form.ipc
        if form.compression is not None:
            ipc = replace(ipc, codec=None if form.compression == "none" else form.compression)
        return arrow_writer(path, schema, ipc, form.row_group)
    compression = form.compression or _PARQUET_COMPRESSION
    if form.columns is None:
        return plain_parquet_writer(path, schema, compression, form.row_group)
    return parquet_writer(path, schema, form.columns, compression, form.row_group)
