"""A real `ray job submit` against a head node of its own."""

import json
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
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
RAY = [sys.executable, "-m", "ray.scripts.scripts"]
# `python` is this environment's, as it is in an image; the head and who submits share a token.
ENVIRONMENT = os.environ | {
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),
}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def job_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the job server of a head node that lives as long as this file's tests."""
    dashboard, gcs, agent, client = (free_port() for _ in range(4))
    log = tmp_path_factory.mktemp("head") / "log"
    # Short, for the sockets in it; and apart, so that no other Ray takes this head for its own.
    temp_dir = tempfile.mkdtemp(prefix="sf-ray-")
    with log.open("w") as output:
        head = subprocess.Popen(
            [*RAY, "start", "--head", "--block", "--num-cpus=2", f"--port={gcs}"]
            + [f"--temp-dir={temp_dir}"]
            + [f"--dashboard-port={dashboard}", "--object-store-memory=200000000"]
            + [f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={client}"],
            stdout=output,
            stderr=output,
            env=ENVIRONMENT,
        )
    address = f"http://127.0.0.1:{dashboard}"
    deadline = time.monotonic() + 90
    try:
        while True:
            try:
                urllib.request.urlopen(f"{address}/api/version", timeout=2)
                break
            except OSError as error:
                if getattr(error, "code", None):  # it answers, though not to us: it is up
                    break
                assert head.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.5)
        yield address
    finally:
        head.send_signal(signal.SIGTERM)
        head.wait(timeout=60)
        shutil.rmtree(temp_dir, ignore_errors=True)


def submit(address: str, script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*RAY, "job", "submit", "--address", address, "--working-dir", str(REPOSITORY)]
        + ["--", "python", f"jobs/{script}.py", *map(str, arguments)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.mark.ray
def test_a_submitted_job_filters_the_corpus(
    job_server: str, corpus: Path, tiny_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    options = ("--model", tiny_model, "--max-length", "128")
    done = submit(job_server, "run", corpus, out, *options, "--keep-count", "7")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((out / "manifest.json").read_text())["selection"]["kept_rows"] == 7
    assert "scores" in done.stdout
    assert "succeeded" in done.stdout + done.stderr

    failed = submit(job_server, "select", corpus, tmp_path / "none", out, "--keep-count", "7")
    assert failed.returncode != 0
    assert "no scores there; make some with `sf-ray score`" in failed.stdout + failed.stderr
