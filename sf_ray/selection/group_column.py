"""Values of a column of the corpus, by which quotas tell groups of rows apart. No Ray, no model."""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sf_ray.config.quotas import NULL, text_of
from sf_ray.corpus.formats import value_at
from sf_ray.corpus.readers.json_lines import LINES
from sf_ray.corpus.rows import BadLine, read_units, rows_of, values_of
from sf_ray.corpus.units import Place, group_reads
from sf_ray.errors import SfRayError, UsageError
from sf_ray.selection.cutoffs import Codes
from sf_ray.storage.location import Location

# More than this is no column to have quotas on, but names or texts.
MOST_VALUES = 10_000


@dataclass(frozen=True)
class GroupColumn:
    """Where the column lies.

    Attributes:
        path: The names that lead to it, from the outermost in.
        asked_by: The option that named it, for errors.
    """

    path: tuple[str, ...]
    asked_by: str = "--quota"

    def count(self, corpus: Location, places: Sequence[Place]) -> Counter[str]:
        """Rows of each value in some units.

        Raises:
            BadShardError: A shard cannot be read.
            SfRayError: There are too many values.
        """
        counts: Counter[str] = Counter()
        for values, local in self.read(corpus, places):
            rows = np.bincount(local, minlength=len(values))
            for value, count in zip(values, rows.tolist(), strict=True):
                if count:
                    counts[value] += count
            self.check(counts)
        return counts

    def codes(self, corpus: Location, places: Sequence[Place], code_of: Mapping[str, int]) -> Codes:
        """[rows] the number of each row's value, for the rows of units that follow each other.

        Raises:
            BadShardError: A shard cannot be read.
        """
        codes = [
            np.array([code_of[value] for value in values], np.int64)[local]
            for values, local in self.read(corpus, places)
        ]
        return np.concatenate(codes) if codes else np.empty(0, np.int64)

    def check(self, counts: Mapping[str, int]) -> None:
        """Refuses a column with too many values.

        Raises:
            SfRayError: Names some of them.
        """
        if len(counts) > MOST_VALUES:
            examples = ", ".join(repr(value[:40]) for value in itertools.islice(counts, 3))
            raise SfRayError(
                f"{self.asked_by}: column {'.'.join(self.path)!r} has more than {MOST_VALUES:,} "
                f"values, e.g. {examples}; choose a column that names groups of rows"
            )

    def read(
        self, corpus: Location, places: Sequence[Place]
    ) -> Iterator[tuple[list[str], NDArray[np.int64]]]:
        """For each unit its values, and which of them each row has.

        Raises:
            BadShardError: A shard cannot be read.
            SfRayError: A JSON row holds an object or a list there.
        """
        for shard, of_shard in itertools.groupby(places, key=lambda place: place[0]):
            for plan in group_reads(shard, [unit for _, unit in of_shard]):
                for rows in read_units(corpus, plan, [".".join(self.path)]):
                    yield _values(rows, self)


def find_column(schema: pa.Schema, name: str, asked_by: str = "--quota") -> GroupColumn:
    """The column of this name; dots lead into nested columns, unless a name has them itself.

    Raises:
        UsageError: There is none, or it holds neither text nor numbers nor truth values.
    """
    if schema.equals(LINES):  # which fields a row has, it tells itself
        return GroupColumn((name,), asked_by)
    path = (name,) if name in schema.names else tuple(name.split("."))
    kind: pa.DataType = pa.struct(list(schema))
    for part in path:
        inside = [field for field in kind if field.name == part] if _is_struct(kind) else []
        if not inside:
            raise UsageError(
                f"{asked_by}: the corpus has no column {name!r}; it has "
                + ", ".join(_names(pa.struct(list(schema))))
            )
        kind = inside[0].type
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not any(accepts(value) for accepts in _ACCEPTED):
        raise UsageError(
            f"{asked_by}: column {name!r} has the type {kind}; expected text, numbers or truth "
            "values"
        )
    return GroupColumn(path, asked_by)


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


def _is_struct(kind: pa.DataType) -> bool:
    return bool(pa.types.is_struct(kind))


def _names(kind: pa.DataType, prefix: str = "") -> list[str]:
    names: list[str] = []
    for field in kind:
        name = prefix + field.name
        names += _names(field.type, f"{name}.") if _is_struct(field.type) else [name]
    return names


def _values(rows: pa.Table, of: GroupColumn) -> tuple[list[str], NDArray[np.int64]]:
    """The values that occur in a unit's rows, as text, and which of them each row has: [rows].

    Raises:
        SfRayError: A JSON row holds an object or a list there.
    """
    if rows.schema.equals(LINES):
        return _values_of_lines(rows, of)
    column = rows[of.path[0]]
    for part in of.path[1:]:
        column = pc.struct_field(column, part)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_null(column.type):
        return [NULL], np.zeros(len(column), np.int64)
    if pa.types.is_string_view(column.type):
        column = column.cast(pa.large_string())
    encoded = column.dictionary_encode().combine_chunks()
    values = [text_of(value) for value in values_of(pa.chunked_array([encoded.dictionary]))]
    which = encoded.indices.fill_null(len(values)).to_numpy().astype(np.int64)
    return [*values, NULL] if encoded.indices.null_count else values, which


def _values_of_lines(rows: pa.Table, of: GroupColumn) -> tuple[list[str], NDArray[np.int64]]:
    (name,) = of.path
    try:
        texts = [
            NULL if isinstance(row, BadLine) else text_of(value_at(row, name))
            for row in rows_of(rows)
        ]
    except ValueError as error:
        raise SfRayError(f"{of.asked_by}: field {name!r} {error}") from None
    code_of: dict[str, int] = {}
    which = [code_of.setdefault(text, len(code_of)) for text in texts]
    return list(code_of), np.array(which, np.int64)
