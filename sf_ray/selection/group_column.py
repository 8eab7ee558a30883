"""Values of a column of the corpus, which divide the rows into groups for quotas and the report.

Does not know how many rows of a group are wanted. No Ray, no model.
"""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sf_ray.config.quotas import NULL, text_of
from sf_ray.corpus.formats import value_at
from sf_ray.corpus.planning import Corpus
from sf_ray.corpus.readers.json_lines import LINES
from sf_ray.corpus.rows import BadLine, read_units, rows_of, values_of
from sf_ray.corpus.units import Place, group_reads
from sf_ray.corpus.used_columns import find_fields
from sf_ray.errors import SfRayError, UsageError
from sf_ray.selection.cutoffs import Codes
from sf_ray.storage.location import Location

# A column with more values than this holds names or texts, not groups of rows.
MOST_VALUES = 10_000


class UnitValues(NamedTuple):
    """The values of a column in the rows of a unit.

    Attributes:
        values: The values that occur, as text.
        indices: [rows] which of `values` each row has.
    """

    values: list[str]
    indices: NDArray[np.int64]


@dataclass(frozen=True)
class GroupColumn:
    """A column, or a field inside one.

    Attributes:
        path: The names that lead to it, the outermost first.
        asked_by: The option that names it, for errors.
    """

    path: tuple[str, ...]
    asked_by: str = "--quota"

    def count(self, corpus: Location, places: Sequence[Place]) -> Counter[str]:
        """Rows by value, of some units.

        Raises:
            BadShardError: A shard cannot be read.
            SfRayError: There are too many values.
        """
        counts: Counter[str] = Counter()
        for unit in self.read(corpus, places):
            rows = np.bincount(unit.indices, minlength=len(unit.values))
            for value, count in zip(unit.values, rows.tolist(), strict=True):
                if count:
                    counts[value] += count
            self.check(counts)
        return counts

    def codes(self, corpus: Location, places: Sequence[Place], code_of: Mapping[str, int]) -> Codes:
        """[rows] the code of each row's value, of all rows of some units.

        Args:
            corpus: The folder of the shards.
            places: The units.
            code_of: Value -> its code, for every value that occurs.

        Raises:
            BadShardError: A shard cannot be read.
            SfRayError: A JSON row holds an object or a list there.
        """
        codes = [
            np.array([code_of[value] for value in unit.values], np.int64)[unit.indices]
            for unit in self.read(corpus, places)
        ]
        return np.concatenate(codes) if codes else np.empty(0, np.int64)

    def check(self, counts: Mapping[str, int]) -> None:
        """Refuses a column with too many values.

        Raises:
            SfRayError: There are more than `MOST_VALUES`; the error names some of them.
        """
        if len(counts) > MOST_VALUES:
            examples = ", ".join(repr(value[:40]) for value in itertools.islice(counts, 3))
            raise SfRayError(
                f"{self.asked_by}: column {'.'.join(self.path)!r} has more than {MOST_VALUES:,} "
                f"values, e.g. {examples}; choose a column that names groups of rows"
            )

    def read(self, corpus: Location, places: Sequence[Place]) -> Iterator[UnitValues]:
        """The values of each unit, in the order of the units.

        Raises:
            BadShardError: A shard cannot be read.
            SfRayError: A JSON row holds an object or a list there.
        """
        for shard, shard_places in itertools.groupby(places, key=lambda place: place[0]):
            for plan in group_reads(shard, [unit for _, unit in shard_places]):
                for rows in read_units(corpus, plan, [".".join(self.path)]):
                    yield _values_of(rows, self)


def find_column(schema: pa.Schema, name: str, asked_by: str = "--quota") -> GroupColumn:
    """The column of this name. Dots lead into nested columns, unless a column's own name has dots.

    Args:
        schema: The schema of the corpus.
        name: The name.
        asked_by: The option that names it, for errors.

    Raises:
        UsageError: There is none, or it holds neither text nor numbers nor truth values.
    """
    if schema.equals(LINES):  # JSON has no schema: each row has fields of its own
        return GroupColumn((name,), asked_by)
    path = (name,) if name in schema.names else tuple(name.split("."))
    if not find_fields(schema, name):
        raise UsageError(
            f"{asked_by}: the corpus has no column {name!r}; it has "
            + ", ".join(_names(pa.struct(list(schema))))
        )
    if problem := group_problem(schema, name):
        raise UsageError(f"{asked_by}: {problem}")
    return GroupColumn(path, asked_by)


