"""Rows that stand for a corpus: read, encoded, and their scores kept as those of a run are.

Knows no Ray and no model.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from sf_ray.corpus.planning import Corpus
from sf_ray.corpus.readers.file_types import FileType
from sf_ray.corpus.rows import first_bad_row, read_units
from sf_ray.corpus.sampling import Segment, spread_segments
from sf_ray.corpus.units import Unit, group_reads
from sf_ray.errors import BadShardError, SfRayError
from sf_ray.runtime.log import say
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

    def read(place: tuple[int, Unit]) -> Segment | None:
        shard, unit = corpus.shards[place[0]], place[1]
        (plan,) = group_reads(shard, [unit])
        try:
            rows = next(read_units(corpus.location, plan, columns))
        except BadShardError as error:
            if not skip_bad:
                raise
            say(f"note: skipping shard {error.shard}: {error.reason}")
            return None
        if corpus.file_type is FileType.JSON and not skip_bad_lines:
            every = range(rows.num_rows)
            if bad := first_bad_row(corpus.location, shard.file, unit.start, rows, every):
                raise bad
        return Segment(shard, unit, rows)

    places = spread_segments([shard.rows for shard in corpus.shards], wanted, seed)
    found = [stretch for stretch in map_requests(corpus.location, read, places) if stretch]
    if not found:
        raise SfRayError(
            f"{corpus.location.public_uri}: not one row of the sample can be read; take another "
            "--seed, or mend the corpus"
        )
    return found


def keep_scores(score_set: ScoreSet, stretches: Sequence[Segment], scores: pa.Table) -> None:
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
