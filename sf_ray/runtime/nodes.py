"""The nodes of the cluster, and a function that is called once on each.

Does not know what the function finds out.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import wait
from typing import Any, NamedTuple, TypeVar

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sf_ray.errors import ClusterError, SfRayError
from sf_ray.runtime.log import duration
from sf_ray.runtime.tasks import user_errors

Value = TypeVar("Value")

# A node that is busy may take this long to start a process and import this package.
_ANSWER_S = 60.0


class Node(NamedTuple):
    """A node of the cluster.

    Attributes:
        address: Its IP address; several nodes may share it.
        id: Its id in Ray, which is unique.
        host: The name of its machine, or its address once more.
    """

    address: str
    id: str
    host: str = ""

    @property
    def name(self) -> str:
        """By which people know it. Several nodes may share a machine: only the id tells those."""
        host = [self.host] if self.host not in ("", self.address) else []
        return f"{self.address} ({', '.join([*host, 'node ' + self.id[:8]])})"


def alive_nodes() -> list[Node]:
    """The nodes that the cluster has now, by address."""
    return sorted(_node(node) for node in ray.nodes() if node["Alive"])


def working_nodes() -> list[Node]:
    """The nodes that may get tasks or actors, by address.

    Every task and actor of ours takes a part of a CPU, so that a node without any gets none; such a
    node counts only where this process runs on it.
    """
    here = this_node_id()
    return sorted(
        _node(node)
        for node in ray.nodes()
        if node["Alive"] and (node["Resources"].get("CPU") or node["NodeID"] == here)
    )


def this_node_id() -> str:
    """Ray's id of the node on which this is called."""
    node_id: str = ray.get_runtime_context().get_node_id()
    return node_id


def _node(node: dict[str, Any]) -> Node:
    return Node(node["NodeManagerAddress"], node["NodeID"], node.get("NodeManagerHostname", ""))


def on_every_node(
    function: Callable[[], Value],
    timeout_s: float = _ANSWER_S,
    nodes: Sequence[Node] | None = None,
) -> dict[Node, Value | SfRayError]:
    """Calls a function on each node, also on nodes without CPUs.

    The calls reserve nothing, so they need not wait for the work that keeps a node's CPUs. Where
    its process dies, a call is made again.

    Args:
        function: Called in a Ray worker on each node. A function of a module is found there by its
            name; one that is defined in a function travels with its code.
        timeout_s: Seconds to wait for all nodes together.
        nodes: The nodes. Default: all.

    Returns:
        What the function returned on each node; an error where it raised one, where the node could
        not call it, or where it gave no answer in time. Nodes lost meanwhile are left out.
    """
    # A lambda, because it travels with its code, and its annotations would not.
    task = ray.remote(num_cpus=0)(lambda: function())
    # Futures, because a signal ends the wait for a future at once; `ray.get` holds it back.
    waiting = {}
    for node in alive_nodes() if nodes is None else nodes:
        here = NodeAffinitySchedulingStrategy(node.id, soft=False)
        ref = task.options(scheduling_strategy=here).remote()
        waiting[node] = ref, ref.future()
    done, _ = wait([future for _, future in waiting.values()], timeout=timeout_s)
    answers: dict[Node, Value | SfRayError] = {}
    for node, (ref, future) in waiting.items():
        if future not in done:
            ray.cancel(ref, force=True)  # it may hang in a library, which notices nothing else
            answers[node] = ClusterError(f"no answer for {duration(timeout_s)}")
            continue
        try:
            with user_errors():
                answers[node] = future.result()
        except SfRayError as error:
            answers[node] = error
    left = set(alive_nodes())
    return {node: answer for node, answer in answers.items() if node in left}
