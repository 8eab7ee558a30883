"""The nodes of the cluster, and one function called on each of them. Does not know what for."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

Value = TypeVar("Value")


@dataclass(frozen=True)
class Node:
    """A node that runs tasks.

    Attributes:
        node_id: Ray's id.
        name: Address and host name, for people.
    """

    node_id: str
    name: str


def working_nodes() -> list[Node]:
    """The nodes that are alive and may get tasks or actors, in the order of their names.

    Every task and actor of ours takes a part of a CPU, so that a node without any gets none; such a
    node counts only where this process runs on it.
    """
    here = ray.get_runtime_context().get_node_id()
    nodes = [
        Node(node["NodeID"], _name(node))
        for node in ray.nodes()
        if node["Alive"] and (node["Resources"].get("CPU") or node["NodeID"] == here)
    ]
    return sorted(nodes, key=lambda node: (node.name, node.node_id))


def _name(node: dict[str, Any]) -> str:
    address, host = node.get("NodeManagerAddress", "?"), node.get("NodeManagerHostname", "")
    # Several nodes may share a machine: only the id tells those apart.
    parts = [host] if host and host != address else []
    return f"{address} ({', '.join([*parts, 'node ' + node['NodeID'][:8]])})"


def on_every_node(
    function: Callable[..., Value], arguments: Sequence[Any], nodes: Sequence[Node], limit_s: float
) -> dict[Node, Value]:
    """Calls a function on each node, whether or not the node has a free CPU.

    Args:
        function: Takes the id of the node, then the arguments.
        arguments: Values that Ray can pickle.
        nodes: The nodes.
        limit_s: How long to wait for all of them, in seconds.

    Returns:
        What the nodes answered. One that is lost, or did not answer in time, is left out.
    """
    call = ray.remote(num_cpus=0, max_retries=0)(lambda *given: function(*given))
    shared = [ray.put(argument) for argument in arguments]
    refs = {}
    for node in nodes:
        there = NodeAffinitySchedulingStrategy(node.node_id, soft=False)
        refs[node] = call.options(scheduling_strategy=there).remote(node.node_id, *shared)
    # Futures, because a signal ends the wait for a future at once.
    futures: dict[Node, Future[Value]] = {node: ref.future() for node, ref in refs.items()}
    answers: dict[Node, Value] = {}
    try:
        wait(futures.values(), timeout=limit_s)
        for node, future in futures.items():
            if future.done():
                try:
                    answers[node] = future.result()
                except RayError:  # the node is lost, or cannot start a process
                    continue
    finally:
        for node, ref in refs.items():
            if not futures[node].done():
                ray.cancel(ref, force=True)
    return answers