def column_of(corpus: Corpus, name: str, asked_by: str = "--quota") -> GroupColumn:
    """As `find_column`, in the first schema of a corpus that has such a column.

    The rows of a shard that lacks it count as rows without a value.

    Raises:
        UsageError: No schema has one.
    """
    problem: UsageError | None = None
    for schema, _ in corpus.by_schema():
        try:
            return find_column(schema, name, asked_by)
        except UsageError as error:
            problem = problem or error
    assert problem is not None, "a corpus has shards, and they have a schema"
    raise problem


def group_problem(schema: pa.Schema, name: str) -> str:
    """Why the column of this name cannot divide rows into groups; "" where it can, or is absent."""
    if schema.equals(LINES):
        return ""
    found = find_fields(schema, name)
    if not found:
        return ""
    if len(found) > 1:
        return f"there are {len(found)} columns of the name {name!r}"
    column_type = found[0].type
    is_dictionary = pa.types.is_dictionary(column_type)
    value_type = column_type.value_type if is_dictionary else column_type
    if any(accepts(value_type) for accepts in _ACCEPTED):
        return ""
    return f"column {name!r} has the type {column_type}; expected text, numbers or truth values"


_ACCEPTED = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_decimal,
    pa.types.is_boolean,
    pa.types.is_null,
)


def _names(field_type: pa.DataType, prefix: str = "") -> list[str]:
    """The names of all columns that hold values, nested ones with dots."""
    names: list[str] = []
    for field in field_type:
        name = prefix + field.name
        nested = pa.types.is_struct(field.type)
        names += _names(field.type, f"{name}.") if nested else [name]
    return names


def _values_of(rows: pa.Table, group_column: GroupColumn) -> UnitValues:
    """The values of the column in a unit's rows.

    Raises:
        SfRayError: A JSON row holds an object or a list there.
    """
    if rows.schema.equals(LINES):
        return _values_of_lines(rows, group_column)
    column = _column_at(rows, group_column.path)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if isinstance(column.type, pa.BaseExtensionType):  # e.g. DuckDB's JSON, stored as text
        column = column.cast(column.type.storage_type)
    if pa.types.is_null(column.type):
        return UnitValues([NULL], np.zeros(len(column), np.int64))
    if pa.types.is_string_view(column.type):
        column = column.cast(pa.large_string())
    encoded = column.dictionary_encode().combine_chunks()
    values = [text_of(value) for value in values_of(pa.chunked_array([encoded.dictionary]))]
    # A null becomes one more value, behind those of the dictionary.
    indices = encoded.indices.fill_null(len(values)).to_numpy().astype(np.int64)
    return UnitValues([*values, NULL] if encoded.indices.null_count else values, indices)


def _column_at(rows: pa.Table, path: Sequence[str]) -> pa.ChunkedArray:
    """The values of a column; nulls where this shard lacks it."""
    name = ".".join(path)
    if name in rows.column_names:
        return rows[name]
    first, *rest = name.split(".")
    column = rows[first]
    for part in rest:
        if not pa.types.is_struct(column.type) or column.type.get_field_index(part) < 0:
            return pa.chunked_array([pa.nulls(rows.num_rows)])
        column = pc.struct_field(column, part)
    return column


def _values_of_lines(rows: pa.Table, group_column: GroupColumn) -> UnitValues:
    (name,) = group_column.path
    try:
        texts = [
            NULL if isinstance(row, BadLine) else text_of(value_at(row, name))
            for row in rows_of(rows)
        ]
    except ValueError as error:
        raise SfRayError(f"{group_column.asked_by}: field {name!r} {error}") from None
    index_of: dict[str, int] = {}
    indices = [index_of.setdefault(text, len(index_of)) for text in texts]
    return UnitValues(list(index_of), np.array(indices, np.int64))
