"""What a report shows beside the manifest, as summary.json keeps it: a survey, and rows to read.

Its size is bounded: long texts are cut. This module does not know where the file lies. No Ray.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, FiniteFloat, TypeAdapter

from sf_ray.errors import SfRayError
from sf_ray.output.report.answer_lengths import AnswerLengths
from sf_ray.output.report.row_kinds import RowKind, kind_of
from sf_ray.output.report.survey import (
    IFD_BINS,
    IFD_EDGES,
    PPL_EDGES,
    TOKEN_EDGES,
    GroupCounts,
    Survey,
)
from sf_ray.output.report.surveyed_rows import Points
from sf_ray.selection.lengths import LEAST_TOKENS, LENGTHS
from sf_ray.storage.json_files import parse_json
from sf_ray.text.printable import printable_json

_VERSION = 1
# The most that is kept of one row: characters of all texts, and texts.
_MOST_CHARACTERS, _MOST_TEXTS = 2400, 8
# A sum of all counts fits into 64 bits, as it does in a true summary.
Count = Annotated[int, Field(ge=0, lt=2**48)]
# Bytes of the largest summary.json that is read. Ours are of some MB at most.
MOST_BYTES = 1 << 26
# Fields of a survey that are arrays of counts, with their shapes, and those that are numbers.
_BY_IFD = (IFD_BINS + 1,)
_BY_PPL = (len(PPL_EDGES) - 1, len(PPL_EDGES) - 1)
_BY_TOKENS = (len(TOKEN_EDGES) - 1, len(IFD_EDGES) - 1)
_COUNTS = {
    "ok": _BY_IFD,
    "eligible": _BY_IFD,
    "kept": _BY_IFD,
    "ppl": _BY_PPL,
    "by_answer": _BY_TOKENS,
    "by_prompt": _BY_TOKENS,
}
_NUMBERS = ("prompt_tokens", "answer_tokens", "truncated")


@dataclass(frozen=True)
class ShownText:
    """A message of a row, or the value of a field.

    Attributes:
        name: The role, or the field.
        text: The first characters.
        omitted: Characters behind those that are left out.
    """

    name: str
    text: str
    omitted: int = 0

    def cut(self, most: int) -> "ShownText":
        """The same with `most` characters at most."""
        # JSON can hold half of a surrogate pair, which UTF-8 cannot: it becomes a question mark.
        shown = self.text[:most].encode("utf-8", "replace").decode()
        return ShownText(self.name, shown, self.omitted + len(self.text) - len(shown))


@dataclass(frozen=True)
class ShownRow:
    """A row to read.

    Attributes:
        kinds: Why it is shown.
        shard: Path of its shard, below the corpus.
        row: Its number in the shard.
        status: Its status.
        reason: Why the row has no score; "" where it has one.
        is_kept: Whether the output has it.
        scores: Its losses, perplexities, IFD and tokens: those columns of the score table that
            have a value.
        texts: Its messages, or its fields where it cannot be read as an example.
        omitted: How many texts are left out.
    """

    kinds: tuple[RowKind, ...]
    shard: str
    row: int
    status: str
    reason: str
    is_kept: bool
    scores: Mapping[str, float]
    texts: tuple[ShownText, ...]
    omitted: int = 0

    @classmethod
    def of(cls, texts: Sequence[ShownText], **values: Any) -> "ShownRow":
        """Makes a row that is not too long.

        Args:
            texts: All of its texts. Long ones are cut; of many, the first ones and the last stay.
            values: The other attributes.
        """
        shown = [*texts[: _MOST_TEXTS - 1], *texts[-1:]] if len(texts) > _MOST_TEXTS else texts
        most = _MOST_CHARACTERS // max(1, len(shown))
        cut = tuple(text.cut(most) for text in shown)
        return cls(texts=cut, omitted=len(texts) - len(shown), **values)

    @property
    def place(self) -> tuple[str, int]:
        """Shard and row."""
        return self.shard, self.row


@dataclass(frozen=True)
class Summary:
    """What a report shows beside the manifest.

    Attributes:
        survey: Of all rows. One that was read back has no picks: `rows` has what they stand for.
        column: The column whose values the survey counts; "" for none.
        rows: Rows to read.
        unused: Columns that hold text and that no score depends on, as `unused_text` names them.
        answer_lengths: How kept rows and IFD depend on the length of answers; None in a summary of
            an older version.
    """

    survey: Survey
    column: str
    rows: tuple[ShownRow, ...]
    unused: tuple[str, ...] = ()
    answer_lengths: AnswerLengths | None = None

    def rows_of(self, kind: RowKind) -> list[ShownRow]:
        """The rows of a kind, in the kind's order; equal ones by place."""
        sign = -1 if kind.highest_first else 1
        return sorted(
            (row for row in self.rows if kind in row.kinds),
            key=lambda row: (sign * row.scores.get("ifd", 0.0), row.place),
        )

    def to_json(self) -> bytes:
        """The content of summary.json; perplexities and IFD of the points are rounded."""
        survey, lengths = self.survey, self.answer_lengths
        payload = {
            "summary_version": _VERSION,
            "column": self.column,
            **({"unused_columns": self.unused} if self.unused else {}),
            **({"answer_lengths": _lengths_as_json(lengths)} if lengths else {}),
            "rows": [_row_as_json(row) for row in self.rows],
            "groups": None if survey.groups is None else _as_lists(survey.groups),
            "points": [[_short(value) for value in row] for row in survey.points.values.tolist()],
            **{name: getattr(survey, name) for name in _NUMBERS},
            **{name: _sparse(getattr(survey, name)) for name in _COUNTS},
        }
        return printable_json(json.dumps(payload, ensure_ascii=False, allow_nan=False)).encode()

    @classmethod
    def from_json(cls, data: bytes, where: str) -> "Summary":
        """Reads a summary.

        Args:
            data: The content of summary.json.
            where: Where it lies, for the error.

        Raises:
            SfRayError: It is not a summary that this version can read.
        """
        try:
            # Through a model, so that every value has its type: who shows it formats it.
            read = _READ.validate_python(parse_json(data))
            rows = tuple(_row_from_json(row) for row in read.rows)
            lengths = _lengths_from_json(read.answer_lengths) if read.answer_lengths else None
            return cls(_survey_from_json(read), read.column, rows, read.unused_columns, lengths)
        except ValueError:  # a ValidationError is one
            raise SfRayError(
                f"{where} is not a summary that this version of sf_ray can read; run the same "
                "command again after removing it and manifest.json: no row is scored again"
            ) from None


