"""Reads a sample of a corpus, and keeps its scores as a run keeps those of its units.

Knows no Ray and no model.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from sf_ray.corpus.planning import Corpus, SkippedShard, say_skipped
from sf_ray.corpus.rows import read_units, refuse_bad_lines
from sf_ray.corpus.sampling import Segment, spread_segments
from sf_ray.corpus.units import Unit, group_reads
from sf_ray.errors import BadShardError, SfRayError
from sf_ray.scoring.score_set import ScoreSet
from sf_ray.scoring.score_table import SCORE_ENCODING, SCORE_SCHEMA
from sf_ray.storage.files import map_requests, put_table


def read_segments(
    corpus: Corpus,
    columns: Sequence[str],
    wanted: int,
    seed: int,
    skip_bad: bool,
    skip_bad_lines: bool,
) -> list[Segment]:
    """Reads segments that are spread over a corpus, in its order.

    Args:
        corpus: The corpus.
        columns: Columns to read.
        wanted: Rows of all segments; all rows of the corpus where it has no more.
        seed: Another seed draws other rows.
        skip_bad: Pass over shards that cannot be read, instead of failing.
        skip_bad_lines: Take lines that are no JSON object as rows too, instead of failing.

    Raises:
        BadShardError, BadRowError: A shard or a line that cannot be read, and is not passed over.
        SfRayError: No segment can be read.
    """

    def read(place: tuple[int, Unit]) -> Segment | None:
        shard, unit = corpus.shards[place[0]], place[1]
        (plan,) = group_reads(shard, [unit])
        try:
            rows = next(read_units(corpus.location, plan, columns))
        except BadShardError as error:
            if not skip_bad:
                raise
            say_skipped([SkippedShard(error.shard, error.reason)])
            return None
        if not skip_bad_lines:
            refuse_bad_lines(corpus.location, shard.file, unit.start, rows, range(rows.num_rows))
        return Segment(shard, unit, rows)

    places = spread_segments([shard.rows for shard in corpus.shards], wanted, seed)
    segments = [segment for segment in map_requests(corpus.location, read, places) if segment]
    if not segments:
        raise SfRayError(
            f"{corpus.name}: not one row of the sample can be read; take another "
            "--seed, or mend the corpus"
        )
    return segments


def keep_scores(score_set: ScoreSet, segments: Sequence[Segment], scores: pa.Table) -> None:
    """Puts the scores of a sample, one piece a segment, as a run puts those of its units.

    Args:
        score_set: Where the pieces go.
        segments: The sample.
        scores: The score table of all rows of the sample, in order. The columns `shard` and `row`
            are not used, because the sample was scored without the places of its rows.
    """
    start = 0
    for segment in segments:
        shard, unit = segment.shard, segment.unit
        columns = {name: scores[name].slice(start, unit.rows) for name in scores.column_names}
        columns["shard"] = pa.repeat(pa.scalar(shard.file.relative), unit.rows)
        columns["row"] = np.arange(unit.start, unit.stop)
        table = pa.table(columns, schema=SCORE_SCHEMA)
        put_table(score_set.pieces.join(shard.piece(unit)), table, SCORE_ENCODING)
        start += unit.rows
