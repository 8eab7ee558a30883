"""Reads the rows of a corpus: shard -> one table for each unit -> one mapping for each row.

Does not know which columns hold a question or an answer. Knows no Ray and no model.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from sf_ray.corpus.fields import BrokenJson, TooDeep, is_deep, load_json, may_be_deep, with_bytes
from sf_ray.corpus.formats import Row
from sf_ray.corpus.readers.file_types import FileType, file_type_of
from sf_ray.corpus.readers.json_lines import LINE, LINES, JsonReader
from sf_ray.corpus.readers.row_limits import size_of, size_text
from sf_ray.corpus.readers.shard import ShardReader, open_shard
from sf_ray.corpus.units import ReadPlan
from sf_ray.corpus.used_columns import top_level
from sf_ray.errors import BadRowError, BadShardError
from sf_ray.storage.listing import File
from sf_ray.storage.location import Location

_BATCH_ROWS = 4096
_ROWS_AT_ONCE, _BYTES_AT_ONCE = 512, 16 << 20
# A unit may take as much as so many of the largest rows. To be copied, they may have images.
_ROWS_READ, _ROWS_COPIED = 32, 64
# Valid UTF-8 holds half of a surrogate pair only as a JSON escape.
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


@dataclass(frozen=True)
class BadLine:
    """Stands for a row of a JSON shard that is not a JSON object.

    Attributes:
        reason: What is wrong with the row.
    """

    reason: str


def read_units(
    location: Location, plan: ReadPlan, columns: Sequence[str] | None
) -> Iterator[pa.Table]:
    """Reads the units of a plan in one pass over the file.

    Args:
        location: The corpus.
        plan: The units, and where they lie in the file.
        columns: The columns to read, or fields inside them: for `data.messages` all of `data` is
            read. One that the shard lacks comes out full of nulls. Of a JSON shard every field is
            read. None: whole rows, to copy them, as `open_shard` reads them then.

    Yields:
        The rows of each unit, in the order of the plan.

    Raises:
        BadShardError: The shard changed, is gone, or cannot be read.
        SfRayError: Storage failed.
    """
    position = plan.first_row
    with open_shard(location, plan.file, to_copy=columns is None) as reader:
        names = None if columns is None else top_level(columns, reader.schema.names)
        there = None if names is None else _names_in(reader.schema, names)
        batches = reader.batches(_BATCH_ROWS, there, plan.row_groups, plan.offset)
        held: list[pa.RecordBatch] = []  # `position` is the first row in them
        held_bytes: list[int] = []
        most_bytes = location.max_row_bytes * (_ROWS_READ if names else _ROWS_COPIED)
        for unit in plan.units:
            while position + sum(batch.num_rows for batch in held) < unit.stop:
                try:
                    held.append(next(batches))
                    held_bytes.append(size_of(held[-1]))
                except StopIteration:
                    raise BadShardError(
                        plan.file.relative, f"ends before row {unit.stop} that its footer promises"
                    ) from None
                # Rows before this unit are not needed: free their memory.
                while held and position + held[0].num_rows <= unit.start:
                    position += held.pop(0).num_rows
                    held_bytes.pop(0)
                if sum(held_bytes) > most_bytes:
                    raise BadShardError(
                        plan.file.relative,
                        f"rows {unit.start} to {unit.stop} take over {size_text(most_bytes)} "
                        "together; lower --unit-rows, or raise --max-row-bytes",
                    )
            rows = pa.Table.from_batches(held).slice(unit.start - position, unit.rows)
            yield rows if names == there else _with_nulls(rows, names or ())


def _names_in(schema: pa.Schema, names: Sequence[str]) -> Sequence[str]:
    """The names that a schema has; all of them for JSON, where only rows tell."""
    if schema.equals(LINES):
        return names
    existing = set(schema.names)
    return [name for name in names if name in existing]


def _with_nulls(rows: pa.Table, names: Sequence[str]) -> pa.Table:
    """The rows with all of the columns `names`; those that they lack are null."""
    nulls = pa.nulls(rows.num_rows)
    there = set(rows.column_names)
    return pa.table([rows[name] if name in there else nulls for name in names], list(names))


def rows_of(table: pa.Table) -> Iterator[Row | BadLine]:
    """The rows of a table from `read_units`, as Python values, whatever the file type of the shard.

    Text that is not valid UTF-8, or holds half of a surrogate pair, comes out as bytes. No
    tokenizer accepts it, and one broken cell must not make the rest of the table unreadable.
    """
    if not table.num_columns:
        yield from ({} for _ in range(table.num_rows))
    is_json = table.schema.equals(LINES)
    # Few rows at a time: Python's values take many times the memory of Arrow's.
    average = table.nbytes // max(table.num_rows, 1)
    for batch in table.to_batches(max(1, min(_ROWS_AT_ONCE, _BYTES_AT_ONCE // (average + 1)))):
        if is_json:
            yield from map(_row_of_line, batch[LINE].to_pylist())
            continue
        columns = [values_of(pa.chunked_array([column])) for column in batch.columns]
        for row in zip(*columns, strict=True):
            yield dict(zip(table.column_names, row, strict=True))


def values_of(column: pa.ChunkedArray) -> list[object]:
    """Python values of a column.

    Neither Parquet nor Arrow checks that strings are valid UTF-8: text that is not, at any depth,
    comes out as bytes. Values of the type arrow.json, at any depth, are parsed.
    """
    values: list[object]
    try:
        values = column.to_pylist()
    except Exception:  # noqa: BLE001 - one cell of all that raises anything: each on its own
        values = [_value_of(cell) for cell in column]
    if has_json(column.type):
        return [_parsed(value, column.type) for value in values]
    return values


def has_json(column_type: pa.DataType) -> bool:
    """Whether a type is arrow.json, or has it inside."""
    if isinstance(column_type, pa.JsonType):
        return True
    if isinstance(column_type, pa.BaseExtensionType):
        return has_json(column_type.storage_type)
    if pa.types.is_dictionary(column_type) or pa.types.is_run_end_encoded(column_type):
        return has_json(column_type.value_type)
    return any(has_json(column_type.field(i).type) for i in range(column_type.num_fields))


def _parsed(value: Any, value_type: pa.DataType) -> object:
    """A Python value of an Arrow type, with the text of each arrow.json in it parsed."""
    if value is None or not has_json(value_type):
        return value
    if isinstance(value_type, pa.JsonType):
        return _parsed_json(value)
    if isinstance(value_type, pa.BaseExtensionType):
        return _parsed(value, value_type.storage_type)
    if pa.types.is_dictionary(value_type) or pa.types.is_run_end_encoded(value_type):
        return _parsed(value, value_type.value_type)
    if pa.types.is_struct(value_type) and isinstance(value, dict):
        return {field.name: _parsed(value.get(field.name), field.type) for field in value_type}
    if pa.types.is_map(value_type):
        types = value_type.key_type, value_type.item_type
        return [tuple(map(_parsed, entry, types)) for entry in _entries(value)]
    if isinstance(value, list):  # of any of the list types
        return [_parsed(element, value_type.value_type) for element in value]
    return value


def _entries(value: Sequence[Any]) -> list[tuple[Any, Any]]:
    """The entries of a map, which `_value_of` gives as objects."""
    return [tuple(entry.values()) if isinstance(entry, dict) else entry for entry in value]


def _parsed_json(source: str | bytes) -> object:
    if isinstance(source, str):
        with suppress(ValueError):
            return load_json(source)
        return BrokenJson(source.encode("utf-8", "surrogatepass"))
    return BrokenJson(source)


def _value_of(cell: pa.Scalar) -> object:
    try:
        return cell.as_py()
    except Exception:  # noqa: BLE001 - UnicodeDecodeError, a time zone that nobody knows, ...
        pass  # the cell itself is broken, or one inside it
    if isinstance(cell, pa.DictionaryScalar | pa.ExtensionScalar | pa.RunEndEncodedScalar):
        return _value_of(cell.value)
    if isinstance(cell, pa.StructScalar):
        return {name: _value_of(value) for name, value in cell.items()}
    if isinstance(cell, (pa.ListScalar, pa.ListViewScalar)):  # includes maps and large lists
        return [_value_of(value) for value in cell.values]
    if isinstance(cell, pa.StringScalar):
        return cell.as_buffer().to_pybytes()
    return None  # e.g. a date that Python's calendar does not reach


def _row_of_line(line: bytes) -> Row | BadLine:
    try:
        text = line.decode()
        row = json.loads(text)
    except UnicodeDecodeError as error:
        return BadLine(f"not valid UTF-8 (byte {line[error.start]:#04x} at {error.start})")
    except json.JSONDecodeError as error:
        if b"\0" in line:
            nul = line.index(b"\0")
            return BadLine(f"NUL bytes, from byte {nul} on, as a crash while writing leaves them")
        return BadLine(f"not valid JSON ({error.msg} at character {error.pos + 1})")
    except (ValueError, RecursionError) as error:  # a number with thousands of digits; deep nesting
        return BadLine(f"not readable JSON ({error})")
    if not isinstance(row, dict):
        return BadLine(f"a JSON {_json_type(row)}, expected an object")
    if may_be_deep(text):
        row = {name: TooDeep() if is_deep(value) else value for name, value in row.items()}
    if _SURROGATE.search(line):
        return {name: with_bytes(value) for name, value in row.items()}
    return row


def _json_type(value: object) -> str:
    names = {list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


def first_bad_row(
    location: Location, file: File, start: int, rows: pa.Table, suspects: Sequence[int]
) -> BadRowError | None:
    """The first bad line among some rows, as an error that names its place in the file.

    Args:
        location: The corpus.
        file: The shard.
        start: Number in the shard of the first row of `rows`.
        rows: The table that was read.
        suspects: Indices in `rows` of the rows that may be bad lines, in order.

    Returns:
        None where no suspect is a bad line.

    Raises:
        SfRayError: The shard cannot be read again.
    """
    for index in suspects:
        row = next(rows_of(rows.slice(index, 1)))
        if isinstance(row, BadLine):
            with open_shard(location, file) as reader:
                place = _place_of(reader, start + index)
            return BadRowError(file.relative, start + index, place, row.reason)
    return None


def refuse_bad_lines(
    location: Location, file: File, start: int, rows: pa.Table, suspects: Iterable[int]
) -> None:
    """Raises the error of the first line that is no JSON object; only JSON shards have lines.

    Args:
        location: The corpus.
        file: The shard.
        start: Row number in the shard of the first of `rows`.
        rows: Rows as `read_units` reads them.
        suspects: Indices of rows that may be such lines, in order; only these are parsed again.

    Raises:
        BadRowError: Says where the line stands.
    """
    if file_type_of(file.relative) is not FileType.JSON:
        return
    if error := first_bad_row(location, file, start, rows, list(suspects)):
        raise error


def _place_of(reader: ShardReader, row: int) -> str:
    assert isinstance(reader, JsonReader), "only JSON shards have bad lines"
    return reader.place_of(row)