# A whole number stays one, as it is written.
_Whole = Annotated[int, Field(ge=-(2**53), le=2**53)]


class _Row(BaseModel):
    """A row as summary.json has it."""

    kinds: tuple[str, ...]
    shard: str
    row: Count
    status: str
    reason: str
    is_kept: bool
    scores: dict[str, _Whole | FiniteFloat]
    texts: tuple[ShownText, ...]
    omitted: Count = 0


class _Sparse(BaseModel):
    """Counts as `_sparse` writes them."""

    shape: tuple[Count, ...]
    steps: list[Count]
    counts: list[Count]


class _Length(BaseModel):
    """Rows whose answers have one length."""

    least_tokens: Count
    rows: Count
    eligible: Count
    kept: Count
    length_normalised: Count | None


class _Lengths(BaseModel):
    """`AnswerLengths`, as summary.json has it."""

    ifd_rank_correlation: Annotated[float, Field(ge=-1, le=1)] | None
    correlated_rows: Count
    lengths: tuple[_Length, ...]


class _Read(BaseModel):
    """The content of summary.json."""

    summary_version: Literal[1]
    column: str
    # Older versions have none of these two.
    unused_columns: tuple[str, ...] = ()
    answer_lengths: _Lengths | None = None
    rows: tuple[_Row, ...]
    groups: dict[str, tuple[Count, Count, Count]] | None
    points: list[tuple[(FiniteFloat,) * 6]]  # type: ignore[valid-type]
    prompt_tokens: Count
    answer_tokens: Count
    truncated: Count
    ok: _Sparse
    eligible: _Sparse
    kept: _Sparse
    ppl: _Sparse
    by_answer: _Sparse
    by_prompt: _Sparse


