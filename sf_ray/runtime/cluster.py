"""The Ray cluster: joins or starts one, and finds the device that it offers."""

import logging
import os
import shlex
import signal
import site
import threading
from pathlib import Path

import ray
from ray._private import ray_constants
from ray._private.runtime_env.uv_runtime_env_hook import _get_uv_run_cmdline
from ray.job_config import JobConfig

from sf_ray.errors import SfRayError, first_line
from sf_ray.runtime.joining import (
    NoClusterError,
    check_cluster,
    check_token_file,
    find_address,
    use_token_of_this_machine,
)
from sf_ray.runtime.log import say, worker_environment
from sf_ray.runtime.versions import check_workers
from sf_ray.text.redaction import redact

# Tasks reserve parts of a CPU, so more processes than CPUs run at once. A local Ray keeps this many
# idle processes beyond its CPUs: it would end them after a second, and a new process imports for
# seconds.
_SPARE_PROCESSES = 8
_UV_HOOK = "RAY_ENABLE_UV_RUN_RUNTIME_ENV"


def start_ray(address: str | None) -> None:
    """Joins a cluster, or starts one on this machine; does nothing where Ray runs already.

    Args:
        address: See `--ray-address`; None for RAY_ADDRESS, then a cluster running on this machine,
            then a local one.

    Raises:
        SfRayError: No cluster could be joined or started, or its workers have other software.
    """
    _quiet_loggers()
    if ray.is_initialized():
        return
    address = _checked(address)
    _refuse_uv_hook()
    _hide_secrets_of_command_line()
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
            job_config=_OwnCode(),
        )
    except Exception as error:  # Ray raises that class itself, e.g. where a node does not start
        raise _not_joined(error) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # Ray's own would end the process in silence
    if address != "local":
        check_workers()
    if not ray.cluster_resources().get("CPU"):
        say(
            "note: the cluster has no CPU now; nothing runs until a node with CPUs joins it "
            "(`ray status` shows its nodes)"
        )


class _OwnCode(JobConfig):  # type: ignore[misc]
    """Lets workers import this package as the driver does, and nothing of the driver's directory.

    By default Ray puts the driver's working directory first in the workers' search path. That may
    be a folder of a stranger, and a file there with the name of a library would run.
    """

    def __init__(self) -> None:
        super().__init__()
        root = str(Path(__file__).parents[2])  # of a checkout, which no worker finds by itself
        if root not in site.getsitepackages():
            self._py_driver_sys_path.append(root)

    def _runtime_env_has_working_dir(self) -> bool:
        return True  # with one, Ray adds no directory of the driver


def _checked(address: str | None) -> str | None:
    """The address to give to Ray: of a cluster that can be joined, or "local".

    Raises:
        SfRayError: The cluster cannot be joined.
    """
    found, source = find_address(address)
    if found is None:
        check_token_file()
        return "local"
    found_here = address in (None, "auto") and not os.environ.get("RAY_ADDRESS")
    if found_here:
        use_token_of_this_machine()
    try:
        check_cluster(found, source)
    except NoClusterError:
        if not found_here or address == "auto":
            raise
        # `ray start` records the address, and only `ray stop` removes it.
        say("note: the Ray cluster last started on this machine is gone; starting a local one")
        return "local"
    return address


def _not_joined(error: Exception) -> SfRayError:
    """The error of a `ray.init` that failed, with the first cause of it."""
    cause: BaseException = error
    while cause.__cause__:
        cause = cause.__cause__
    causes = dict.fromkeys((first_line(error), first_line(cause)))
    return SfRayError(
        f"no Ray cluster could be joined or started ({': '.join(causes)}); check --ray-address and "
        "RAY_ADDRESS, or give --ray-address local"
    )


def _refuse_uv_hook() -> None:
    """Lets workers start as on any cluster, where `uv run` started this process.

    Ray would upload the working directory, and start each worker with `uv run` in the copy: in an
    environment without Ray, unless the directory is a project that has it. Such workers never
    start, and Ray tries again without end.
    """
    if ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV and _UV_HOOK not in os.environ:
        ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV = False  # which Ray reads when it starts
        if _get_uv_run_cmdline():
            say(
                "note: Ray's workers use the Python of their nodes, not `uv run`; set "
                f"{_UV_HOOK}=1 if they are to be started with it"
            )


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


def resolve_device(device: str) -> str:
    """Resolves `--device`: auto becomes cuda where the cluster has a GPU now, else cpu."""
    has_gpu = bool(ray.cluster_resources().get("GPU"))
    if device == "auto":
        return "cuda" if has_gpu else "cpu"
    if device == "cuda" and not has_gpu:
        say("note: the cluster has no GPU now; the scoring actors wait until it has one")
    return device
