"""Scores written by hand, and passes over them in this process, without Ray."""

import itertools
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sf_ray.corpus.units import Shard, Unit
from sf_ray.runtime.tasks import StoredResult
from sf_ray.scoring.score_set import ShardUnits
from sf_ray.scoring.score_table import SCORE_SCHEMA
from sf_ray.selection import run
from sf_ray.selection.chunks import Chunk
from sf_ray.selection.corpus_pass import CorpusPass
from sf_ray.selection.read_tables import ReadTables
from sf_ray.storage.listing import File
from sf_ray.storage.location import Location


def shards_of(*rows: int, unit_rows: int) -> ShardUnits:
    """Shards a.parquet, b.parquet, ... of so many rows, cut into units."""
    units, position = [], 0
    for number, shard_rows in enumerate(rows):
        name = f"{chr(ord('a') + number)}.parquet"
        shard = Shard(File(name, name, 1000 * shard_rows, "1"), (shard_rows,), position)
        edges = [*range(0, shard_rows, unit_rows), shard_rows]
        units.append((shard, [Unit(a, b) for a, b in itertools.pairwise(edges)]))
        position += shard_rows
    return units


def write_pieces(scores: Location, units: ShardUnits, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes the score pieces of units; `rows` are those of all units, and may lack columns."""
    left = iter(rows)
    for shard, shard_units in units:
        for unit in shard_units:
            columns = [
                {"shard": shard.file.relative, "row": row, "status": "ok", "truncated": False}
                | dict(next(left))
                for row in range(unit.start, unit.stop)
            ]
            with scores.fs.open(scores.join(shard.piece(unit)).path, "wb") as file:
                pq.write_table(pa.Table.from_pylist(columns, schema=SCORE_SCHEMA), file)
    assert next(left, None) is None, "every row has a unit"


@dataclass(frozen=True)
class InThisProcess:
    """Stands for a `CorpusPass`: calls functions here, from the last chunk to the first.

    What a task takes and gives is pickled, as Ray would.
    """

    pieces: Location | None = None
    skip_bad: bool = False
    stall_s: float = 1.0

    def for_scores(self, units: ShardUnits) -> "InThisProcess":
        return self

    def over(self, function: Callable[[Chunk], Any], chunks: Sequence[Chunk]) -> Iterator[Any]:
        for chunk in reversed(chunks):
            task = pickle.loads(pickle.dumps((function, chunk)))
            yield pickle.loads(pickle.dumps(task[0](task[1])))

    def over_stored(
        self, function: Callable[[Chunk], Any], chunks: Sequence[Chunk], stored: int
    ) -> Iterator[StoredResult[Any]]:
        for value, values in self.over(function, chunks):
            assert len(values) == stored
            yield StoredResult(value, tuple(values))


@contextmanager
def selected_in_this_process() -> Iterator[None]:
    """Within the block `select_rows` starts no Ray, and reads every piece each time."""

    def here(pieces: Location, skip_bad: bool, stall_s: float) -> CorpusPass:
        return cast(CorpusPass, InThisProcess(pieces, skip_bad, stall_s))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "CorpusPass", here)
        patch.setattr(ReadTables, "with_room", lambda rows: None)
        yield
