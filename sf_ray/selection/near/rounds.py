"""The rounds of `greedy` in Ray tasks: a task for each part, and the driver has two bits a row."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import ray

from sf_ray.runtime.tasks import parallel_map
from sf_ray.selection.near.greedy import Settled, State, Verdicts, settle

Part = TypeVar("Part")


def settle_parts(
    judge_part: Callable[[State, Part], Verdicts], parts: Sequence[Part], rows: int, stall_s: float
) -> Settled:
    """Decides over all rows of some parts.

    Args:
        judge_part: What a part says of its open rows.
        parts: References to the rows of the parts.
        rows: All rows of the corpus.
        stall_s: Seconds to wait for the next part.

    Raises:
        SfRayError: A part cannot be read.
    """
    left = dict(enumerate(parts))

    def judge_parts(state: State) -> Iterator[Verdicts]:
        # Tasks of one node share what lies in Ray's object store.
        judge = functools.partial(_judge, judge_part, ray.put(state))
        for number, verdicts in parallel_map(judge, list(left.items()), stall_s):
            if not len(verdicts.blocked):
                del left[number]
            yield verdicts

    return settle(rows, judge_parts)


def _judge(
    judge_part: Callable[[State, Part], Verdicts],
    state: ray.ObjectRef,
    numbered: tuple[int, Part],
) -> tuple[int, Verdicts]:
    number, part = numbered
    return number, judge_part(ray.get(state), part)
