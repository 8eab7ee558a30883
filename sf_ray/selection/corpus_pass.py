"""One pass over a corpus in Ray tasks, in which a shard may turn out to be bad.

Does not know what the tasks look at.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sf_ray.corpus.units import Place
from sf_ray.runtime.tasks import StoredResult, parallel_map, parallel_map_stored
from sf_ray.scoring.score_set import ShardUnits, or_mark
from sf_ray.selection.bitmap import Bitmap
from sf_ray.selection.chunks import Chunk
from sf_ray.storage.location import Location

Value = TypeVar("Value")

# Units of one task that looks at scores: half a million rows.
UNITS_A_TASK = 256


class MarkedBadError(Exception):
    """Shards were marked bad: what was counted or chosen with their rows is void."""


@dataclass(frozen=True)
class CorpusPass:
    """How to go over a corpus.

    Attributes:
        pieces: The folder of score pieces beside which bad shards are marked.
        skip_bad: Mark a bad shard instead of failing.
        stall_s: Seconds to wait for the next result.
    """

    pieces: Location
    skip_bad: bool
    stall_s: float

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
        for value in parallel_map(task, chunks, self.stall_s):
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

        for value, refs in parallel_map_stored(call, chunks, self.stall_s, stored):
            if value is None:
                marked = True
            else:
                yield StoredResult(value, refs)
        if marked:
            raise MarkedBadError


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
