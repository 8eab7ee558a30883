"""Formats: which columns of a corpus hold questions and answers, and how a row becomes an example.

Pure functions of column names and rows. Knows no tokens, no model and no files.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from sf_ray.corpus.contained import contained
from sf_ray.corpus.examples import Example, Problem
from sf_ray.corpus.fields import (
    holds_anything,
    holds_list,
    holds_text,
    is_absent,
    refuse,
    text,
)
from sf_ray.corpus.media import MEDIA, refuse_media
from sf_ray.corpus.messages import chat_of
from sf_ray.corpus.pairs import prompt_and_completion, question_and_answer
from sf_ray.errors import SfRayError, UsageError
from sf_ray.text.printable import printable

# The values of one row by column, or by field of a JSON object.
Row = Mapping[str, object]


@dataclass(frozen=True)
class SampleRow:
    """A row of the corpus and its place.

    Attributes:
        shard: Path of the shard, relative to the corpus.
        number: 0-based number of the row in the shard.
        row: Its values.
    """

    shard: str
    number: int
    row: Row

    def __str__(self) -> str:
        return f"row {self.number} of {printable(self.shard)}"


@dataclass(frozen=True)
class Format:
    """Which fields a row has, which columns hold them, and how they become an example.

    Attributes:
        name: Value of `--format`.
        required: Fields without which a row is a bad row.
        optional: Fields that may be absent or null.
        columns: Field -> column, for the fields that the corpus has. A dot leads into a nested
            column. Empty in `FORMATS`; `resolve_format` fills it in.
        make: Makes an example from field -> value, without the fields that are absent.
        texts: The fields that hold text; `make` gets "" for an absent one.
        extra: More fields that may be absent -> whether a value is one that the field can hold.
            A corpus may have a column of that name that holds something else, and is not used.
        is_chat: Whether a field holds a list of messages.
    """

    name: str
    required: tuple[str, ...]
    optional: tuple[str, ...]
    columns: Mapping[str, str]
    make: Callable[[Mapping[str, Any]], Example | Problem]
    texts: tuple[str, ...]
    extra: Mapping[str, Callable[[object], bool]]
    is_chat: bool = False

    @property
    def fields(self) -> tuple[str, ...]:
        """All fields."""
        return (*self.required, *self.optional, *self.extra)

    @property
    def top_columns(self) -> list[str]:
        """The columns to read, each once; `read_units` finds the whole column of a nested field."""
        return list(dict.fromkeys(self.columns.values()))

    def render(self, row: Row) -> Example | Problem:
        """The example of a row, or why the row has none."""
        return contained(lambda: self.make(self.values_of(row)))

    def values_of(self, row: Row) -> dict[str, Any]:
        """Field -> value of a row; no key where it is absent, but "" for a text.

        Raises:
            FieldError: A required field is absent, a field that holds text has another value, or
                the row has an image, sound or video.
        """
        values: dict[str, Any] = self._not_sampled(row)
        for field, column in self.columns.items():
            value = value_at(row, column)
            if not is_absent(value):
                values[field] = value
            elif field in self.required:
                is_there = _top(column) in row or column in row
                refuse(f"{column!r} is {'null' if is_there else 'missing'}")
        refuse_media(values)
        for field in self.texts:
            value = values.get(field)
            if value is None:
                values[field] = ""
            elif not isinstance(value, str) or not value.isascii():  # else `text` changes nothing
                values[field] = text(value, f"{self.columns.get(field, field)!r} is")
        return values

    def _not_sampled(self, row: Row) -> dict[str, object]:
        """Extra fields of a JSON row that no sampled row has."""
        # A field with a column of its own is read from there.
        names = (self.extra.keys() & row.keys()) - self.columns.keys()
        if not names:  # of nearly every row
            return {}
        used = self.columns.values()
        return {
            name: row[name]
            for name in names
            if name not in used and not is_absent(row[name]) and self.extra[name](row[name])
        }

    def __str__(self) -> str:
        renamed = [f"{field}={column}" for field, column in self.columns.items() if field != column]
        return f"{self.name} ({', '.join(renamed)})" if renamed else self.name


def value_at(row: Row, path: str) -> object:
    """The value of a column, or of a field inside a column (`meta.source`); None where absent."""
    if path in row:
        return row[path]
    head, _, rest = path.partition(".")
    inner = row.get(head)
    return value_at(inner, rest) if rest and isinstance(inner, Mapping) else None


def _top(path: str) -> str:
    return path.partition(".")[0]


_MEDIA = dict.fromkeys(MEDIA, holds_anything)


def _pair(name: str, prompt: str, answer: str) -> Format:
    """A format with a question and an answer, and optionally what belongs to the question."""
    texts = (prompt, answer, "input", "system", "context")
    make = partial(question_and_answer, prompt=prompt, answer=answer)
    extra = {"history": holds_list, "context": holds_text} | _MEDIA
    return Format(name, (prompt, answer), ("input", "system"), {}, make, texts, extra)


def _chat(name: str, field: str) -> Format:
    """A format with a list of messages, and optionally tools and a system prompt."""

    def make(values: Mapping[str, Any]) -> Example | Problem:
        names = ("tools", "system", "functions")
        return chat_of(values[field], *map(values.get, names))

    extra = {"functions": holds_list} | _MEDIA
    return Format(name, (field,), ("tools", "system"), {}, make, ("system",), extra, is_chat=True)


FORMATS = (
    _pair("alpaca", "instruction", "output"),
    _pair("instruction-response", "instruction", "response"),
    _pair("question-answer", "question", "answer"),
    Format(
        "prompt-completion",
        ("prompt", "completion"),
        (),
        {},
        prompt_and_completion,
        (),
        {"tools": holds_list} | _MEDIA,
    ),
    _chat("messages", "messages"),
    _chat("sharegpt", "conversations"),
)


def resolve_format(
    column_names: Sequence[str],
    name: str = "auto",
    columns: Mapping[str, str] | None = None,
    sample: Sequence[SampleRow] = (),
) -> Format:
    """Finds the format of a corpus, and the columns that hold the fields of the format.

    Args:
        column_names: Columns of the corpus.
        name: Name of a format, or "auto" for the format whose required fields are all columns.
        columns: Field -> column, for fields whose column has another name.
        sample: Some rows, which decide where the columns fit several formats.

    Raises:
        UsageError: `columns` names a field that no format has.
        SfRayError: No format fits, several formats fit, the rows have several formats, or a column
            in `columns` does not exist.
    """
    columns = dict(columns or {})
    candidates = _known(name, columns)
    for field, column in columns.items():
        if column not in column_names and _top(column) not in column_names:
            raise SfRayError(
                f"--columns {field}={column}: the corpus has no column {column!r}; "
                f"it has {list(column_names)}"
            )
    found = (_with_columns(c, column_names, columns, sample) for c in candidates)
    fitting = [f for f in found if f]
    if len(fitting) > 1:
        fitting = _by_sample(fitting, sample)
    if len(fitting) == 1:
        return fitting[0]
    has = f"the corpus has the columns {list(column_names)}"
    if fitting:
        names = " and ".join(f.name for f in fitting)
        raise SfRayError(f"ambiguous format: {has}, which fits {names}; choose with --format")
    wanted = "no known format fits" if name == "auto" else f"--format {name} does not fit"
    expected = " or ".join(f"{f.name} {list(f.required)}" for f in FORMATS)
    raise SfRayError(
        f"{wanted}: {has}; expected {expected}. Map other names with --columns field=column"
    )


def _known(name: str, columns: Mapping[str, str]) -> list[Format]:
    """The formats with this name that have all of these fields."""
    candidates = [f for f in FORMATS if name in ("auto", f.name)]
    known = dict.fromkeys(field for f in candidates for field in f.fields)
    for field in columns:
        if field not in known:
            raise UsageError(f"--columns: unknown field {field!r}; expected one of {list(known)}")
    # Who names the column of a field expects a format that has this field.
    return [f for f in candidates if all(c in f.fields for c in columns)]


def _with_columns(
    candidate: Format,
    column_names: Sequence[str],
    columns: Mapping[str, str],
    sample: Sequence[SampleRow] = (),
) -> Format | None:
    """The format with its columns filled in; None where the corpus lacks a required field."""
    free = set(column_names) - set(columns.values())  # no column is two fields
    column_of = {
        field: columns.get(field, field)
        for field in candidate.fields
        if field in columns or (field in free and _can_hold(candidate, field, sample))
    }
    if not all(field in column_of for field in candidate.required):
        return None
    return replace(candidate, columns=column_of)


def _can_hold(candidate: Format, field: str, sample: Sequence[SampleRow]) -> bool:
    """Whether the column that has the name of a field holds such a field, as far as rows show."""
    holds = candidate.extra.get(field, holds_anything)
    values = (sampled.row.get(field) for sampled in sample)
    return all(is_absent(value) or holds(value) for value in values)


def _by_sample(fitting: Sequence[Format], sample: Sequence[SampleRow]) -> list[Format]:
    """The formats whose required fields the sampled rows have, out of several that fit the columns.

    Returns:
        The formats that all rows have; where there is none, the formats that some rows have.

    Raises:
        SfRayError: Some rows have one format, and others have another one only.
    """
    rows_with = {
        f.name: [sampled for sampled in sample if _has_fields(f, sampled.row)] for f in fitting
    }
    everywhere = [f for f in fitting if len(rows_with[f.name]) == len(sample)]
    if everywhere or not sample:
        return everywhere or list(fitting)
    somewhere = [f for f in fitting if rows_with[f.name]]
    for one in somewhere:
        without = [sampled for sampled in sample if sampled not in rows_with[one.name]]
        for other in somewhere:
            if rows := [sampled for sampled in without if sampled in rows_with[other.name]]:
                raise mixed_formats(rows[0], other, f"{rows_with[one.name][0]} is {one.name}")
    return somewhere


def mixed_formats(where: SampleRow, other: Format, rest: str) -> SfRayError:
    """The error about a corpus with several formats.

    Args:
        where: A row whose format is not that of the other rows.
        other: The format of that row.
        rest: The end of the sentence, which names the format of the other rows.
    """
    return SfRayError(
        f"mixed formats in one corpus: {where} is {other.name}, while {rest}; score them "
        "apart (INPUT may be a glob), or convert one of them"
    )


def other_format(own: Format, row: Row) -> Format | None:
    """The format of a row that lacks required fields of the corpus's own format.

    Returns:
        None where the row has the corpus's own format, or no known format.
    """
    if _has_fields(own, row):
        return None
    for candidate in FORMATS:
        fitting = _with_columns(candidate, list(row), {})
        if fitting and candidate.name != own.name and _has_fields(fitting, row):
            return fitting
    return None


def _has_fields(row_format: Format, row: Row) -> bool:
    columns = (row_format.columns[field] for field in row_format.required)
    return not any(is_absent(value_at(row, column)) for column in columns)
