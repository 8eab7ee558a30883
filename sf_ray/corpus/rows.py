"""Rows of the corpus: shards -> one table a unit -> values of a row. No Ray, no model."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from sf_ray.corpus.planning import top_level
from sf_ray.corpus.readers.file_types import FileType, file_type_of
from sf_ray.corpus.readers.json_lines import LINE, LINES, JsonReader
from sf_ray.corpus.readers.shard import ShardReader, open_shard
from sf_ray.corpus.units import ReadPlan
from sf_ray.errors import BadRowError, BadShardError
from sf_ray.storage.files import File
from sf_ray.storage.location import Location

_BATCH_ROWS = 4096
# Only an escape can smuggle half of a surrogate pair into valid UTF-8.
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")

Row = dict[str, object]


@dataclass(frozen=True)
class BadLine:
    """Stands for a row of a JSON shard that is no JSON object."""

    reason: str


def read_units(location: Location, plan: ReadPlan, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Reads the given columns of each unit of a plan, in order, streaming through the file.

    Args:
        location: The corpus.
        plan: Units, and where they lie.
        columns: Columns, or fields inside them (`data.messages`), for which the whole column is
            read. Of a JSON shard every field is read.

    Raises:
        BadShardError: The shard changed, is gone, or cannot be read.
        SfRayError: Storage failed.
    """
    position = plan.first_row
    with open_shard(location, plan.file) as reader:
        names = top_level(columns, reader.schema.names)
        batches = reader.batches(_BATCH_ROWS, names, plan.row_groups, plan.offset)
        held: list[pa.RecordBatch] = []  # rows [position, position + held rows)
        for unit in plan.units:
            while position + sum(batch.num_rows for batch in held) < unit.stop:
                try:
                    held.append(next(batches))
                except StopIteration:
                    raise BadShardError(
                        plan.file.relative, f"ends before row {unit.stop} that its footer promises"
                    ) from None
                # Rows before this unit are not needed: let go of their memory.
                while held and position + held[0].num_rows <= unit.start:
                    position += held.pop(0).num_rows
            rows = pa.Table.from_batches(held)
            yield rows.slice(unit.start - position, unit.rows)


def rows_of(table: pa.Table) -> Iterator[Row | BadLine]:
    """The rows of a table that was read from a shard of any kind, as Python values.

    Text that is not valid UTF-8, or holds half of a surrogate pair, is bytes: no tokenizer takes
    it, and one broken cell must not take the others with it.
    """
    if table.schema.equals(LINES):
        for line in table[LINE].to_pylist():
            yield _row_of_line(line)
        return
    columns = [values_of(column) for column in table.columns]
    if not columns:
        yield from ({} for _ in range(table.num_rows))
    for row in zip(*columns, strict=True):
        yield dict(zip(table.column_names, row, strict=True))


def values_of(column: pa.ChunkedArray) -> list[object]:
    """Python values of a column; what is not valid UTF-8, at any depth, stays bytes.

    Neither Parquet nor Arrow checks its strings.
    """
    try:
        values: list[object] = column.to_pylist()
        return values
    except (ValueError, OverflowError):  # UnicodeDecodeError is a ValueError
        return [_value_of(cell) for cell in column]


def _value_of(cell: pa.Scalar) -> object:
    try:
        return cell.as_py()
    except (ValueError, OverflowError):
        pass  # what is wrong lies deeper, or the cell itself is
    if isinstance(cell, pa.DictionaryScalar):
        return _value_of(cell.value)
    if isinstance(cell, pa.StructScalar):
        return {name: _value_of(value) for name, value in cell.items()}
    if isinstance(cell, (pa.ListScalar, pa.ListViewScalar)):  # maps and large lists are too
        return [_value_of(value) for value in cell.values]
    if isinstance(cell, pa.StringScalar):
        return cell.as_buffer().to_pybytes()
    return None  # e.g. a date that Python's calendar does not reach


def _row_of_line(line: bytes) -> Row | BadLine:
    try:
        row = json.loads(line.decode())
    except UnicodeDecodeError as error:
        return BadLine(f"not valid UTF-8 (byte {line[error.start]:#04x} at {error.start})")
    except json.JSONDecodeError as error:
        return BadLine(f"not valid JSON ({error.msg} at character {error.pos + 1})")
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; depth
        return BadLine(f"not readable JSON ({error})")
    if not isinstance(row, dict):
        return BadLine(f"a JSON {_json_type(row)}, expected an object")
    if _SURROGATE.search(line):
        return {name: _encodable(value) for name, value in row.items()}
    return row


def _encodable(value: object) -> object:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return value.encode("utf-8", "surrogatepass")
        return value
    if isinstance(value, list):
        return [_encodable(one) for one in value]
    if isinstance(value, dict):
        return {name: _encodable(one) for name, one in value.items()}
    return value


def _json_type(value: object) -> str:
    names = {list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


def first_bad_row(
    location: Location, file: File, start: int, rows: pa.Table, suspects: Sequence[int]
) -> BadRowError | None:
    """The first row that cannot be read at all, as an error that says where it stands.

    Args:
        location: The corpus.
        file: The shard.
        start: Row number in it of the first of `rows`.
        rows: As they were read.
        suspects: Indices of those among them that may be broken, in order.
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
    assert isinstance(reader, JsonReader), "only JSON has lines"
    return reader.place_of(row)
