"""The pool of actors: its size on this cluster, and what Ray reserves for each."""

from dataclasses import dataclass
from math import floor
from typing import Any

import ray
from ray.data import ActorPoolStrategy

from sf_ray.config.options import ScoringSpecOptions


@dataclass(frozen=True)
class ActorPool:
    """Size of the pool, and what Ray reserves for each actor and each task beside it.

    Attributes:
        min_size, max_size, initial_size: Actors.
        num_cpus, num_gpus: Of an actor.
        read_cpus, write_cpus: Of a task that feeds the actors, and of one that takes from them.
        threads: With which an actor computes on CPU; None beside a GPU.
    """

    min_size: int
    max_size: int
    initial_size: int
    num_cpus: float
    num_gpus: float
    read_cpus: float
    write_cpus: float
    threads: int | None

    @classmethod
    def of(
        cls,
        options: ScoringSpecOptions,
        device: str,
        units: int,
        actors: tuple[int, int] | None = None,
    ) -> "ActorPool":
        """The pool that the options ask for; see `size_pool`."""
        return size_pool(
            device,
            units,
            actors,
            options.gpus_per_actor,
            options.cpus_per_actor,
            options.threads_per_actor,
        )

    @property
    def for_reading(self) -> float:
        """CPUs of a task that feeds the actors.

        Where the needs of both are equal, Ray fuses reading into the actor, which would then wait
        for storage.
        """
        return self.read_cpus * (0.9 if self.read_cpus == self.num_cpus else 1)

    @property
    def of_bundles(self) -> dict[str, Any]:
        """Options of `map_batches` for actors that take a bundle at a time."""
        return {
            "batch_size": 1,
            "batch_format": "pyarrow",
            "compute": ActorPoolStrategy(
                min_size=self.min_size, max_size=self.max_size, initial_size=self.initial_size
            ),
            "num_cpus": self.num_cpus,
            "num_gpus": self.num_gpus or None,
        }


# What an actor takes of the CPUs that are its own, at least; and what is left beside one that was
# told to take more than that.
_ACTOR_SHARE, _LEAST_LEFT = 0.55, 0.4


def size_pool(
    device: str,
    units: int,
    actors: tuple[int, int] | None = None,
    gpus_per_actor: float = 1.0,
    cpus_per_actor: float | None = None,
    threads_per_actor: int | None = None,
) -> ActorPool:
    """The pool of actors for so many units, on the cluster as it is now.

    One actor a GPU; without GPUs one a node, which computes with all of its CPUs. Ray reserves
    more than half of them for it, so that two never share a small node, and leaves room for tasks
    that read and write: else the actors of a node that was lost would move to the others, fill
    them, and wait for input that nobody can read. No more actors than units.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    node_cpus = [node["CPU"] for node in nodes if node.get("CPU")]
    smallest = min(node_cpus, default=1)
    if device == "cuda":
        places = int(ray.cluster_resources().get("GPU", 0) / gpus_per_actor)
        gpus, threads = gpus_per_actor, None
        # The CPUs of a node that each of its actors may call its own.
        shares = [node.get("CPU", 0) * gpus / node["GPU"] for node in nodes if node.get("GPU")]
        share = min(shares, default=smallest)
        cpus = cpus_per_actor or min(1, _ACTOR_SHARE * share)
    else:
        places, gpus, share = len(node_cpus), 0.0, smallest
        cpus = cpus_per_actor or max(share - 1, _ACTOR_SHARE * share)
        threads = threads_per_actor or max(1, int(cpus_per_actor or smallest))
    # All places at once, where nobody said otherwise; a pool that was asked for grows from MIN.
    low, high = actors or (1, max(1, places))
    high = min(high, units)
    low = min(low, high)
    left = max(share - cpus, _LEAST_LEFT)
    return ActorPool(
        min_size=low,
        max_size=high,
        initial_size=low if actors else high,
        num_cpus=round(cpus, 3),
        num_gpus=gpus,
        read_cpus=min(1, floor(left / 2 * 1000) / 1000),
        write_cpus=min(0.5, floor(left / 4 * 1000) / 1000),
        threads=threads,
    )
