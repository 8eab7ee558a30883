"""Writes copied Parquet rows: the stored values, and then the meaning that the input gave them.

Arrow writes a file of plain values. Its footer then gets the input's own description of each
column, word for word, and one more for the added column. Does not know where rows come from.
"""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sf_ray.corpus.readers.parquet_footer import (
    FIXED,
    INT96,
    INT96_BYTES,
    ChunkField,
    ElementField,
    FileField,
    Leaf,
    StoredColumns,
    chunks_of,
    decode_footer,
    decode_row_groups,
)
from sf_ray.corpus.readers.thrift_compact import BINARY, I32, LIST, STRUCT, Struct, encode
from sf_ray.output.writers.column_descriptions import describe_double_column
from sf_ray.output.writers.held_rows import HeldRows, RowGroupSize

_KEY, _VALUE = 1, 2  # fields of `KeyValue`
_MAGIC = b"PAR1"


@contextmanager
def parquet_writer(
    path: Path,
    schema: pa.Schema,
    stored: StoredColumns,
    compression: str,
    enough: RowGroupSize,
) -> Iterator[HeldRows]:
    """Opens a writer of stored values.

    Args:
        path: The local file to write.
        schema: The columns of a `StoredParquetReader`, then the added one, of doubles.
        stored: What the values of the first columns mean.
        compression: Of all columns.
        enough: When rows are enough for a row group.
    """
    writer = pq.ParquetWriter(
        path,
        schema,
        compression=compression,
        write_page_checksum=True,
        store_schema=False,
        write_statistics=_paths_with_statistics(schema, stored),
    )
    with writer:
        rows = HeldRows(lambda batches: _put(writer, batches), enough)
        yield rows
        rows.finish()
    with path.open("r+b") as file:
        file.seek(-8, io.SEEK_END)
        length = int.from_bytes(file.read(4), "little")
        start = file.seek(-8 - length, io.SEEK_END)
        footer = _with_meaning(file.read(length), stored, schema.names[-1])
        file.seek(start)
        file.write(footer + len(footer).to_bytes(4, "little") + _MAGIC)
        file.truncate()


@contextmanager
def plain_parquet_writer(
    path: Path, schema: pa.Schema, compression: str, enough: RowGroupSize
) -> Iterator[HeldRows]:
    """Opens a writer of rows that mean what their types say: those of a table.

    Args:
        path: The local file to write.
        schema: The columns.
        compression: Of all columns.
        enough: When rows are enough for a row group.
    """
    with pq.ParquetWriter(
        path, schema, compression=compression, write_page_checksum=True
    ) as writer:
        rows = HeldRows(lambda batches: _put(writer, batches), enough)
        yield rows
        rows.finish()


def _put(writer: pq.ParquetWriter, batches: Sequence[pa.RecordBatch]) -> None:
    table = pa.Table.from_batches(batches).combine_chunks()
    writer.write_table(table, row_group_size=table.num_rows)


def _paths_with_statistics(schema: pa.Schema, stored: StoredColumns) -> list[str]:
    """The leaves, by the paths that Arrow gives them, whose least and greatest value are true.

    Elsewhere the order of the stored values is not that of what they mean, and a reader that skips
    row groups by these values would lose rows.
    """
    # Arrow tells the paths of a schema only in a file.
    empty = io.BytesIO()
    pq.write_metadata(schema, empty, store_schema=False)
    written = pq.read_metadata(pa.BufferReader(empty.getvalue())).schema
    leaves = stored.leaves
    assert len(written) == len(leaves) + 1, "each leaf is written as one"
    paths = [written.column(number).path for number in range(len(written))]
    ordered = [leaf.is_ordered for leaf in leaves]
    return [path for path, is_ordered in zip(paths, [*ordered, True], strict=True) if is_ordered]


def _with_meaning(footer: bytes, stored: StoredColumns, column: str) -> bytes:
    """The footer of a written file with the columns and key-values of the input.

    Args:
        footer: As Arrow wrote it.
        stored: From the input.
        column: Name of the added column, the last of the file.
    """
    fields, written = decode_footer(footer)
    root, *elements = stored.elements
    children = root[ElementField.CHILDREN][1] + 1
    root = {**root, ElementField.CHILDREN: (I32, children)}
    elements = [root, *elements, written.elements[-1]]
    meant = StoredColumns(tuple(elements), None)
    leaves = meant.leaves
    for leaf, plain in zip(leaves, written.leaves, strict=True):
        assert leaf.levels == plain.levels, "nesting stays"
        assert _plain_storage(leaf) == plain.storage, "stored values stay"
    fields[FileField.SCHEMA] = (LIST, (STRUCT, elements))
    row_groups = decode_row_groups(fields)
    for number, chunk in enumerate(chunks_of(row_groups)):
        leaf = leaves[number % len(leaves)]
        chunk[ChunkField.TYPE] = (I32, leaf.storage[0])
        chunk[ChunkField.PATH] = (LIST, (BINARY, list(leaf.path)))
    fields[FileField.ROW_GROUPS] = (LIST, (STRUCT, row_groups))
    fields.pop(FileField.KEY_VALUES, None)
    if stored.key_values is not None:
        described = [_described(key_value, column) for key_value in stored.key_values]
        fields[FileField.KEY_VALUES] = (LIST, (STRUCT, described))
    return encode(fields)


def _plain_storage(leaf: Leaf) -> tuple[int, int]:
    return (FIXED, INT96_BYTES) if leaf.storage[0] == INT96 else leaf.storage


def _described(key_value: Struct, column: str) -> Struct:
    if _VALUE not in key_value:  # it is optional
        return key_value
    key, value = key_value[_KEY][1], key_value[_VALUE][1]
    return {**key_value, _VALUE: (BINARY, describe_double_column(key, value, column))}
