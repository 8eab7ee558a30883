"""What of a corpus can be used, once it is known for what: by its columns, and by a sample of rows.

Reads the schemas that the plan has read, and few rows; loads a tokenizer, and no model.
"""

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from sf_ray.config.options import CorpusOptions, ScoringOptions
from sf_ray.config.selection_options import SelectionOptions
from sf_ray.corpus.formats import Format
from sf_ray.corpus.plan_cache import Sample
from sf_ray.corpus.planning import Corpus, bad_shards, say_skipped
from sf_ray.corpus.rows import read_units, refuse_bad_lines
from sf_ray.corpus.sampling import Segment, spread_segments
from sf_ray.corpus.status import BAD, Status
from sf_ray.corpus.tables.read import former_columns_named
from sf_ray.corpus.units import Shard, Unit, group_reads
from sf_ray.corpus.used_columns import different_columns, text_problem
from sf_ray.errors import BadShardError, SfRayError
from sf_ray.scoring.bad_rows import (
    SHOWN,
    BadRow,
    check_bad_fraction,
    count_statuses,
    refuse_without_scores,
)
from sf_ray.selection.group_column import group_problem
from sf_ray.storage.files import map_requests
from sf_ray.text.printable import printable

if TYPE_CHECKING:
    from sf_ray.encoding.specs import EncodingSpec

# Rows of the sample that decides, in places all over the corpus.
_SPREAD_ROWS = 1024


def usable_shards(options: CorpusOptions, corpus: Corpus, row_format: Format) -> Corpus:
    """Refuses shards whose columns cannot hold what is wanted of them, or leaves them out.

    Args:
        options: What to do about bad shards; and of a selection, which columns it uses.
        corpus: The corpus, whose shards may have different schemas.
        row_format: The format of its rows.

    Returns:
        The corpus without the shards that are left out.

    Raises:
        SfRayError: There are such shards, and bad ones are not skipped or no others are left; or
            the order of the output puts rows of shards into one file that do not fit into one.
    """
    bad: dict[Shard, str] = {}
    for schema, shards in corpus.by_schema():
        problem = text_problem(schema, row_format) or _group_problem(options, schema)
        bad |= {shard: problem for shard in shards if problem}
    if len(bad) == sum(len(shards) for _, shards in corpus.by_schema()):
        shard, problem = next(iter(bad.items()))
        others = (
            f"; the other {len(bad) - 1:,} shards cannot be used either" if len(bad) > 1 else ""
        )
        with former_columns_named(corpus.table):
            raise SfRayError(
                f"shard {printable(shard.file.relative)}: {problem}{others}. Choose another column "
                "with --columns, or convert or rename it"
            )
    if bad and options.on_bad_shard == "fail":
        named = {shard.file.relative: problem for shard, problem in bad.items()}
        raise bad_shards(corpus.location, named, len(corpus.shards), skip_bad=False)
    left = corpus.without({shard.shard_id: problem for shard, problem in bad.items()})
    say_skipped(left.skipped, corpus.skipped)
    if isinstance(options, SelectionOptions):
        if options.order == "ifd":
            _refuse_different(left, "--order ifd")
        elif options.file_size is not None:
            _refuse_different(left, "--file-size")
    return left


def _group_problem(options: CorpusOptions, schema: pa.Schema) -> str:
    """What is wrong with the columns of `--quota` and `--report-by`; "" where nothing is."""
    if not isinstance(options, SelectionOptions):
        return ""
    columns = (options.quota.column if options.quota else None, options.report_by)
    return next(filter(None, (group_problem(schema, name) for name in columns if name)), "")


def _refuse_different(corpus: Corpus, flag: str) -> None:
    if different := different_columns(corpus):
        raise SfRayError(
            f"{flag} puts rows of several shards into one file, but {different}. Use --order "
            "input without --file-size, which writes a file for each shard, or convert the shards"
        )


def check_sample(
    options: ScoringOptions, corpus: Corpus, sample: Sample, encoding: "EncodingSpec"
) -> None:
    """Refuses a corpus of which no row, or too few rows, can be scored, before a model is loaded.

    The first rows of a few shards are there already. Only where they give cause for doubt are more
    rows read, from places all over the corpus. `--max-bad-fraction 1` asks for no check.

    Args:
        options: Of a command that scores.
        corpus: The corpus, without bad shards.
        sample: Its first rows.
        encoding: How rows become token ids.

    Raises:
        SfRayError: No row of a sample can be scored, or more of its rows are bad than may be bad
            in the whole corpus.
    """
    most_bad = options.max_bad_fraction * corpus.rows
    if options.max_bad_fraction == 1 or not corpus.rows:
        return
    statuses = encoding.statuses(sample.rows)
    if Status.OK in statuses and sum(status.is_bad for status in statuses) <= most_bad:
        return
    counts: Counter[str] = Counter()
    examples: list[BadRow] = []
    for segment in _spread_rows(options, corpus, encoding):
        shard, unit = segment.shard.file, segment.unit
        encoded = encoding.encode(segment.rows, shard.relative, unit.start)["status"]
        if options.on_bad_line == "fail":
            bad = np.flatnonzero(np.isin(encoded.to_pylist(), BAD)).tolist()
            refuse_bad_lines(corpus.location, shard, unit.start, segment.rows, bad)
        counts.update(count_statuses(encoded))
        without_score = enumerate(encoded.to_pylist(), unit.start)
        examples += [
            BadRow(shard.relative, row, status)
            for row, status in without_score
            if status != Status.OK
        ][: SHOWN - len(examples)]
    bad_examples = [example for example in examples if example.status in BAD]
    check_bad_fraction(corpus, encoding.format, counts, bad_examples, options.max_bad_fraction)
    refuse_without_scores(
        corpus,
        encoding.format,
        counts,
        examples,
        "sampled rows",
        ". --max-bad-fraction 1 scores it all the same",
    )


def _spread_rows(
    options: ScoringOptions, corpus: Corpus, encoding: "EncodingSpec"
) -> Iterator[Segment]:
    """Rows from all over the corpus, or all of a small one.

    Leaves out shards that cannot be read: scoring will report them, and all others like them.
    """

    def read(place: tuple[int, Unit]) -> Segment | None:
        shard, unit = corpus.shards[place[0]], place[1]
        (plan,) = group_reads(shard, [unit])
        try:
            return Segment(shard, unit, next(read_units(corpus.location, plan, encoding.columns)))
        except BadShardError:
            return None

    places = spread_segments([shard.rows for shard in corpus.shards], _SPREAD_ROWS, seed=0)
    return filter(None, map_requests(corpus.location, read, places))
