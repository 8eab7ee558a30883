"""A real `ray job submit` against a head of its own, with the entry points of cluster/*.yaml."""

import json
import shlex
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.support.corpora import make_rows, write_shards
from tests.support.head_node import ENVIRONMENT, RAY, head_node
from tests.support.storage import S3
from tests.support.waiting import HANG_S, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.s3]

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def job_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the job server of a head node, which lives as long as the tests of this file."""
    with head_node(tmp_path_factory.mktemp("head") / "log") as address:
        yield address


@dataclass(frozen=True)
class Jobs:
    """Submits jobs as KubeRay does: one shell line, with the entry point of the manifest.

    Attributes:
        address: Of the job server.
        variables: The environment of the job and its workers.
    """

    address: str
    variables: dict[str, str]

    def submit(self, entrypoint: str, name: str, *options: str) -> subprocess.CompletedProcess[str]:
        runtime_env = shlex.quote(json.dumps({"env_vars": self.variables}))
        where = f"--working-dir {shlex.quote(str(REPOSITORY))} --runtime-env-json {runtime_env}"
        line = f"ray job submit --address {self.address} {where} --submission-id {name}"
        return _run(["bash", "-c", " ".join([line, *options, "--", entrypoint])])

    def ask(self, what: str, name: str) -> str:
        """What `ray job WHAT NAME` prints."""
        done = _run([*RAY, "job", what, "--address", self.address, name])
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=ENVIRONMENT, capture_output=True, text=True, timeout=HANG_S, check=False
    )


@dataclass(frozen=True)
class Bucket:
    """A bucket with a corpus and a model in it."""

    fs: Any
    uri: str

    def pieces(self) -> set[str]:
        """The paths of all score pieces that have been committed."""
        self.fs.invalidate_cache()
        return {path for path in self.fs.find(f"{self.uri}/out/scores") if path.endswith("parquet")}

    def manifest(self) -> Any:
        self.fs.invalidate_cache()
        return json.loads(self.fs.cat(f"{self.uri}/out/manifest.json"))


@pytest.fixture
def bucket(s3: S3, tmp_path: Path, tiny_model: Path) -> Bucket:
    import s3fs

    fs = s3fs.S3FileSystem(**s3.options)
    fs.put(str(write_shards(tmp_path / "corpus", make_rows(72))), f"{s3.bucket}/corpus", True)
    fs.put(str(tiny_model), f"{s3.bucket}/model", True)
    return Bucket(fs, s3.bucket)


@pytest.fixture
def jobs(job_server: str, s3: S3, tmp_path: Path) -> Jobs:
    """Jobs whose environment has the variables of the manifests and the bucket's credentials."""
    given = yaml.safe_load(job_of("rayjob.yaml")["runtimeEnvYAML"])["env_vars"]
    names = {"endpoint_url": "AWS_ENDPOINT_URL", "key": "AWS_ACCESS_KEY_ID"}
    names["secret"] = "AWS_SECRET_ACCESS_KEY"
    keys = {names[key]: str(value) for key, value in s3.options.items()}
    return Jobs(job_server, given | keys | {"SF_RAY_CACHE": str(tmp_path / "cache")})


def job_of(manifest: str) -> Any:
    spec = yaml.safe_load((REPOSITORY / "cluster" / manifest).read_text(encoding="utf-8"))["spec"]
    return spec.get("jobTemplate", spec)


def entrypoint_of(manifest: str, bucket: Bucket) -> str:
    """The manifest's entry point, with the folders, the bucket and the model of this test."""
    entrypoint: str = job_of(manifest)["entrypoint"]
    for place, here in (
        ("/home/ray/sf_ray/", ""),
        ("s3://bucket/", f"{bucket.uri}/"),
        ("--model demo", f"--model {bucket.uri}/model"),
    ):
        entrypoint = entrypoint.replace(place, here)
    return entrypoint


