"""A head of Ray of its own, with the server that takes jobs."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.waiting import HANG_S

RAY = [sys.executable, "-m", "ray.scripts.scripts"]
# `python` and `ray` are those of this environment, as in an image. The head and the clients that
# submit jobs share a token.
ENVIRONMENT = os.environ | {
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",  # a head would wait half a minute before it ends
}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def head_node(log: Path) -> Iterator[str]:
    """A head node; the address of its job server.

    Ray is told of a GPU that does not exist; nothing in these tests computes on it.

    Args:
        log: File for what the head prints.
    """
    dashboard, gcs, agent, client = (free_port() for _ in range(4))
    # A short path, because the paths of sockets are limited; and a folder of its own, so that no
    # other Ray on this machine joins this head.
    temp_dir = tempfile.mkdtemp(prefix="sf-ray-")
    with log.open("w") as output:
        head = subprocess.Popen(
            [*RAY, "start", "--head", "--block", "--num-cpus=2", "--num-gpus=1", f"--port={gcs}"]
            + [f"--temp-dir={temp_dir}"]
            + [f"--dashboard-port={dashboard}", "--object-store-memory=200000000"]
            + [f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={client}"],
            stdout=output,
            stderr=output,
            env=ENVIRONMENT,
        )
    address = f"http://127.0.0.1:{dashboard}"
    deadline = time.monotonic() + HANG_S
    try:
        while True:
            try:
                urllib.request.urlopen(f"{address}/api/version", timeout=2)
                break
            except OSError as error:
                if getattr(error, "code", None) == 401:  # the server is up, and asks for the token
                    break
                assert head.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
        yield address
    finally:
        head.send_signal(signal.SIGTERM)
        head.wait(timeout=HANG_S)
        shutil.rmtree(temp_dir, ignore_errors=True)
