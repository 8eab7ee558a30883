"""Writes filtered JSON shards: the text of each row as it was read, with fields at its end."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from sf_ray.corpus.readers.codecs import ByteSink, packed_file


@contextmanager
def json_writer(
    path: Path, schema: pa.Schema, codec: str | None, is_array: bool
) -> Iterator["_JsonRows"]:
    """Opens a writer for a JSON shard.

    Args:
        path: The local file to write.
        schema: A column of rows as text, then the columns to add to them as fields.
        codec: The compression of the file; None for none.
        is_array: The rows become one array instead of lines.
    """
    with packed_file(path, codec) as file:
        rows = _JsonRows(file, schema, is_array)
        yield rows
        rows.finish()


class _JsonRows:
    """Writes JSON: the text of each row as it was read, with fields added at its end."""

    def __init__(self, file: ByteSink, schema: pa.Schema, is_array: bool) -> None:
        self._file, self._is_array = file, is_array
        self._names = [json.dumps(name, ensure_ascii=False) for name in schema.names[1:]]
        self._rows = 0

    def write(self, batch: pa.RecordBatch) -> None:
        lines, *added = (column.to_pylist() for column in batch.columns)
        for line, *values in zip(lines, *added, strict=True):
            fields = [
                f"{name}: {json.dumps(value)}"
                for name, value in zip(self._names, values, strict=True)
            ]
            text = _with_fields(line, ", ".join(fields).encode())
            if self._is_array:
                self._file.write((b",\n" if self._rows else b"[\n") + text)
            else:
                # A row that was the element of an array may have several lines. Valid JSON has line
                # breaks between values only, so that a space can stand for each.
                self._file.write(text.replace(b"\n", b" ") + b"\n")
            self._rows += 1

    def finish(self) -> None:
        if self._is_array:
            self._file.write(b"\n]\n" if self._rows else b"[]\n")


def _with_fields(line: bytes, fields: bytes) -> bytes:
    """The text of a JSON object with fields added before the closing brace.

    Every other byte stays as it is.
    """
    inside = line[: line.rindex(b"}")].rstrip()
    comma = b"" if inside.endswith(b"{") else b", "
    return inside + comma + fields + line[len(inside) :]
