"""The recipes of cluster/schedulers/ run a job on a head, with the scheduler and without it."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.support.corpora import make_rows, write_shards
from tests.support.head_node import ENVIRONMENT, RAY, head_node
from tests.support.schedulers import RECIPES, ROOT, answer_of, python_of, run_of
from tests.support.waiting import HANG_S, wait_until

# The window of the model here; and the head is told of a GPU that does not exist.
SMALL = "--max-length 128 --device cpu"

pytestmark = [pytest.mark.ray, pytest.mark.release]


@pytest.fixture(scope="module")
def job_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with head_node(tmp_path_factory.mktemp("head") / "log") as address:
        yield address


@dataclass(frozen=True)
class Place:
    """Where a recipe runs here: in place of the bucket a folder, of the image this checkout.

    Attributes:
        folder: Holds `corpus`; gets `out`.
        model: A model.
        env: The environment of a scheduler.
    """

    folder: Path
    model: Path
    env: Mapping[str, str]

    def here(self, text: str) -> str:
        return (
            text.replace("s3://bucket/model", f"{self.model} {SMALL}")
            .replace("s3://bucket", str(self.folder))
            .replace("/home/ray/sf_ray", str(ROOT))
        )

    def recipe(self, name: str) -> Path:
        """The recipe, in a folder of its own."""
        file = self.folder / "recipe" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(self.here((RECIPES / name).read_text()))
        return file

    @property
    def manifest(self) -> dict[str, object]:
        read: dict[str, object] = json.loads((self.folder / "out/manifest.json").read_text())
        return read


@pytest.fixture
def place(tmp_path: Path, tiny_model: Path, job_server: str) -> Place:
    write_shards(tmp_path / "corpus", make_rows(120))
    env = ENVIRONMENT | {
        "RAY_API_SERVER_ADDRESS": job_server,
        "RAY_ADDRESS": job_server,
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path / "recipe"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }
    return Place(tmp_path, tiny_model, env)


def break_a_shard(place: Place) -> None:
    (place.folder / "corpus/zz.parquet").write_bytes(b"PAR1 cut short")


@pytest.mark.airflow
def test_airflow_runs_its_recipe_and_passes_the_counts_on(place: Place) -> None:
    break_a_shard(place)  # `--on-bad-shard skip`: the job ends with 3, and the task is done
    folder = place.recipe("sf_ray_dag.py").parent
    migrated = [Path(python_of("airflow")).parent / "airflow", "db", "migrate"]
    subprocess.run(migrated, env=dict(place.env), check=True, capture_output=True, timeout=HANG_S)
    told = answer_of("airflow", folder, "run", env=place.env, timeout_s=HANG_S)
    assert told["errors"] == {}
    assert told["states"] == {"run": "success", "kept": "success"}, told["printed"]
    assert told["kept"] == {
        "request_id": place.manifest["request_id"],
        "rows": 120,
        "kept_rows": 12,
        "skipped_shards": 1,
    }
    assert "done without some shards" in told["printed"]


@pytest.mark.dagster
def test_dagster_runs_its_recipe_and_shows_the_counts(place: Place) -> None:
    break_a_shard(place)
    file = place.recipe("sf_ray_assets.py")
    told = answer_of("dagster", file, "run", env=place.env, timeout_s=HANG_S)
    assert told["success"], told["printed"]
    assert told["version"] == place.manifest["request_id"]
    shown = told["metadata"]
    assert shown["dagster/row_count"] == 12
    assert shown["rows"] == 120
    assert shown["units_scored"] > 0
    assert shown["skipped_shards"] == ["zz.parquet"]


def script(place: Place, name: str, *changes: tuple[str, str]) -> list[str]:
    """The script of the DAG, as Airflow renders it."""
    text = place.here(run_of("sf_ray_dag.py")).replace("{{ ti.id }}", name)
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return ["bash", "-c", text]


@pytest.mark.parametrize(
    ("name", "changes", "code", "words"),
    [
        ("whole", (), 0, "succeeded"),
        ("usage", (("--keep-fraction 0.1", "--keep-fraction 7"),), 2, "wrong usage: see above"),
        ("failed", (("/corpus ", "/no-corpus "),), 1, "no-corpus"),
    ],
)
def test_the_script_ends_as_the_job_did(
    place: Place, name: str, changes: tuple[tuple[str, str], ...], code: int, words: str
) -> None:
    done = subprocess.run(
        script(place, name, *changes),
        env=dict(place.env),
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert words in done.stdout + done.stderr


def status(place: Place, name: str) -> str:
    command = [*RAY, "job", "status", f"sf-ray-{name}"]
    done = subprocess.run(
        command, env=dict(place.env), capture_output=True, text=True, check=False, timeout=HANG_S
    )
    return done.stdout + done.stderr


def started(place: Place, name: str) -> subprocess.Popen[str]:
    """The script, in a process group of its own as Airflow starts it, once its job runs."""
    process = subprocess.Popen(
        script(place, name),
        env=dict(place.env),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )

    def runs() -> bool:
        assert process.poll() is None, process.stdout.read() if process.stdout else ""
        return "RUNNING" in status(place, name)

    wait_until(runs)
    return process


def test_a_task_that_airflow_kills_stops_its_job(place: Place) -> None:
    process = started(place, "killed")
    os.killpg(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=HANG_S)
    assert process.returncode == 143, output
    wait_until(lambda: "was stopped" in status(place, "killed"))


def test_a_job_that_somebody_stopped_is_no_success(place: Place) -> None:
    process = started(place, "stopped")
    command = [*RAY, "job", "stop", "sf-ray-stopped"]
    subprocess.run(command, env=dict(place.env), check=True, capture_output=True, timeout=HANG_S)
    output, _ = process.communicate(timeout=HANG_S)
    assert process.returncode == 1, output
