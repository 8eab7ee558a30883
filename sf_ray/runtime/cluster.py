"""The Ray cluster: join or start one, and size the scoring pool to it."""

import logging
import os
import signal
import socket
import threading
from math import floor

import ray

from sf_ray.errors import SfRayError
from sf_ray.runtime.log import say, worker_environment
from sf_ray.scoring.stages.actor import ActorPool

# What an actor takes of the CPUs that are its own, at least; and what is left beside one that was
# told to take more than that.
_ACTOR_SHARE, _LEAST_LEFT = 0.55, 0.4
# Tasks take parts of a CPU: more processes than CPUs serve them. A local Ray keeps that many more
# when they idle: it would end them after a second, and a new one imports for seconds.
_SPARE_PROCESSES = 8


def start_ray(address: str | None) -> None:
    """Joins the cluster that there is, or starts one on this machine.

    Raises:
        SfRayError: The cluster that was named cannot be joined.
    """
    # Whether tokens guard a cluster is said once by `ray start`, not by every job.
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    # We show our own progress; a warning that resources do not suffice still comes through.
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)
    # A task's failure is told once, as our error; --debug shows the whole chain.
    for name in ("exceptions", "_internal.execution.streaming_executor_state"):
        logging.getLogger(f"ray.data.{name}").setLevel(logging.CRITICAL)
    if ray.is_initialized():
        return
    if address is None and _recorded_cluster_is_gone():
        say("note: the Ray cluster last started on this machine is gone; starting a local one")
        address = "local"
    soft_limit = (os.cpu_count() or 1) + _SPARE_PROCESSES
    os.environ.setdefault("RAY_num_workers_soft_limit", str(soft_limit))
    environment = worker_environment()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address=address,
            include_dashboard=False,  # of a local Ray, which is gone when we are
            logging_level="warning",
            log_to_driver=True,
            runtime_env={"env_vars": environment} if environment else None,
        )
    except (ConnectionError, ValueError) as error:
        raise SfRayError(
            f"no Ray cluster could be joined or started ({str(error).splitlines()[0]}); check "
            "--ray-address and RAY_ADDRESS, or give --ray-address local"
        ) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # Ray's own would end the process in silence


def _recorded_cluster_is_gone() -> bool:
    """Whether `ray.init()` would wait for minutes for a cluster that was killed.

    `ray start` records its address on the machine, and only `ray stop` removes it.
    """
    from ray._private.services import find_bootstrap_address

    recorded = None if os.environ.get("RAY_ADDRESS") else find_bootstrap_address(None)
    if recorded is None:
        return False
    host, _, port = recorded.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError:
        return True
    return False


def resolve_device(device: str) -> str:
    """The device that `auto` stands for: cuda where the cluster has a GPU now."""
    has_gpu = bool(ray.cluster_resources().get("GPU"))
    if device == "auto":
        return "cuda" if has_gpu else "cpu"
    if device == "cuda" and not has_gpu:
        say("note: the cluster has no GPU now; the scoring actors wait until it has one")
    return device


def size_pool(
    device: str,
    units: int,
    actors: tuple[int, int] | None,
    gpus_per_actor: float,
    cpus_per_actor: float | None,
    threads_per_actor: int | None,
) -> tuple[ActorPool, int | None]:
    """The pool of scoring actors, and the threads of each on CPU.

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
    pool = ActorPool(
        min_size=low,
        max_size=high,
        initial_size=low if actors else high,
        num_cpus=round(cpus, 3),
        num_gpus=gpus,
        read_cpus=min(1, floor(left / 2 * 1000) / 1000),
        write_cpus=min(0.5, floor(left / 4 * 1000) / 1000),
    )
    return pool, threads
