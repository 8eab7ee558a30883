"""One actor that holds the model as a scoring actor does, for as long as somebody has use for it.

Knows what an actor needs of the cluster; not what it is asked to do with the model.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray

from sf_ray.errors import ClusterError
from sf_ray.runtime.actor_pool import ActorPool
from sf_ray.runtime.log import duration
from sf_ray.runtime.tasks import user_errors
from sf_ray.scoring.engine_spec import EngineSpec


class _ModelHolder:
    def __init__(self, rules: EngineSpec) -> None:
        self._scorer = rules.start()

    def notes(self) -> Sequence[str]:
        return self._scorer.notes

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(self._scorer, *arguments)


@dataclass(frozen=True)
class ModelActor:
    """An actor whose model is loaded.

    Attributes:
        notes: What people should know of the engine with this model.
    """

    notes: Sequence[str]
    _handle: Any

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What a function of a `UnitScorer` and arguments comes to there.

        References to values in the object store arrive as the values.

        Raises:
            ClusterError: The actor was lost.
            SfRayError: What the function raised.
        """
        with user_errors():
            return self._handle.call.remote(function, *arguments).future().result()


@contextmanager
def model_actor(
    rules: EngineSpec, pool: ActorPool, stall_s: float, else_do: str = ""
) -> Iterator[ModelActor]:
    """An actor of its own; it ends, and its memory is free, when the context does.

    Args:
        rules: How it holds the model.
        pool: What Ray reserves for it.
        stall_s: How long to wait for the model to be loaded.
        else_do: What else may be done where it is not.

    Raises:
        ClusterError: It does not start, or is lost.
        SfRayError: The model cannot be loaded.
    """
    handle = ray.remote(num_cpus=pool.num_cpus, num_gpus=pool.num_gpus)(_ModelHolder).remote(rules)
    try:
        with user_errors():
            try:
                notes = handle.notes.remote().future().result(stall_s)
            except TimeoutError:
                raise ClusterError(
                    f"no actor has loaded the model for {duration(stall_s)}: the cluster may lack "
                    f"what a scoring actor needs; look at `ray status`, or raise --stall-s{else_do}"
                ) from None
        yield ModelActor(notes, handle)
    finally:
        ray.kill(handle)
