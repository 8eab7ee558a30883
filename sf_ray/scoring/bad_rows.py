"""When too many rows cannot be used: says so, with some of them and what is wrong with them."""

from collections.abc import Mapping, Sequence

import pyarrow as pa

from sf_ray.corpus.examples import Problem
from sf_ray.corpus.formats import Format
from sf_ray.corpus.planning import Corpus
from sf_ray.corpus.rows import BadLine, read_units, rows_of
from sf_ray.corpus.sampling import Segment
from sf_ray.corpus.status import BAD, Status
from sf_ray.corpus.units import Unit, group_reads
from sf_ray.engine.pending import Usage
from sf_ray.errors import SfRayError
from sf_ray.scoring.stages.tally import UnitCounts

_REASONS = {
    Status.EMPTY_ANSWER: "the answer is empty",
    Status.NON_FINITE: "the model gives no finite loss",
    Status.ENGINE_ERROR: "the model fails on it",
}


def check_bad_fraction(
    corpus: Corpus,
    row_format: Format,
    status_counts: Mapping[str, int],
    examples: Sequence[tuple[str, int, str]],
    max_bad_fraction: float,
) -> None:
    """Refuses a corpus of which more than a fraction is bad.

    The fraction is one of all rows, so that what is counted while rows are still being scored can
    only be right.

    Args:
        corpus: The corpus.
        row_format: How its rows render.
        status_counts: Rows by status, of those counted so far.
        examples: (shard, row, status) of some bad ones.
        max_bad_fraction: How many may be bad.

    Raises:
        SfRayError: Says how many, why, and where some of them are.
    """
    bad = {status: rows for status, rows in status_counts.items() if status in BAD and rows}
    if sum(bad.values()) <= max_bad_fraction * corpus.rows:
        return
    kinds = ", ".join(f"{rows:,} {status}" for status, rows in sorted(bad.items()))
    shown = "; ".join(
        f"row {row} of {shard}: {_reason(corpus, row_format, shard, row, status)}"
        for shard, row, status in examples
    )
    raise SfRayError(
        f"more than {max_bad_fraction:.1%} of {corpus.rows:,} rows cannot be used: {kinds}, e.g. "
        f"{shown}. Mend the corpus, map other columns with --columns, or allow more with "
        "--max-bad-fraction"
    )


def _reason(corpus: Corpus, row_format: Format, relative: str, row: int, status: str) -> str:
    if status in _REASONS:
        return _REASONS[Status(status)]
    shard = next(shard for shard in corpus.shards if shard.file.relative == relative)
    columns = row_format.top_columns
    plan = group_reads(shard, [Unit(row, row + 1)])[0]
    try:
        table: pa.Table = next(read_units(corpus.location, plan, columns))
    except SfRayError as error:
        return f"it cannot be read again ({error})"
    values = next(rows_of(table))
    if isinstance(values, BadLine):
        return values.reason
    problem = row_format.render(values)
    return (
        problem.reason
        if isinstance(problem, Problem)
        else "the template fails on it; the log says where"
    )


def check_bad_rows(stretches: Sequence[Segment], scores: pa.Table, max_bad_fraction: float) -> None:
    """Refuses a sample of which more than a fraction is bad.

    Args:
        stretches: The sample.
        scores: Of all of its rows, in order.
        max_bad_fraction: Of its rows, how many may be bad.

    Raises:
        SfRayError: Says how many, and where one of them is.
    """
    bad = UnitCounts.of(scores, Usage()).bad
    if sum(bad.values()) <= max_bad_fraction * scores.num_rows:
        return
    places = [
        (stretch.shard.file.relative, row)
        for stretch in stretches
        for row in range(stretch.unit.start, stretch.unit.stop)
    ]
    statuses = scores["status"].to_pylist()
    shard, row = next(p for p, status in zip(places, statuses, strict=True) if status in bad)
    kinds = ", ".join(f"{rows:,} {status}" for status, rows in sorted(bad.items()))
    raise SfRayError(
        f"more than {max_bad_fraction:.1%} of {scores.num_rows:,} sampled rows cannot be used: "
        f"{kinds}, e.g. row {row} of {shard}. Mend the corpus, map other columns with --columns, "
        "or allow more with --max-bad-fraction"
    )
