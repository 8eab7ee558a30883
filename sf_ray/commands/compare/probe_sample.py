"""Rows that stand for a corpus: read, encoded, and their scores kept as those of a run are.

Knows no Ray and no model.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from sf_ray.corpus.planning import Corpus
from sf_ray.corpus.readers.file_types import Kind
from sf_ray.corpus.rows import first_bad_row, read_units
from sf_ray.corpus.sampling import spread_stretches
from sf_ray.corpus.units import Shard, Unit, group_reads
from sf_ray.engine.pending import Usage
from sf_ray.errors import BadShardError, SfRayError
from sf_ray.runtime.log import say
from sf_ray.scoring.score_set import ScoreSet
from sf_ray.scoring.score_table import SCORE_ENCODING, SCORE_SCHEMA
from sf_ray.scoring.stages.tally import UnitCounts
from sf_ray.storage.files import map_requests, put_table


@dataclass(frozen=True)
class Stretch:
    """Rows of a shard that belong to the sample."""

    shard: Shard
    unit: Unit
    rows: pa.Table


def read_stretches(
    corpus: Corpus,
    columns: Sequence[str],
    wanted: int,
    seed: int,
    skip_bad: bool,
    skip_bad_lines: bool,
) -> list[Stretch]:
    """Reads a sample of a corpus, in its order.

    Args:
        corpus: The corpus.
        columns: What to read of it.
        wanted: Rows; all there are where it has no more.
        seed: Another one reads other rows.
        skip_bad: Pass over shards that cannot be read, instead of failing.
        skip_bad_lines: Take lines that are no JSON object as rows too, instead of failing.

    Raises:
        BadShardError, BadRowError: What cannot be read.
        SfRayError: Nothing can.
    """

    def read(place: tuple[int, Unit]) -> Stretch | None:
        shard, unit = corpus.shards[place[0]], place[1]
        (plan,) = group_reads(shard, [unit])
        try:
            rows = next(read_units(corpus.location, plan, columns))
        except BadShardError as error:
            if not skip_bad:
                raise
            say(f"note: skipping shard {error.shard}: {error.reason}")
            return None
        if corpus.kind is Kind.JSON and not skip_bad_lines:
            every = range(rows.num_rows)
            if bad := first_bad_row(corpus.location, shard.file, unit.start, rows, every):
                raise bad
        return Stretch(shard, unit, rows)

    places = spread_stretches([shard.rows for shard in corpus.shards], wanted, seed)
    found = [stretch for stretch in map_requests(corpus.location, read, places) if stretch]
    if not found:
        raise SfRayError(
            f"{corpus.location.public_uri}: not one row of the sample can be read; take another "
            "--seed, or mend the corpus"
        )
    return found


def check_bad_rows(stretches: Sequence[Stretch], scores: pa.Table, max_bad_fraction: float) -> None:
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


def keep_scores(score_set: ScoreSet, stretches: Sequence[Stretch], scores: pa.Table) -> None:
    """Puts the scores of a sample, a piece a stretch, as a run puts those of its units.

    Args:
        score_set: Where they go.
        stretches: The sample.
        scores: Of all of its rows, in order; of which rows they are, it does not say.
    """
    start = 0
    for stretch in stretches:
        shard, unit = stretch.shard, stretch.unit
        columns = {name: scores[name].slice(start, unit.rows) for name in scores.column_names}
        columns["shard"] = pa.repeat(pa.scalar(shard.file.relative), unit.rows)
        columns["row"] = np.arange(unit.start, unit.stop)
        table = pa.table(columns, schema=SCORE_SCHEMA)
        put_table(score_set.pieces.join(shard.piece(unit)), table, SCORE_ENCODING)
        start += unit.rows
