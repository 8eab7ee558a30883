"""Bad rows: counting them, and refusing a corpus or a sample with too many of them.

Knows no Ray and no model. To explain a bad row, it reads the row again from the corpus.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa

from sf_ray.corpus.examples import Problem
from sf_ray.corpus.formats import Format
from sf_ray.corpus.planning import Corpus
from sf_ray.corpus.rows import BadLine, read_units, rows_of
from sf_ray.corpus.sampling import Segment
from sf_ray.corpus.status import BAD, Status
from sf_ray.corpus.units import Unit, group_reads
from sf_ray.errors import SfRayError
from sf_ray.text.printable import printable

# Bad rows that an error shows, and so all that is collected of them.
SHOWN = 3

# What rendering the row again would not show.
_REASONS: Mapping[str, str] = {
    Status.EMPTY_ANSWER: "the answer is empty",
    Status.ANSWER_TOO_SHORT: Status.ANSWER_TOO_SHORT.meaning,
    Status.PROMPT_FILLS_WINDOW: Status.PROMPT_FILLS_WINDOW.meaning,
    Status.NON_FINITE: "the model gives no finite loss",
    Status.ENGINE_ERROR: "the model fails on it",
}


class BadRow(NamedTuple):
    """A row that cannot be used.

    Attributes:
        shard: Relative path of its shard.
        row: Its number in the shard.
        status: What is wrong with it.
    """

    shard: str
    row: int
    status: str


def bad_rows_of(shard: str, numbers: Iterable[int], status: pa.ChunkedArray) -> list[BadRow]:
    """The first bad rows of a unit, `SHOWN` at most.

    Args:
        shard: Relative path of the shard.
        numbers: [rows] numbers of the rows in the shard.
        status: [rows] strings.
    """
    rows = zip(numbers, status.to_pylist(), strict=True)
    return [BadRow(shard, row, value) for row, value in rows if value in BAD][:SHOWN]


def count_statuses(status: pa.ChunkedArray) -> dict[str, int]:
    """Rows by status."""
    return {count["values"]: count["counts"] for count in status.value_counts().to_pylist()}


def only_bad(status_counts: Mapping[str, int]) -> dict[str, int]:
    """Rows by status, of those statuses that are bad and that some row has."""
    return {status: rows for status, rows in status_counts.items() if status in BAD and rows}


def check_bad_fraction(
    corpus: Corpus,
    row_format: Format,
    status_counts: Mapping[str, int],
    examples: Sequence[BadRow],
    max_bad_fraction: float,
) -> None:
    """Refuses a corpus in which too many rows are bad.

    The limit is a fraction of all rows of the corpus, also while only some of them are counted:
    rows that are counted later cannot lift a refusal.

    Args:
        corpus: The corpus.
        row_format: The format that its rows are rendered with.
        status_counts: Rows by status, of those counted so far.
        examples: Some of the bad rows.
        max_bad_fraction: The fraction of rows that may be bad.

    Raises:
        SfRayError: Says how many rows are bad, why, and where some of them are.
    """
    bad = only_bad(status_counts)
    if sum(bad.values()) <= max_bad_fraction * corpus.rows:
        return
    raise SfRayError(
        f"more than {max_bad_fraction:.1%} of {corpus.rows:,} rows cannot be used: "
        f"{_in_words(bad)}, e.g. {_shown(corpus, row_format, examples)}. Mend the corpus, map "
        "other columns with --columns, or allow more with --max-bad-fraction"
    )


def refuse_without_scores(
    corpus: Corpus,
    row_format: Format,
    status_counts: Mapping[str, int],
    examples: Sequence[BadRow],
    what: str,
    instead: str = "",
) -> None:
    """Refuses rows of which none can be scored, whatever `--max-bad-fraction` says.

    Args:
        corpus: The corpus.
        row_format: The format that its rows are rendered with.
        status_counts: Rows by status.
        examples: Some of the rows.
        what: What rows they are, e.g. "sampled rows".
        instead: What else to do, as the end of the sentence.

    Raises:
        SfRayError: Says why the rows cannot be scored, and where some of them are.
    """
    rows = sum(status_counts.values())
    if not rows or status_counts.get(Status.OK):
        return
    there = {status: count for status, count in status_counts.items() if count}
    shown = f", e.g. {_shown(corpus, row_format, examples)}" if examples else ""
    raise SfRayError(
        f"none of {rows:,} {what} can be scored: {_in_words(there)}{shown}; look at --format, "
        f"--columns and --max-length, or mend the corpus{instead}"
    )


def check_bad_rows(segments: Sequence[Segment], scores: pa.Table, max_bad_fraction: float) -> None:
    """Refuses a sample in which too many rows are bad.

    Args:
        segments: The sample.
        scores: Scores of all of its rows, in their order.
        max_bad_fraction: The fraction of its rows that may be bad.

    Raises:
        SfRayError: Says how many rows are bad, and where one of them is.
    """
    bad = only_bad(count_statuses(scores["status"]))
    if sum(bad.values()) <= max_bad_fraction * scores.num_rows:
        return
    places = [
        (segment.shard.file.relative, row)
        for segment in segments
        for row in range(segment.unit.start, segment.unit.stop)
    ]
    statuses = scores["status"].to_pylist()
    shard, row = next(
        place for place, status in zip(places, statuses, strict=True) if status in bad
    )
    raise SfRayError(
        f"more than {max_bad_fraction:.1%} of {scores.num_rows:,} sampled rows cannot be used: "
        f"{_in_words(bad)}, e.g. row {row} of {printable(shard)}. Mend the corpus, map other "
        "columns with --columns, or allow more with --max-bad-fraction"
    )


def _shown(corpus: Corpus, row_format: Format, examples: Sequence[BadRow]) -> str:
    return "; ".join(
        f"row {example.row} of {printable(example.shard)}: {_reason(corpus, row_format, example)}"
        for example in examples
    )


def _in_words(bad: Mapping[str, int]) -> str:
    return ", ".join(f"{rows:,} {status}" for status, rows in sorted(bad.items()))


def _reason(corpus: Corpus, row_format: Format, example: BadRow) -> str:
    """What is wrong with a row; most statuses say it only once the row is rendered again."""
    if example.status in _REASONS:
        return _REASONS[example.status]
    shard = next(shard for shard in corpus.shards if shard.file.relative == example.shard)
    (plan,) = group_reads(shard, [Unit(example.row, example.row + 1)])
    try:
        table: pa.Table = next(read_units(corpus.location, plan, row_format.top_columns))
    except SfRayError as error:
        return f"it cannot be read again ({error})"
    values = next(rows_of(table))
    if isinstance(values, BadLine):
        return values.reason
    rendered = row_format.render(values)
    if isinstance(rendered, Problem):
        return rendered.reason
    return "the template fails on it; the log says where"
