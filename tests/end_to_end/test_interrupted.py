"""Drivers and nodes that end in the middle of a run; the same command goes on where it stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.support import free_scorer as scorer_of_nothing
from bench.support.corpora import make_rows, write_shards
from sf_ray.cli import main
from tests.support.cli import Cli
from tests.support.storage import contents
from tests.support.waiting import HANG_S, wait_until

pytestmark = pytest.mark.ray

SCORER = Path(__file__).parents[2] / "bench/support/free_scorer.py"
UNITS = 39


def command(folder: Path, model: Path, out: str) -> list[str]:
    where = ["run", str(folder / "corpus"), str(folder / out), "--model", str(model)]
    return [*where, "--keep-fraction", "0.1", "--max-length", "128", "--unit-rows", "4"]


class Driver:
    """`sf-ray run` with the free scorer, in a process of its own."""

    def __init__(self, folder: Path, model: Path, out: str, *extra: str, unit_s: float = 0) -> None:
        self.out = folder / out
        self.log, self.scored = folder / f"{out}.log", folder / f"{out}.scored"
        settings = json.dumps({"unit_s": unit_s, "log": str(self.scored)})
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(SCORER), settings, *command(folder, model, out), *extra],
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
                stdout=log,
                stderr=log,
            )

    def pieces(self) -> dict[Path, int]:
        """Score pieces, and when each was committed (ns)."""
        try:
            found = [*(self.out / "scores").rglob("*.parquet")]
        except FileNotFoundError:  # a folder that was made to ask whether every node sees it
            return {}
        return {path: path.stat().st_mtime_ns for path in found}

    def scored_after(self, commits: dict[Path, int]) -> list[str]:
        """Units that were scored although they had been committed."""
        when_committed = {}
        for path, when in commits.items():
            shard, _, rows = path.name.removesuffix(".parquet").rsplit(".", 2)
            where = f"{path.parent.name}/{shard}.parquet {int(rows.split('-')[0])}"
            when_committed[where] = when
        scored = [line.rsplit(" ", 2) for line in self.scored.read_text().splitlines()]
        assert when_committed.keys() <= {where for where, _, _ in scored}
        return [where for where, when, _ in scored if int(when) > when_committed.get(where, 2**63)]

    def wait_for_pieces(self, count: int) -> None:
        def are_there() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return len(self.pieces()) >= count

        wait_until(are_there, self.log.read_text)

    def wait(self) -> int:
        return self.process.wait(timeout=HANG_S)

    def contents(self) -> dict[str, bytes]:
        return contents(self.out, "*.parquet")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of 39 units, for all runs of this file."""
    folder = tmp_path_factory.mktemp("interrupted")
    write_shards(folder / "corpus", make_rows(156))
    return folder


@pytest.fixture(scope="module")
def undisturbed(folder: Path, tiny_model: Path, ray_session: None) -> dict[str, bytes]:
    """The files of a run in this process."""
    assert main(command(folder, tiny_model, "undisturbed"), scorer_of_nothing.specs()) == 0
    files = contents(folder / "undisturbed", "*.parquet")
    assert len([path for path in files if path.startswith("scores/")]) == UNITS
    return files


@pytest.mark.release
def test_a_driver_that_ends_early_twice_goes_on_and_scores_no_finished_unit_again(
    folder: Path,
    tiny_model: Path,
    undisturbed: dict[str, bytes],
    sf_ray_cli: Cli,
    free_scorer: Callable[..., None],
) -> None:
    import ray

    def start(address: str) -> Driver:
        return Driver(folder, tiny_model, "ended", "--ray-address", address, unit_s=0.2)

    def is_as_it_was_left(said: str, finished: dict[Path, int]) -> bool:
        again = f"{UNITS} units, {len(finished)} have scores, {UNITS - len(finished)} to score"
        assert again in said
        return {p: when for p, when in driver.pieces().items() if p in finished} == finished

    driver = start(ray.get_runtime_context().gcs_address)
    driver.wait_for_pieces(6)
    driver.process.send_signal(signal.SIGKILL)
    driver.wait()
    time.sleep(2)  # the cluster ends what the driver began
    killed = driver.pieces()
    assert 6 <= len(killed) < UNITS - 6
    assert not (driver.out / "manifest.json").exists()

    driver = start("local")
    driver.wait_for_pieces(len(killed) + 6)
    driver.process.send_signal(signal.SIGTERM)
    signalled = time.monotonic()
    assert driver.wait() == 143, driver.log.read_text()
    last = driver.log.read_text().splitlines()[-1]
    assert last == "error: stopped by SIGTERM; the same command goes on where this one was"
    assert time.monotonic() - signalled < 25  # Kubernetes waits 30 s
    assert not list(driver.out.rglob("_lease/*.json"))
    assert is_as_it_was_left(driver.log.read_text(), killed)
    stopped = driver.pieces()
    assert len(killed) + 6 <= len(stopped) < UNITS
    assert not (driver.out / "manifest.json").exists()

    free_scorer()
    code, _, stderr = sf_ray_cli(*command(folder, tiny_model, "ended"))
    assert code == 0, stderr
    assert is_as_it_was_left(stderr, stopped)
    assert driver.contents() == undisturbed


@pytest.fixture
def cluster() -> Iterator["Cluster"]:  # type: ignore[name-defined]  # noqa: F821
    from ray.cluster_utils import Cluster

    made = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 1,
            "include_dashboard": False,
            "object_store_memory": 80 << 20,
            # A lost node is noticed after 3 s, not 15.
            "_system_config": {
                "health_check_period_ms": 1000,
                "health_check_failure_threshold": 3,
            },
        },
    )
    yield made
    made.shutdown()


@pytest.mark.release
def test_a_node_that_is_lost_changes_nothing(
    folder: Path,
    tiny_model: Path,
    undisturbed: dict[str, bytes],
    cluster: "Cluster",  # type: ignore[name-defined]  # noqa: F821
) -> None:
    lost, _ = (cluster.add_node(num_cpus=2, object_store_memory=80 << 20) for _ in range(2))
    driver = Driver(folder, tiny_model, "node", "--ray-address", cluster.address, unit_s=0.3)
    driver.wait_for_pieces(6)
    finished = driver.pieces()
    cluster.remove_node(lost, allow_graceful=False)
    assert driver.wait() == 0, driver.log.read_text()
    assert driver.contents() == undisturbed
    assert not driver.scored_after(finished)