_READ = TypeAdapter(_Read)


def _row_as_json(row: ShownRow) -> dict[str, Any]:
    return asdict(row) | {"kinds": [kind.value for kind in row.kinds]}


def _row_from_json(row: _Row) -> ShownRow:
    kinds = tuple(map(kind_of, row.kinds))
    return ShownRow(**{**dict(row), "kinds": kinds})


def _survey_from_json(read: _Read) -> Survey:
    arrays: dict[str, Any]
    arrays = {name: _dense(getattr(read, name), shape) for name, shape in _COUNTS.items()}
    points = np.array(read.points, np.float64).reshape(-1, 6)
    groups = read.groups
    return Survey(
        **arrays,
        **{name: getattr(read, name) for name in _NUMBERS},
        picks={},
        points=Points(np.arange(len(points), dtype=np.uint64), points),
        groups=None
        if groups is None
        else {value: GroupCounts(*counts) for value, counts in groups.items()},
    )


def _lengths_as_json(lengths: AnswerLengths) -> dict[str, Any]:
    """The lengths that occur, each with the tokens that it begins with."""
    columns = {
        "least_tokens": LEAST_TOKENS,
        "rows": lengths.rows,
        "eligible": lengths.eligible,
        "kept": lengths.kept,
        "length_normalised": lengths.normalised,
    }
    return {
        "ifd_rank_correlation": lengths.correlation and _short(lengths.correlation),
        "correlated_rows": lengths.correlated_rows,
        "lengths": [
            {
                name: None if counts is None else int(counts[length])
                for name, counts in columns.items()
            }
            for length in np.flatnonzero(lengths.rows).tolist()
        ],
    }


def _lengths_from_json(read: _Lengths) -> AnswerLengths:
    places = {tokens: length for length, tokens in enumerate(LEAST_TOKENS.tolist())}
    rows, eligible, kept, normalised = np.zeros((4, LENGTHS), np.int64)
    for one in read.lengths:
        if one.least_tokens not in places:
            raise ValueError("counts of other lengths")
        length = places[one.least_tokens]
        rows[length], eligible[length], kept[length] = one.rows, one.eligible, one.kept
        normalised[length] = one.length_normalised or 0
    is_known = all(one.length_normalised is not None for one in read.lengths)
    return AnswerLengths(
        rows,
        eligible,
        kept,
        normalised if is_known else None,
        read.ifd_rank_correlation,
        read.correlated_rows,
    )


def _short(value: float) -> float:
    return float(f"{value:.5g}")


def _as_lists(groups: Mapping[str, GroupCounts]) -> dict[str, list[int]]:
    return {value: [group.rows, group.ok, group.kept] for value, group in groups.items()}


def _sparse(counts: NDArray[np.int64]) -> dict[str, Any]:
    """Counts without the zeros: the steps from one that is not zero to the next, and those."""
    flat = counts.reshape(-1)
    at = np.flatnonzero(flat)
    return {
        "shape": list(counts.shape),
        "steps": np.diff(at, prepend=0).tolist(),
        "counts": flat[at].tolist(),
    }


def _dense(sparse: _Sparse, shape: tuple[int, ...]) -> NDArray[np.int64]:
    flat = np.zeros(shape, np.int64).reshape(-1)
    at = np.cumsum(np.array(sparse.steps, np.float64))  # which overflows into no valid place
    if sparse.shape != shape or len(at) != len(sparse.counts) or (at >= len(flat)).any():
        raise ValueError("counts of other bins")
    flat[at.astype(np.int64)] = sparse.counts
    return flat.reshape(shape)
