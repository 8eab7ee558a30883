"""A cluster whose nodes have disks of their own: a worker that sees another disk in a folder."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.support.corpora import make_rows, write_shards
from tests.support.storage import contents
from tests.support.waiting import HANG_S, wait_until

pytestmark = pytest.mark.ray

SCORER = Path(__file__).parents[2] / "bench/support/free_scorer.py"
ROWS = 30


def with_own_disk(folder: Path, command: str) -> list[str]:
    """A command that sees an empty disk in place of a folder; all others still see the folder."""
    script = f'mount -t tmpfs none "{folder}" && exec {command}'
    return ["unshare", "--mount", "sh", "-c", script]


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A folder that may be another disk for some processes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        subprocess.run(with_own_disk(folder, "true"), check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"this machine may not mount a disk for one process: {error}")
    return folder


@pytest.fixture
def cluster(disk: Path) -> Iterator["Cluster"]:  # type: ignore[name-defined]  # noqa: F821
    """A head, and a worker with a disk of its own."""
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80 << 20}
    made = Cluster(initialize_head=True, head_node_args=head)
    ray = f'"{Path(sys.executable).with_name("ray")}"'
    start = f"{ray} start --address={made.address} --num-cpus=1 --block --disable-usage-stats"
    log = disk.with_name("worker.log")
    with log.open("w") as output:
        worker = subprocess.Popen(with_own_disk(disk, start), stdout=output, stderr=output)

    def has_joined() -> bool:
        assert worker.poll() is None, log.read_text()
        return "Ray runtime started" in log.read_text()

    wait_until(has_joined, log.read_text)
    yield made
    worker.terminate()
    worker.wait(timeout=HANG_S)
    made.shutdown()


def test_a_place_that_one_node_does_not_see_is_refused_by_name_before_anything_is_scored(
    disk: Path,
    tiny_model: Path,
    cluster: "Cluster",  # type: ignore[name-defined]  # noqa: F821
) -> None:
    corpus, out = write_shards(disk / "corpus", make_rows(ROWS)), disk / "out"
    before = contents(disk)
    command = [sys.executable, str(SCORER), "{}", "run", str(corpus), str(out)]
    command += ["--scores", str(disk / "scores"), "--model", str(tiny_model)]
    command += ["--keep-fraction", "1", "--max-length", "128", "--ray-address", cluster.address]
    run = subprocess.run(command, capture_output=True, text=True, env=os.environ, timeout=HANG_S)
    assert run.returncode == 2, run.stderr
    said = [line.strip() for line in run.stderr.partition("error: ")[2].splitlines()]
    assert [line.split(":")[0] for line in said] == [
        f"INPUT {corpus}", f"OUTPUT {out}", f"SCORES {disk / 'scores'}"
    ]  # fmt: skip
    assert all("All is well on" in line and "a bucket (s3://...)" in line for line in said)
    assert f"has no {corpus}" in said[0]
    assert "does not see what this machine writes there" in said[1]
    assert "scoring" not in run.stderr
    # No token is left, and no folder that was made for one.
    assert contents(disk) == before
    assert [path.name for path in disk.iterdir()] == ["corpus"]
