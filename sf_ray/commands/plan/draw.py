"""Rows that stand for a corpus, encoded in Ray tasks: counted there, or kept for an actor to score.

Reads as a run does, with its errors; writes nothing, and brings no row to the driver.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import process_time
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from sf_ray.commands.plan.estimate import SegmentCounts
from sf_ray.corpus.readers.file_types import FileType, file_type_of
from sf_ray.corpus.rows import first_bad_row, read_units
from sf_ray.corpus.sampling import spread_segments
from sf_ray.corpus.status import BAD
from sf_ray.corpus.units import Shard, Unit, group_reads
from sf_ray.encoding.encoded_table import sequences_of
from sf_ray.encoding.specs import EncodingSpec
from sf_ray.engine.flops import Work
from sf_ray.errors import BadShardError
from sf_ray.runtime.log import say
from sf_ray.runtime.tasks import parallel_map, parallel_map_stored
from sf_ray.storage.location import Location

# Units that are encoded whole, and the rows of each, at most.
_UNITS, _UNIT_ROWS = 6, 4096

Place = tuple[Shard, Unit]


@dataclass(frozen=True)
class Reading:
    """How places of a corpus are read and encoded; travels to Ray tasks.

    Attributes:
        corpus: Where it lies.
        encode: Rows -> token ids; without an encoder of its own.
        skip_bad, skip_bad_lines: Pass over bad shards, and over lines that are no JSON objects.
    """

    corpus: Location
    encode: EncodingSpec
    skip_bad: bool
    skip_bad_lines: bool

    def encoded(self, places: Sequence[Place]) -> Iterator[tuple[Place, pa.Table, float]]:
        """Each place with its encoded rows, and the CPU seconds that they took.

        Raises:
            BadShardError: A shard cannot be read, and is not to be skipped.
            BadRowError: A line is no JSON object, and is not to be skipped.
        """
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # many of these run side by side
        self.encode.check()  # which loads the tokenizer
        for shard, unit in places:
            start_s = process_time()
            (plan,) = group_reads(shard, [unit])
            try:
                rows = next(read_units(self.corpus, plan, self.encode.columns))
            except BadShardError:
                if not self.skip_bad:
                    raise
                continue
            encoded = self.encode.encode(rows, shard.file.relative, unit.start)
            cpu_s = process_time() - start_s
            if not self.skip_bad_lines and file_type_of(shard.file.relative) is FileType.JSON:
                bad = np.flatnonzero(np.isin(encoded["status"].to_pylist(), BAD)).tolist()
                if error := first_bad_row(self.corpus, shard.file, unit.start, rows, bad):
                    raise error
            yield (shard, unit), encoded, cpu_s


def count_segments(
    reading: Reading, units: Sequence[Place], rows: int, seed: int, stall_s: float
) -> list[SegmentCounts]:
    """Counts what stretches come to that are spread over some units.

    Args:
        reading: How.
        units: That stand for each other.
        rows: Of all stretches.
        seed: Another one finds other stretches.
        stall_s: How long to wait for the next task.
    """
    places = [
        (shard, Unit(unit.start + part.start, unit.start + part.stop))
        for which, part in spread_segments([unit.rows for _, unit in units], rows, seed)
        for shard, unit in [units[which]]
    ]
    drawn = sum(part.rows for _, part in places)
    say(f"encoding {drawn:,} rows in {len(places):,} places")
    cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))
    tasks = [part for part in (places[i::cpus] for i in range(cpus)) if part]

    def count(some: Sequence[Place]) -> list[tuple[tuple[str, int], SegmentCounts]]:
        return [
            ((shard.file.relative, part.start), counts_of(encoded, cpu_s))
            for (shard, part), encoded, cpu_s in reading.encoded(some)
        ]

    told = [one for some in parallel_map(count, tasks, stall_s) for one in some]
    if missing := drawn - sum(counts.rows for _, counts in told):
        say(f"note: {missing:,} of {drawn:,} sampled rows lie in shards that cannot be read")
    # In their order, so that sums are the same every time.
    return [counts for _, counts in sorted(told, key=lambda one: one[0])]


def encode_whole(
    reading: Reading, units: Sequence[Place], seed: int, stall_s: float
) -> list[tuple[Work, Any]]:
    """Encodes some of the units whole.

    Returns:
        For each that has a token to score: its work by the plain method, and a reference to its
        encoded rows in the object store.
    """
    places = [
        (shard, Unit(unit.start, min(unit.stop, unit.start + _UNIT_ROWS)))
        for _, span in spread_segments([len(units)], _UNITS, seed)
        for shard, unit in units[span.start : span.stop]
    ]

    def encode(place: Place) -> tuple[tuple[tuple[str, int], Work] | None, list[pa.Table | None]]:
        for (shard, part), encoded, _ in reading.encoded([place]):
            work = Work.plain(sequences_of(encoded))
            return ((shard.file.relative, part.start), work), [encoded]
        return None, [None]

    told = [
        (*first, encoded)
        for first, (encoded,) in parallel_map_stored(encode, places, stall_s, 1)
        if first
    ]
    return [(work, encoded) for _, work, encoded in sorted(told, key=_first) if work.tokens]


def _first(told: tuple[Any, ...]) -> Any:
    return told[0]


def counts_of(encoded: pa.Table, cpu_s: float) -> SegmentCounts:
    """Counts encoded rows.

    Args:
        encoded: From `tables.encoded_table`.
        cpu_s: What they took.
    """
    of_row, turns = (
        encoded[name].combine_chunks().value_lengths().to_numpy(zero_copy_only=False)
        for name in ("ids", "conditioned_tokens")
    )
    # Of each row, the answers on their own come last, one a turn.
    is_direct = np.arange(of_row.sum()) >= np.repeat(np.cumsum(of_row) - turns, of_row)
    sequences = sequences_of(encoded)
    conditioned, direct = (
        Work.plain(sequences[i] for i in np.flatnonzero(is_direct == which))
        for which in (False, True)
    )
    statuses = Counter(encoded["status"].to_pylist())
    return SegmentCounts(encoded.num_rows, statuses, conditioned, direct, cpu_s)
