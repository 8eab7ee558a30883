"""Formats: in which columns a corpus keeps what, and how its rows become examples.

Knows no tokens, no model, no files.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sf_ray.corpus.examples import Example, Problem, chat_of
from sf_ray.corpus.status import Status
from sf_ray.errors import SfRayError, UsageError

Row = Mapping[str, object]


@dataclass(frozen=True)
class SampleRow:
    """A row of the corpus, and where it stands."""

    shard: str
    number: int
    row: Row

    def __str__(self) -> str:
        return f"row {self.number} of {self.shard}"


@dataclass(frozen=True)
class Format:
    """Which fields a row has, in which columns, and how they render.

    Attributes:
        name: As given to `--format`.
        required: Fields that every row that is scored must have.
        optional: Fields that may be absent or null.
        columns: Field -> column of the corpus, for the fields that the corpus has. A dot leads
            into a nested column.
        make: Field values (None where absent) -> what they come to.
        is_chat: Its fields are no plain texts.
    """

    name: str
    required: tuple[str, ...]
    optional: tuple[str, ...]
    columns: Mapping[str, str]
    make: Callable[[Mapping[str, Any]], Example | Problem]
    is_chat: bool = False

    @property
    def top_columns(self) -> list[str]:
        """The columns to read: of nested ones, those that hold them."""
        return list(dict.fromkeys(_top(column) for column in self.columns.values()))

    def render(self, row: Row) -> Example | Problem:
        """What a row (column -> value) comes to."""
        values = {field: value_at(row, column) for field, column in self.columns.items()}
        for field, value in values.items():
            column = self.columns[field]
            if value is None and field in self.required:
                kind = "null" if _top(column) in row or column in row else "missing"
                return Problem(Status.BAD_ROW, f"{column!r} is {kind}")
            if not (self.is_chat or value is None or isinstance(value, str)):
                kind = "not valid UTF-8" if isinstance(value, bytes) else type(value).__name__
                return Problem(Status.BAD_ROW, f"{column!r} is {kind}, expected text")
        return self.make(dict.fromkeys(self.optional) | values)

    def __str__(self) -> str:
        renamed = [f"{field}={column}" for field, column in self.columns.items() if field != column]
        return f"{self.name} ({', '.join(renamed)})" if renamed else self.name


def value_at(row: Row, path: str) -> object:
    """The value of a column, or of a field in it: `meta.source`. None where there is none."""
    if path in row:
        return row[path]
    head, _, rest = path.partition(".")
    inner = row.get(head)
    return value_at(inner, rest) if rest and isinstance(inner, Mapping) else None


def _top(path: str) -> str:
    return path.partition(".")[0]


def _pair(name: str, prompt: str, answer: str) -> Format:
    """A question and its answer, which may have an input and a system prompt beside them."""

    def make(values: Mapping[str, Any]) -> Example:
        question = values[prompt] + (f"\n{values['input']}" if values["input"] else "")
        return Example.pair(question, values[answer], values["system"] or "", "\n")

    return Format(name, (prompt, answer), ("input", "system"), {}, make)


def _chat(name: str, field: str) -> Format:
    def make(values: Mapping[str, Any]) -> Example | Problem:
        return chat_of(values[field], values["tools"], values["system"])

    return Format(name, (field,), ("tools", "system"), {}, make, is_chat=True)


# "alpaca" renders as the paper does (Superfiltering, `data_analysis.py`): the instruction, a
# newline, the input and a newline where there is one, and no preamble.
FORMATS = (
    _pair("alpaca", "instruction", "output"),
    _pair("instruction-response", "instruction", "response"),
    _pair("question-answer", "question", "answer"),
    Format(
        "prompt-completion",
        ("prompt", "completion"),
        (),
        {},
        lambda values: Example.pair(values["prompt"], values["completion"]),  # as they are
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
    """Finds the format of a corpus and the columns of its fields.

    Args:
        column_names: Columns of the corpus.
        name: A format's name, or "auto" to take the one whose required fields are all columns.
        columns: Field -> column, for fields that lie in a column of another name.
        sample: Some rows, which decide where the columns fit several formats.

    Raises:
        UsageError: `columns` names an unknown field.
        SfRayError: No format fits, or several do, or rows are of several formats, or a named
            column does not exist.
    """
    columns = dict(columns or {})
    candidates = _known(name, columns)
    for field, column in columns.items():
        if column not in column_names and _top(column) not in column_names:
            raise SfRayError(
                f"--columns {field}={column}: the corpus has no column {column!r}; "
                f"it has {list(column_names)}"
            )
    fitting = [f for f in (_with_columns(c, column_names, columns) for c in candidates) if f]
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
    """The formats of this name that have all of these fields."""
    candidates = [f for f in FORMATS if name in ("auto", f.name)]
    known = dict.fromkeys(field for f in candidates for field in f.required + f.optional)
    for field in columns:
        if field not in known:
            raise UsageError(f"--columns: unknown field {field!r}; expected one of {list(known)}")
    # Naming a field's column says that the format is one that has this field.
    return [f for f in candidates if all(c in f.required + f.optional for c in columns)]


def _with_columns(
    candidate: Format, column_names: Sequence[str], columns: Mapping[str, str]
) -> Format | None:
    fields = candidate.required + candidate.optional
    found = {field: columns.get(field, field) for field in fields}
    found = {
        field: column
        for field, column in found.items()
        if field in columns or column in column_names
    }
    if not all(field in found for field in candidate.required):
        return None
    return replace(candidate, columns=found)


def _by_sample(fitting: Sequence[Format], sample: Sequence[SampleRow]) -> list[Format]:
    """Those formats of several whose fields the rows of a sample have.

    Raises:
        SfRayError: Some rows have those of one, and others those of another.
    """
    having = {f.name: [one for one in sample if _has_fields(f, one.row)] for f in fitting}
    everywhere = [f for f in fitting if len(having[f.name]) == len(sample)]
    if everywhere or not sample:
        return everywhere or list(fitting)
    somewhere = [f for f in fitting if having[f.name]]
    for one in somewhere:
        others = [row for row in sample if row not in having[one.name]]
        for other in somewhere:
            if rows := [row for row in others if row in having[other.name]]:
                raise mixed_formats(rows[0], other, f"{having[one.name][0]} is {one.name}")
    return somewhere


def mixed_formats(where: SampleRow, other: Format, rest: str) -> SfRayError:
    """One corpus, several formats."""
    return SfRayError(
        f"mixed formats in one corpus: {where} is {other.name}, while {rest}; score them "
        "apart (INPUT may be a glob), or convert one of them"
    )


def other_format(own: Format, row: Row) -> Format | None:
    """The format that a row has, where it lacks the fields of the corpus's own."""
    if _has_fields(own, row):
        return None
    for candidate in FORMATS:
        fitting = _with_columns(candidate, list(row), {})
        if fitting and candidate.name != own.name and _has_fields(fitting, row):
            return fitting
    return None


def _has_fields(one: Format, row: Row) -> bool:
    return all(value_at(row, one.columns[field]) is not None for field in one.required)
