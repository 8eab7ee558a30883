"""The Ray cluster: join or start one, and size the scoring pool to it."""

import logging
import os
import signal
import socket
import threading

import ray

from sf_ray.errors import SfRayError
from sf_ray.runtime.log import say, worker_environment

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
