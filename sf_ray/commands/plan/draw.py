"""Rows that stand for a corpus, encoded in Ray tasks: counted there, or kept for an actor to score.

Reads as a run does, with the same errors; writes nothing, and brings no rows to the driver.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import process_time
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import ray

from sf_ray.commands.plan.estimate import ReadRows, SegmentCounts
from sf_ray.corpus.rows import read_units, refuse_bad_lines
from sf_ray.corpus.sampling import spread_segments
from sf_ray.corpus.status import BAD
from sf_ray.corpus.units import Place, Unit, group_reads
from sf_ray.encoding.encoded_table import sequences_of
from sf_ray.encoding.specs import EncodingSpec
from sf_ray.engine.flops import Work
from sf_ray.errors import BadShardError
from sf_ray.runtime.log import say
from sf_ray.runtime.tasks import parallel_map, parallel_map_stored
from sf_ray.storage.location import Location

# Bounds on the units that are encoded whole, and on the rows of each of them.
_UNITS, _UNIT_ROWS = 6, 4096


class EncodedPlace(NamedTuple):
    """Encoded rows of a place.

    Attributes:
        shard: Path of the shard, relative to the corpus.
        start: Row number in the shard of the first row.
        rows: From `encoded_table`.
        cpu_s: CPU seconds that reading and encoding took.
    """

    shard: str
    start: int
    rows: pa.Table
    cpu_s: float


class StoredUnit(NamedTuple):
    """An encoded unit that is kept for an actor.

    Attributes:
        plain: Work of scoring the unit, by the plain method.
        encoded: Reference to the encoded rows in Ray's object store.
        read: Its rows, and what reading them took.
    """

    plain: Work
    encoded: ray.ObjectRef
    read: ReadRows


@dataclass(frozen=True)
class Reading:
    """How places of a corpus are read and encoded; travels to Ray tasks.

    Attributes:
        corpus: Where the corpus lies.
        encoding: Rows -> token ids; made for workers, so without a loaded encoder.
        skip_bad: Pass over shards that cannot be read, instead of failing.
        skip_bad_lines: Take lines that are no JSON object as rows too, instead of failing.
    """

    corpus: Location
    encoding: EncodingSpec
    skip_bad: bool
    skip_bad_lines: bool

    def encoded(self, places: Sequence[Place]) -> Iterator[EncodedPlace]:
        """Reads and encodes places, in order; places in shards that are passed over are left out.

        Raises:
            BadShardError: A shard cannot be read, and is not to be skipped.
            BadRowError: A line is no JSON object, and is not to be skipped.
        """
        # Ray runs many of these tasks side by side: threads inside each would only be in the way.
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        self.encoding.check()  # loads the tokenizer, so that no place pays for it
        for shard, unit in places:
            start_s = process_time()
            (plan,) = group_reads(shard, [unit])
            try:
                rows = next(read_units(self.corpus, plan, self.encoding.columns))
            except BadShardError:
                if not self.skip_bad:
                    raise
                continue
            encoded = self.encoding.encode(rows, shard.file.relative, unit.start)
            cpu_s = process_time() - start_s
            if not self.skip_bad_lines:
                bad = np.flatnonzero(np.isin(encoded["status"].to_pylist(), BAD)).tolist()
                refuse_bad_lines(self.corpus, shard.file, unit.start, rows, bad)
            yield EncodedPlace(shard.file.relative, unit.start, encoded, cpu_s)


def count_segments(
    reading: Reading, units: Sequence[Place], rows: int, seed: int, stall_s: float
) -> list[SegmentCounts]:
    """Counts the work of segments that are spread over some units.

    Args:
        reading: How to read and encode.
        units: The units, in the order of the corpus.
        rows: Rows of all segments together.
        seed: Another seed draws other segments.
        stall_s: Seconds to wait for the next task.

    Returns:
        The counts of each segment that can be read, in the order of the corpus.
    """
    places = [
        _part_of(units[index], part)
        for index, part in spread_segments([unit.rows for _, unit in units], rows, seed)
    ]
    drawn = sum(part.rows for _, part in places)
    say(f"encoding {drawn:,} rows in {len(places):,} places")
    cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))
    tasks = [task for task in (places[i::cpus] for i in range(cpus)) if task]

    def count(task: Sequence[Place]) -> list[tuple[tuple[str, int], SegmentCounts]]:
        return [
            ((encoded.shard, encoded.start), counts_of(encoded.rows, encoded.cpu_s))
            for encoded in reading.encoded(task)
        ]

    counts_by_place = dict(
        counted for result in parallel_map(count, tasks, stall_s) for counted in result
    )
    if missing := drawn - sum(counts.rows for counts in counts_by_place.values()):
        say(f"note: {missing:,} of {drawn:,} sampled rows lie in shards that cannot be read")
    # Tasks end in any order; sums of floats depend on the order, and must be the same every time.
    return [counts_by_place[place] for place in sorted(counts_by_place)]


def encode_whole(
    reading: Reading, units: Sequence[Place], seed: int, stall_s: float
) -> list[StoredUnit]:
    """Encodes some of the units whole, and keeps their rows in Ray's object store.

    Returns:
        The units that have a token to score, in the order of the corpus.
    """
    places = [
        _part_of(place, Unit(0, min(place.unit.rows, _UNIT_ROWS)))
        for _, span in spread_segments([len(units)], _UNITS, seed)
        for place in units[span.start : span.stop]
    ]

    def encode(
        place: Place,
    ) -> tuple[tuple[tuple[str, int], Work, ReadRows] | None, list[pa.Table | None]]:
        for encoded in reading.encoded([place]):
            work = Work.plain(sequences_of(encoded.rows))
            read = ReadRows(encoded.rows.num_rows, encoded.cpu_s)
            return ((encoded.shard, encoded.start), work, read), [encoded.rows]
        return None, [None]  # the shard is passed over

    units_by_place = {}
    for value, (encoded,) in parallel_map_stored(encode, places, stall_s, 1):
        if value is not None:
            found, work, read = value
            units_by_place[found] = StoredUnit(work, encoded, read)
    stored = [units_by_place[place] for place in sorted(units_by_place)]
    return [unit for unit in stored if unit.plain.tokens]


def _part_of(place: Place, part: Unit) -> Place:
    """Rows of a shard, given as rows of one of its units."""
    start = place.unit.start
    return Place(place.shard, Unit(start + part.start, start + part.stop))


def counts_of(encoded: pa.Table, cpu_s: float) -> SegmentCounts:
    """Counts statuses and work of encoded rows.

    Args:
        encoded: From `encoded_table`.
        cpu_s: CPU seconds that reading and encoding them took.
    """
    sequences_a_row, turns = (
        encoded[name].combine_chunks().value_lengths().to_numpy(zero_copy_only=False)
        for name in ("ids", "conditioned_tokens")
    )
    # Sequences of a row:  conditioned ... conditioned | direct ... direct
    # The direct pass has one sequence a turn: the last `turns` sequences of a row belong to it.
    ends = np.cumsum(sequences_a_row)
    is_direct = np.arange(sequences_a_row.sum()) >= np.repeat(ends - turns, sequences_a_row)
    sequences = sequences_of(encoded)
    conditioned, direct = (
        Work.plain(sequences.take(np.flatnonzero(is_direct == wanted))) for wanted in (False, True)
    )
    statuses = Counter(encoded["status"].to_pylist())
    return SegmentCounts(encoded.num_rows, statuses, conditioned, direct, cpu_s)
