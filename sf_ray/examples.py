"""Formats: how a row of the corpus becomes a prompt and an answer.

Knows no tokens, no model, no files.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from sf_ray.errors import SfRayError, UsageError


@dataclass(frozen=True)
class Example:
    """One instruction/answer pair as the model sees it."""

    prompt: str
    answer: str

    @property
    def digest(self) -> bytes:
        """[16] bytes that tell this text from any other; copies of an example have the same."""
        text = hashlib.blake2b(digest_size=16)
        for part in (self.prompt, self.answer):
            # Half of a surrogate pair is text for JSON and Python, though not for UTF-8.
            data = part.encode("utf-8", "surrogatepass")
            text.update(len(data).to_bytes(8, "little") + data)
        return text.digest()


@dataclass(frozen=True)
class Format:
    """Which fields a row has, in which columns, and how they render.

    Attributes:
        name: As given to `--format`.
        required: Fields that must be columns, and strings in every row that is scored.
        optional: Fields that may be absent or null.
        columns: Field -> column of the corpus, for the fields that the corpus has.
        template: Field values (optional ones "" where absent) -> Example.
    """

    name: str
    required: tuple[str, ...]
    optional: tuple[str, ...]
    columns: Mapping[str, str]
    template: Callable[[Mapping[str, str]], Example]

    def render(self, row: Mapping[str, object]) -> Example | None:
        """Renders a row (column -> value); None where `problem` has something to say."""
        if self.problem(row):
            return None
        values = {field: str(row.get(column) or "") for field, column in self.columns.items()}
        return self.template(dict.fromkeys(self.optional, "") | values)

    def problem(self, row: Mapping[str, object]) -> str | None:
        """Why a row cannot be rendered: a field that is missing, null or no string."""
        for field, column in self.columns.items():
            value = row.get(column)
            if isinstance(value, str) or (value is None and field in self.optional):
                continue
            if value is None:
                return f"{column!r} is {'null' if column in row else 'missing'}"
            kind = "not valid UTF-8" if isinstance(value, bytes) else f"{type(value).__name__}"
            return f"{column!r} is {kind}, expected text"
        return None


def _alpaca(values: Mapping[str, str]) -> Example:
    """The paper's rendering, without the Alpaca preamble (Superfiltering, `data_analysis.py`)."""
    prompt = values["instruction"] + "\n"
    if values["input"]:
        prompt += values["input"] + "\n"
    return Example(prompt, values["output"])


def _prompt_completion(values: Mapping[str, str]) -> Example:
    return Example(values["prompt"], values["completion"])


_FORMATS = (
    Format("alpaca", ("instruction", "output"), ("input",), {}, _alpaca),
    Format("prompt-completion", ("prompt", "completion"), (), {}, _prompt_completion),
)


def resolve_format(
    column_names: Sequence[str], name: str = "auto", columns: Mapping[str, str] | None = None
) -> Format:
    """Finds the format of a corpus and the columns of its fields.

    Args:
        column_names: Columns of the corpus.
        name: A format's name, or "auto" to take the one whose required fields are all columns.
        columns: Field -> column, for fields that lie in a column of another name.

    Raises:
        UsageError: `columns` names an unknown field.
        SfRayError: No format fits, or several do, or a named column does not exist.
    """
    columns = dict(columns or {})
    candidates = [f for f in _FORMATS if name in ("auto", f.name)]
    known = [field for f in candidates for field in f.required + f.optional]
    for field in columns:
        if field not in known:
            raise UsageError(f"--columns: unknown field {field!r}; expected one of {known}")
    for field, column in columns.items():
        if column not in column_names:
            raise SfRayError(
                f"--columns {field}={column}: the corpus has no column {column!r}; "
                f"it has {list(column_names)}"
            )
    # Naming a field's column says that the format is one that has this field.
    candidates = [f for f in candidates if all(c in f.required + f.optional for c in columns)]

    fitting = []
    for candidate in candidates:
        fields = candidate.required + candidate.optional
        found = {field: columns.get(field, field) for field in fields}
        found = {field: column for field, column in found.items() if column in column_names}
        if all(field in found for field in candidate.required):
            fitting.append((candidate, found))
    if len(fitting) == 1:
        candidate, found = fitting[0]
        return replace(candidate, columns=found)
    has = f"the corpus has the columns {list(column_names)}"
    expected = " or ".join(f"{f.name} {list(f.required)}" for f in _FORMATS)
    if fitting:
        names = " and ".join(f.name for f, _ in fitting)
        raise SfRayError(f"ambiguous format: {has}, which fits {names}; choose with --format")
    wanted = "no known format fits" if name == "auto" else f"--format {name} does not fit"
    raise SfRayError(
        f"{wanted}: {has}; expected {expected}. Map other names with --columns field=column"
    )
