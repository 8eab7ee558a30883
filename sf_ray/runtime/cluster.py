"""The Ray cluster: joins or starts one, and finds the device that it offers."""

import logging
import os
import shlex
import signal
import socket
import threading
from pathlib import Path

import ray

from sf_ray.errors import SfRayError
from sf_ray.runtime.log import say, worker_environment
from sf_ray.text.redaction import redact

# Tasks reserve parts of a CPU, so more processes than CPUs run at once. A local Ray keeps this many
# idle processes beyond its CPUs: it would end them after a second, and a new process imports for
# seconds.
_SPARE_PROCESSES = 8


def start_ray(address: str | None) -> None:
    """Joins a cluster, or starts one on this machine; does nothing where Ray runs already.

    Args:
        address: See `--ray-address`; None for RAY_ADDRESS, then a cluster running on this machine,
            then a local one.

    Raises:
        SfRayError: No cluster could be joined or started.
    """
    _quiet_loggers()
    if ray.is_initialized():
        return
    _hide_secrets_of_command_line()
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
            include_dashboard=False,  # a local Ray ends with this process, and its page too
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


def _hide_secrets_of_command_line() -> None:
    """Takes secrets out of the words that this process was started with.

    Every user of the machine can list them, and Ray keeps them with the job: its dashboard shows
    them, and so do the files of its session.
    """
    try:
        words = Path("/proc/self/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:  # a system without /proc
        return
    shown = [redact(word) for word in words]
    if shown != words:
        ray._raylet.setproctitle(shlex.join(shown))


def _quiet_loggers() -> None:
    """Silences what Ray says besides our own progress and errors."""
    # `ray start` says whether tokens guard a cluster; a job need not repeat it.
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    # Warnings stay, e.g. that the cluster lacks resources.
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)
    # The failure of a task ends as one error of ours; --debug shows the whole chain.
    for name in ("exceptions", "_internal.execution.streaming_executor_state"):
        logging.getLogger(f"ray.data.{name}").setLevel(logging.CRITICAL)


def _recorded_cluster_is_gone() -> bool:
    """Whether this machine has the address of a cluster that no longer answers.

    `ray start` records the address, and only `ray stop` removes it: for a cluster that was killed,
    `ray.init()` would wait for minutes.
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
    """Resolves `--device`: auto becomes cuda where the cluster has a GPU now, else cpu."""
    has_gpu = bool(ray.cluster_resources().get("GPU"))
    if device == "auto":
        return "cuda" if has_gpu else "cpu"
    if device == "cuda" and not has_gpu:
        say("note: the cluster has no GPU now; the scoring actors wait until it has one")
    return device
