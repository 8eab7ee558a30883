"""One run as those see it who watch it: the lines of its log, and what a Prometheus scrapes."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from bench.support.corpora import make_rows, write_shards
from bench.support.free_scorer import POISON
from sf_ray.runtime.metrics import METRICS
from tests.support.waiting import HANG_S

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]
SCORER = Path(__file__).parents[2] / "bench/support/free_scorer.py"


@dataclass(frozen=True)
class Watched:
    """A short run that joined the cluster, ended, and left these.

    Attributes:
        lines: Its standard error.
        out: Its standard output.
        scraped: Metrics by name, as the cluster's endpoint gave them afterwards.
    """

    lines: list[str]
    out: str
    scraped: dict[str, Metric]

    def samples(self, name: str, **labels: str) -> dict[str, float]:
        """Values by name of the sample, of this run."""
        return {
            sample.name: sample.value
            for sample in self.scraped[name].samples
            if labels.items() <= sample.labels.items()
        }


@pytest.fixture(scope="module")
def watched(
    ray_session: None, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Watched:
    import ray

    rows = make_rows(120)
    rows[100]["output"] = f"a spoon of {POISON}"
    folder = tmp_path_factory.mktemp("watched")
    corpus = write_shards(folder / "corpus", rows)
    done = subprocess.run(
        [sys.executable, SCORER, json.dumps({"on_poison": "raise"}), "score", corpus]
        + [folder / "scores", "--model", tiny_model, "--max-length", "128", "--unit-rows", "16"]
        + ["--ray-address", ray.get_runtime_context().gcs_address, "--log-format", "json"],
        capture_output=True,
        text=True,
        timeout=HANG_S,
        env=os.environ | {"PYTHONPATH": str(SCORER.parent.parent)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    node = ray.nodes()[0]
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    return Watched(done.stderr.splitlines(), done.stdout, dict(scrape(url)))


def scrape(url: str) -> Iterator[tuple[str, Metric]]:
    """The endpoint's metrics by name, once it has those of a run and of the node."""
    deadline = time.monotonic() + HANG_S
    while True:
        text = urllib.request.urlopen(url, timeout=10).read().decode()
        if all(name in text for name in ("ray_sf_ray_units_total", "ray_node_cpu_utilization")):
            break
        assert time.monotonic() < deadline, text
        time.sleep(1)
    for family in text_string_to_metric_families(text):
        yield family.name, family


@pytest.mark.release
def test_every_line_is_an_object_of_the_same_run(watched: Watched) -> None:
    said = [json.loads(line) for line in watched.lines]
    assert len({line["run_id"] for line in said}) == 1
    assert all(line["time"] and line["level"] and line["message"] for line in said)
    first = said[0]
    assert (first["message"], first["command"]) == ("sf-ray score", "score")
    assert first["ray"].startswith("2.")
    stages = {line["stage"]: line["seconds"] for line in said if "seconds" in line}
    assert stages.keys() == {"plan", "prepare", "score"}
    # What Ray's own parts write to the file descriptor is a line as well.
    assert any("core_worker.cc" in line["message"] and line["level"] == "ERROR" for line in said)
    assert any(line.startswith("120 rows have scores") for line in watched.out.splitlines())


@pytest.mark.release
def test_what_a_worker_says_arrives_with_its_fields(watched: Watched) -> None:
    notes = [json.loads(line) for line in watched.lines if "arsenic" in line]
    assert len(notes) == 1
    note = notes[0]
    assert note["message"].startswith("the engine fails on 1 rows of train/00002.parquet")
    assert (note["level"], note["shard"], note["rows"]) == ("WARNING", "train/00002.parquet", 1)
    assert note["unit"].startswith("train/00002.")
    assert "ScoreUnits" in note["worker"]
    assert int(note["pid"]) > 0
    assert note["run_id"] == json.loads(watched.lines[0])["run_id"]


@pytest.mark.release
def test_the_metrics_of_a_short_run_arrive_whole(watched: Watched, tiny_model: Path) -> None:
    run_id = json.loads(watched.lines[0])["run_id"]

    def value(name: str, **labels: str) -> float:
        return watched.samples(name, run_id=run_id, **labels)[METRICS[name[4:]].exported]

    assert value("ray_sf_ray_rows", status="ok", model=str(tiny_model)) == 119
    assert value("ray_sf_ray_rows", status="engine_error") == 1
    assert value("ray_sf_ray_units") == 9
    assert value("ray_sf_ray_run_rows") == 120
    assert value("ray_sf_ray_run_units") == 9
    assert value("ray_sf_ray_run_rows_left") == value("ray_sf_ray_run_units_left") == 0


@pytest.mark.release
def test_the_dashboard_finds_its_metrics_of_nodes(watched: Watched) -> None:
    from tests.support.dashboard import PANELS, parsed, selectors

    asked = {
        selector.name
        for panel in PANELS
        for target in panel["targets"]
        for selector in selectors(parsed(target["expr"]))
        if not selector.name.startswith("ray_sf_ray_")
    }
    without_gpu = {name for name in asked if not name.startswith(("ray_node_gpu", "ray_node_gram"))}
    assert without_gpu <= watched.scraped.keys()
    assert len(without_gpu) > 5
