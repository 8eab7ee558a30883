"""One pass over a corpus, mostly in Ray tasks, in which a shard may turn out to be bad.

Does not know what the tasks look at.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import ray

from sf_ray.corpus.units import Place
from sf_ray.errors import ClusterError
from sf_ray.runtime.log import duration
from sf_ray.runtime.signals import watched
from sf_ray.runtime.tasks import StoredResult, parallel_map, parallel_map_stored
from sf_ray.scoring.score_set import ShardUnits, count_units, or_mark
from sf_ray.selection.bitmap import Bitmap
from sf_ray.selection.chunks import Chunk
from sf_ray.storage.location import Location

Value = TypeVar("Value")
Result = TypeVar("Result")

# Units of one task that looks at scores: half a million rows.
UNITS_A_TASK = 256
# Units whose scores are read faster in this process, one after the other, than tasks for them
# start: a worker that is new to them imports for as long as it then reads.
_FEW_UNITS = 2 * UNITS_A_TASK


class MarkedBadError(Exception):
    """Shards were marked bad: what was counted or chosen with their rows is void."""


@dataclass(frozen=True)
class CorpusPass:
    """How to go over a corpus.

    Attributes:
        pieces: The folder of score pieces beside which bad shards are marked.
        skip_bad: Mark a bad shard instead of failing.
        stall_s: Seconds to wait for the next result.
        is_here: Whether to go over it in this process, without tasks.
    """

    pieces: Location
    skip_bad: bool
    stall_s: float
    is_here: bool = False

    def for_scores(self, units: ShardUnits) -> "CorpusPass":
        """The pass for functions that read nothing but score pieces: here, where these are few.

        Shards are always read in tasks: a file of a stranger may end the process that reads it.
        """
        return replace(self, is_here=count_units(units) <= _FEW_UNITS)

    def over(self, function: Callable[[Chunk], Value], chunks: Sequence[Chunk]) -> Iterator[Value]:
        """Applies a function to chunks; yields results as tasks finish, in no fixed order.

        Args:
            function: Takes a chunk; must not return None.
            chunks: The chunks.

        Raises:
            MarkedBadError: Shards were marked; raised after the last result, so that one pass marks
                all bad shards that it meets.
            SfRayError: The function raised it.
        """
        task = functools.partial(_or_none, function, self.pieces, self.skip_bad)
        marked = False
        values = (
            self._here(task, chunks) if self.is_here else parallel_map(task, chunks, self.stall_s)
        )
        for value in values:
            if value is None:
                marked = True
            else:
                yield value
        if marked:
            raise MarkedBadError

    def over_stored(
        self,
        function: Callable[[Chunk], tuple[Value, Sequence[Any]]],
        chunks: Sequence[Chunk],
        stored: int,
    ) -> Iterator[StoredResult[Value]]:
        """Like `over`, with `stored` values of each call left in Ray's object store.

        Args:
            function: Takes a chunk; returns a value for the driver, which must not be None, and the
                values to store.
            chunks: The chunks.
            stored: How many values each call stores.

        Raises:
            MarkedBadError: As in `over`.
            SfRayError: The function raised it.
        """
        task = functools.partial(_or_none, function, self.pieces, self.skip_bad)
        marked = False

        def call(chunk: Chunk) -> tuple[Value | None, Sequence[Any]]:
            # Ray wants as many values of every call.
            return task(chunk) or (None, [None] * stored)

        def call_here(chunk: Chunk) -> StoredResult[Value | None]:
            value, values = call(chunk)
            return StoredResult(value, tuple(map(ray.put, values)))

        results = (
            self._here(call_here, chunks)
            if self.is_here
            else parallel_map_stored(call, chunks, self.stall_s, stored)
        )
        for value, refs in results:
            if value is None:
                marked = True
            else:
                yield StoredResult(value, refs)
        if marked:
            raise MarkedBadError

    def _here(
        self, function: Callable[[Chunk], Result], chunks: Sequence[Chunk]
    ) -> Iterator[Result]:
        """Calls the function in this process, one chunk after the other.

        Raises:
            ClusterError: A chunk has taken longer than tasks are waited for.
        """
        done = 0
        stalled = ClusterError(
            f"no scores have come for {duration(self.stall_s)}: storage may hang; try again, or "
            "raise --stall-s"
        )
        with watched(lambda: done, self.stall_s, stalled):
            for chunk in chunks:
                yield function(chunk)
                done += 1


def _or_none(
    function: Callable[[Chunk], Value], pieces: Location, skip_bad: bool, chunk: Chunk
) -> Value | None:
    """The function's result; None where a shard is bad, and was marked."""
    with or_mark(pieces, skip_bad, (shard for shard, _ in chunk.places)):
        return function(chunk)
    return None


def chunks_of(
    units: ShardUnits, dropped: Bitmap | None = None, units_a_task: int | None = None
) -> list[Chunk]:
    """Groups units, in order, into what one task looks at.

    Args:
        units: The units.
        dropped: Rows that do not count, whatever their scores.
        units_a_task: Units of a chunk, at most; `UNITS_A_TASK` where none is given.
    """
    units_a_task = units_a_task or UNITS_A_TASK
    places = [Place(shard, unit) for shard, shard_units in units for unit in shard_units]
    return [
        Chunk(places[at : at + units_a_task]).without(dropped)
        for at in range(0, len(places), units_a_task)
    ]