@pytest.mark.release
def test_a_submitted_job_filters_a_bucket(jobs: Jobs, bucket: Bucket) -> None:
    done = jobs.submit(entrypoint_of("laptop.yaml", bucket), "laptop")
    assert done.returncode == 0, done.stdout + done.stderr
    assert bucket.manifest()["selection"]["kept_rows"] == 7
    said = done.stdout + done.stderr
    assert f"{bucket.uri}/out/manifest.json" in said
    assert "succeeded" in said


@pytest.mark.release
def test_what_a_failed_job_says_reaches_who_submitted_it(jobs: Jobs, bucket: Bucket) -> None:
    entrypoint = entrypoint_of("rayjob.yaml", bucket)
    wrong = jobs.submit(entrypoint.replace("--keep-fraction 0.1", "--keep-fraction 10"), "wrong")
    assert wrong.returncode == 1  # whatever the job's own exit code is
    words = "error: --keep-fraction: input should be less than or equal to 1 (got '10')"
    assert words in wrong.stdout + wrong.stderr
    assert words in jobs.ask("logs", "wrong")
    assert "failed with exit code 2" in jobs.ask("status", "wrong")


def test_a_run_that_left_out_bad_shards_can_count_as_done() -> None:
    page = (REPOSITORY / "docs" / "cluster.md").read_text(encoding="utf-8")
    line = "bash -c 'python /home/ray/sf_ray/jobs/run.py ... --on-bad-shard skip || [ $? -eq 3 ]'"
    assert line in page
    command = "python /home/ray/sf_ray/jobs/run.py ... --on-bad-shard skip"
    # What a job makes of its exit code, the test above shows.
    for code, expected in ((3, 0), (2, 1), (0, 0)):
        assert _run(["bash", "-c", line.replace(command, f"(exit {code})")]).returncode == expected


@pytest.mark.release
def test_a_stopped_job_goes_on_and_a_new_shard_costs_only_itself(
    jobs: Jobs, bucket: Bucket, tmp_path: Path
) -> None:
    log = tmp_path / "scored"
    # Slow enough that units are left when `ray job stop`, which takes seconds, arrives.
    settings = shlex.quote(json.dumps({"unit_s": 1, "log": str(log)}))

    def entrypoint(manifest: str) -> str:
        # More units, and a window that the tiny model has. The free scorer needs no real GPU.
        free = entrypoint_of(manifest, bucket).replace(
            "jobs/run.py", f"bench/support/free_scorer.py {settings} run"
        )
        return f"{free} --unit-rows 4 --max-length 128"

    def scored() -> Counter[str]:
        return Counter(line.rsplit(" ", 2)[0] for line in log.read_text().splitlines())

    started = jobs.submit(entrypoint("rayjob.yaml"), "first", "--no-wait")
    assert started.returncode == 0, started.stdout + started.stderr
    wait_until(lambda: len(bucket.pieces()) >= 4, lambda: jobs.ask("logs", "first"))
    jobs.ask("stop", "first")
    last = jobs.ask("logs", "first").strip().splitlines()[-1]
    assert "error: stopped by SIGTERM; the same command goes on where this one was" in last
    bucket.fs.invalidate_cache()
    assert not [path for path in bucket.fs.find(bucket.uri) if "/_lease/" in path]
    assert not bucket.fs.exists(f"{bucket.uri}/out/manifest.json")
    committed, before = bucket.pieces(), scored()
    assert 4 <= len(committed) < 18

    extra = tmp_path / "extra"
    shard = next(write_shards(extra, make_rows(8, seed=1), shards=1).rglob("*.parquet"))
    bucket.fs.put(str(shard), f"{bucket.uri}/corpus/night/00000.parquet")
    night = jobs.submit(entrypoint("nightly.yaml"), "second")
    said = night.stdout + night.stderr
    assert night.returncode == 0, said
    left = 20 - len(committed)
    assert f"20 units, {len(committed)} have scores, {left} to score" in said
    again = scored() - before
    assert again.total() == left
    assert {f"night/00000.parquet {row}" for row in (0, 4)} <= again.keys()
    assert bucket.pieces() > committed
    assert bucket.manifest()["selection"]["kept_rows"] == 8
