"""One actor that holds the model as a scoring actor does, for `plan` and `probe`.

Knows what an actor reserves on the cluster; not what it is asked to do with the model.
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
    def __init__(self, engine: EngineSpec) -> None:
        self._scorer = engine.start()

    def notes(self) -> Sequence[str]:
        return self._scorer.notes

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(self._scorer, *arguments)


@dataclass(frozen=True)
class ModelActor:
    """An actor whose model is loaded.

    Attributes:
        notes: What people should know about the engine with this model.
    """

    notes: Sequence[str]
    _handle: Any

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Calls a function in the actor, and waits for its result.

        Args:
            function: Takes the actor's `UnitScorer`, then `arguments`.
            arguments: Values that Ray can send; references to values in Ray's object store reach
                the function as the values.

        Raises:
            ClusterError: The actor was lost.
            SfRayError: The function raised it.
        """
        with user_errors():
            return self._handle.call.remote(function, *arguments).future().result()


@contextmanager
def model_actor(
    engine: EngineSpec, pool: ActorPool, stall_s: float, else_do: str = ""
) -> Iterator[ModelActor]:
    """Starts an actor with a model. At the end of the context the actor ends and frees its memory.

    Args:
        engine: How the actor holds the model.
        pool: What Ray reserves for an actor.
        stall_s: Seconds to wait for the model to be loaded.
        else_do: Another way out for the user, as the end of the error, where none is loaded.

    Raises:
        ClusterError: The actor does not start, or is lost.
        SfRayError: The model cannot be loaded.
    """
    handle = ray.remote(num_cpus=pool.num_cpus, num_gpus=pool.num_gpus)(_ModelHolder).remote(engine)
    try:
        with user_errors():
            try:
                # Ray runs an actor's calls after its constructor: an answer means it is loaded.
                notes = handle.notes.remote().future().result(stall_s)
            except TimeoutError:
                raise ClusterError(
                    f"no actor has loaded the model for {duration(stall_s)}: the cluster may lack "
                    f"what a scoring actor needs; look at `ray status`, or raise --stall-s{else_do}"
                ) from None
        yield ModelActor(notes, handle)
    finally:
        ray.kill(handle)
