"""The pool of actors that hold a model: its size on this cluster, and what Ray reserves.

Knows nodes, CPUs and GPUs. Does not know what the actors compute.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor
from typing import Any

import ray
from ray.data import ActorPoolStrategy

from sf_ray.config.options import ScoringSpecOptions

# Fraction of its CPUs that an actor reserves at least: more than half, so that two actors never
# share a small node.
_ACTOR_SHARE = 0.55
# CPUs that are planned for reading and writing even where the user gave all CPUs to the actors.
_LEAST_LEFT = 0.4
# Actors of one node, at most: each holds a model of its own.
_MOST_A_NODE = 8


@dataclass(frozen=True)
class ActorPool:
    """Size of the pool, and what Ray reserves for actors and for the tasks beside them.

    Attributes:
        min_size, max_size, initial_size: Number of actors.
        num_cpus, num_gpus: Reserved for one actor.
        read_cpus: Reserved for a task that reads input for the actors; never equal to `num_cpus`.
        write_cpus: Reserved for a task that writes what the actors made.
        threads: Threads that an actor computes with on CPU; None on GPU.
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
    def map_batches_options(self) -> dict[str, Any]:
        """Keyword arguments of Ray Data's `map_batches`, for actors that take a row at a time."""
        return {
            "batch_size": 1,
            "batch_format": "pyarrow",
            "compute": ActorPoolStrategy(
                min_size=self.min_size, max_size=self.max_size, initial_size=self.initial_size
            ),
            "num_cpus": self.num_cpus,
            "num_gpus": self.num_gpus or None,
        }

    def count_nodes(self, node_cpus: Sequence[float]) -> int:
        """How many nodes the actors fill, the largest first; more than there are if they must.

        Args:
            node_cpus: CPUs of each node.
        """
        rooms = [1]
        if large := sorted((cpus for cpus in node_cpus if cpus >= self.num_cpus), reverse=True):
            rooms = [int(cpus / max(self.num_cpus, min(self.threads or 1, cpus))) for cpus in large]
        left, nodes = self.max_size, 0
        for room in rooms:
            if left > 0:
                left, nodes = left - room, nodes + 1
        return nodes + ceil(max(0, left) / rooms[-1])


def share_nodes(node_cpus: Sequence[float]) -> tuple[float, int]:
    """Decides how many CPUs an actor's work takes, and how many actors there are, without GPUs.

    All actors compute with the same number of threads: a batch that is computed with another
    number has other bits, and a unit must have the same ones on whichever node it is scored. So an
    actor takes all CPUs of a node of one size, and larger nodes have several actors. Of the sizes
    it is the one that keeps most CPUs busy: where a small node is beside a very large one, the
    small one has no actor, and reads and writes.

    Args:
        node_cpus: CPUs of each node that has some.

    Returns:
        CPUs of each actor, and the number of actors; 1 and 0 where no node has a CPU yet.
    """
    shares = sorted(set(node_cpus), reverse=True) or [1]
    actors = {share: sum(actors_of_node(cpus, share) for cpus in node_cpus) for share in shares}
    # The largest of equals, because it takes the fewest models.
    chosen = max(shares, key=lambda share: share * actors[share])
    return chosen, actors[chosen]


def actors_of_node(cpus: float, share: float) -> int:
    """How many actors of a share of CPUs have room on a node."""
    return min(_MOST_A_NODE, int(cpus / share))


def size_pool(
    device: str,
    units: int,
    actors: tuple[int, int] | None = None,
    gpus_per_actor: float = 1.0,
    cpus_per_actor: float | None = None,
    threads_per_actor: int | None = None,
) -> ActorPool:
    """Sizes the pool to the cluster as it is now.

    On CUDA the default is one actor for each GPU; on CPU one for each node, which computes with all
    CPUs of the node, and several on a node that is larger than others (`share_nodes`). An actor on
    CPU leaves part of the node to tasks that read and write: without that room, the actors of a
    lost node would move to the other nodes, fill them, and wait for input that no task can read.

    Args:
        device: "cpu" or "cuda".
        units: Units of work; the pool never has more actors than units.
        actors: Smallest and largest number of actors. Default: 1 to as many as have room.
        gpus_per_actor: GPUs that Ray reserves for an actor on CUDA.
        cpus_per_actor: CPUs that Ray reserves for an actor.
        threads_per_actor: Threads that an actor computes with on CPU.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    node_cpus = [node["CPU"] for node in nodes if node.get("CPU")]
    smallest = min(node_cpus, default=1)
    # `share`: the CPUs of a node divided by the actors that the node has room for.
    if device == "cuda":
        room = int(ray.cluster_resources().get("GPU", 0) / gpus_per_actor)
        gpus, threads = gpus_per_actor, None
        shares = [node.get("CPU", 0) * gpus / node["GPU"] for node in nodes if node.get("GPU")]
        share = min(shares, default=smallest)
        cpus = cpus_per_actor or min(1, _ACTOR_SHARE * share)
    else:
        gpus = 0.0
        share, room = share_nodes(node_cpus)
        cpus = cpus_per_actor or max(share - 1, _ACTOR_SHARE * share)
        threads = threads_per_actor or max(1, int(cpus_per_actor or share))
        if cpus_per_actor:
            room = len(node_cpus)
    low, high = actors or (1, max(1, room))
    high = min(high, units)
    low = min(low, high)
    left = max(share - cpus, _LEAST_LEFT)
    num_cpus = round(cpus, 3)
    read_cpus = min(1, floor(left / 2 * 1000) / 1000)
    if read_cpus == num_cpus:
        # Ray Data would fuse reading into the actor, because both need the same resources, and the
        # actor would wait for storage.
        read_cpus *= 0.9
    return ActorPool(
        min_size=low,
        max_size=high,
        # A pool that was asked for grows from its smallest size; the default starts whole.
        initial_size=low if actors else high,
        num_cpus=num_cpus,
        num_gpus=gpus,
        read_cpus=read_cpus,
        write_cpus=min(0.5, floor(left / 4 * 1000) / 1000),
        threads=threads,
    )
