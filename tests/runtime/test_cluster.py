import ast
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray._private import ray_constants, services

from sf_ray.errors import SfRayError
from sf_ray.runtime import cluster
from sf_ray.runtime.cluster import resolve_device, start_ray
from sf_ray.runtime.joining import NoClusterError
from sf_ray.runtime.log import LogSettings, use_log_settings


class FakeRay:
    """Stands for Ray where only the arguments of `ray.init` matter."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.inits: list[dict[str, Any]] = []
        self.checked: list[str] = []
        self.workers_checked = self.tokens_used = 0
        self.recorded: str | None = None
        self.refused: SfRayError | None = None
        self.error: Exception | None = None
        self.cpus = 2.0
        monkeypatch.setattr(ray, "is_initialized", lambda: False)
        monkeypatch.setattr(ray, "init", self._init)
        monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": self.cpus})
        monkeypatch.setattr(services, "find_bootstrap_address", lambda _: self.recorded)
        monkeypatch.setattr(services, "find_gcs_addresses", set)
        monkeypatch.setattr(cluster, "check_cluster", self._check)
        monkeypatch.setattr(cluster, "check_workers", self._check_workers)
        monkeypatch.setattr(cluster, "use_token_of_this_machine", self._use_token)

    def _init(self, **arguments: Any) -> None:
        self.inits.append(arguments)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # Ray sets a handler of its own
        if self.error:
            raise self.error

    def _check(self, address: str, source: str) -> None:
        self.checked.append(f"{source} {address}")
        if self.refused:
            raise self.refused

    def _use_token(self) -> None:
        self.tokens_used += 1

    def _check_workers(self) -> None:
        self.workers_checked += 1


@pytest.fixture
def fake_ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRay]:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_num_workers_soft_limit", "10")  # or `start_ray` would set it for good
    loggers = [logging.getLogger("ray._private.authentication"), logging.getLogger("ray.data")]
    levels = [logger.level for logger in loggers]
    handler = signal.getsignal(signal.SIGTERM)
    use_log_settings(LogSettings("text", "r1"))
    yield FakeRay(monkeypatch)
    signal.signal(signal.SIGTERM, handler)
    use_log_settings(LogSettings("text", "r1"))
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def test_ray_keeps_our_handler_of_sigterm(fake_ray: FakeRay) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    start_ray("local")
    assert fake_ray.inits[0]["address"] == "local"
    assert signal.getsignal(signal.SIGTERM) is handler


def test_workers_get_the_settings_of_a_json_log(fake_ray: FakeRay) -> None:
    start_ray("local")
    use_log_settings(LogSettings("json", "r1"))
    start_ray("local")
    text, as_json = (arguments["runtime_env"] for arguments in fake_ray.inits)
    assert text is None
    assert as_json == {"env_vars": {"SF_RAY_LOG_FORMAT": "json", "SF_RAY_RUN_ID": "r1"}}


def test_without_any_cluster_a_local_one_is_started(fake_ray: FakeRay) -> None:
    start_ray(None)
    assert fake_ray.inits[0]["address"] == "local"
    assert fake_ray.checked == []
    assert fake_ray.workers_checked == 0  # they are this machine's own


def test_a_recorded_cluster_that_is_gone_is_not_waited_for(
    fake_ray: FakeRay, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_ray.recorded, fake_ray.refused = "10.0.0.7:6379", NoClusterError("nothing there")
    start_ray(None)
    assert fake_ray.inits[0]["address"] == "local"
    assert "is gone; starting a local one" in capsys.readouterr().err


def test_a_recorded_cluster_that_answers_is_joined(fake_ray: FakeRay) -> None:
    fake_ray.recorded = "10.0.0.7:6379"
    start_ray(None)
    assert fake_ray.inits[0]["address"] is None
    assert fake_ray.checked == ["the cluster last started on this machine, 10.0.0.7:6379"]
    assert fake_ray.workers_checked == fake_ray.tokens_used == 1


def test_a_recorded_cluster_that_differs_is_refused_and_not_replaced(fake_ray: FakeRay) -> None:
    fake_ray.recorded, fake_ray.refused = "10.0.0.7:6379", SfRayError("another Ray")
    with pytest.raises(SfRayError, match="another Ray"):
        start_ray(None)
    assert fake_ray.inits == []


@pytest.mark.parametrize("address", [None, "auto"])
def test_an_address_in_the_environment_is_checked_before_ray_waits_for_it(
    fake_ray: FakeRay, monkeypatch: pytest.MonkeyPatch, address: str | None
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "ray-head:6379")
    fake_ray.recorded, fake_ray.refused = "10.0.0.7:6379", NoClusterError("nothing there")
    with pytest.raises(SfRayError, match="nothing there"):
        start_ray(address)
    assert fake_ray.checked == ["RAY_ADDRESS ray-head:6379"]
    assert fake_ray.tokens_used == 0  # an address may be anybody's: Ray sends no token there either
    assert fake_ray.inits == []


def test_auto_without_a_cluster_is_refused(fake_ray: FakeRay) -> None:
    with pytest.raises(SfRayError, match="auto: no Ray cluster runs on this machine; start one"):
        start_ray("auto")


def test_a_cluster_that_cannot_be_joined_is_said_with_its_first_cause(fake_ray: FakeRay) -> None:
    fake_ray.error = ConnectionError("no answer\nand many lines of advice")
    fake_ray.error.__cause__ = RuntimeError("the raylet died\nlast lines of its log")
    with pytest.raises(SfRayError) as raised:
        start_ray("ray-head:6379")
    assert str(raised.value) == (
        "no Ray cluster could be joined or started (no answer: the raylet died); check "
        "--ray-address and RAY_ADDRESS, or give --ray-address local"
    )


def test_whatever_ray_raises_is_an_error_of_ours(fake_ray: FakeRay) -> None:
    fake_ray.error = Exception("The current node timed out during startup.")
    with pytest.raises(SfRayError, match="node timed out during startup"):
        start_ray("local")


def test_ray_that_runs_already_is_used(fake_ray: FakeRay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    start_ray("local")
    assert fake_ray.inits == []


def test_a_cluster_without_cpus_is_said_at_once(
    fake_ray: FakeRay, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_ray.cpus = 0
    start_ray("ray-head:6379")
    assert "note: the cluster has no CPU now; nothing runs until" in capsys.readouterr().err


@pytest.mark.parametrize("asked_for", [False, True])
def test_uv_run_starts_no_workers_unless_asked_to(
    fake_ray: FakeRay,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    asked_for: bool,
) -> None:
    monkeypatch.setattr(cluster, "_get_uv_run_cmdline", lambda: ["uv", "run", "sf-ray"])
    monkeypatch.setattr(ray_constants, "RAY_ENABLE_UV_RUN_RUNTIME_ENV", True)
    monkeypatch.delenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", raising=False)
    if asked_for:
        monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "1")
    start_ray("local")
    assert ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV is asked_for
    assert ("not `uv run`" in capsys.readouterr().err) is not asked_for


def test_a_token_file_that_is_missing_is_said_before_a_local_ray_starts(
    fake_ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", os.devnull)
    with pytest.raises(SfRayError, match="RAY_AUTH_TOKEN_PATH /dev/null: .*it is empty"):
        start_ray("local")


def test_auto_is_cuda_where_the_cluster_has_a_gpu(nodes: list[dict[str, float]]) -> None:
    assert resolve_device("auto") == "cpu"
    nodes[0]["GPU"] = 1
    assert resolve_device("auto") == "cuda"
    assert resolve_device("cpu") == "cpu"


def test_waiting_for_a_gpu_is_said(
    nodes: list[dict[str, float]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert resolve_device("cuda") == "cuda"
    assert "has no GPU now; the scoring actors wait" in capsys.readouterr().err
    assert resolve_device("cpu") == "cpu"


@pytest.mark.ray
def test_workers_import_nothing_from_the_folder_of_the_driver(tmp_path: Path) -> None:
    (tmp_path / "colorsys.py").write_text("raise SystemExit('planted')")
    (tmp_path / "planted_module.py").touch()
    code = """
import importlib.util as of
import ray
from sf_ray.runtime.cluster import start_ray
start_ray("local")
def found(names=("colorsys", "planted_module", "sf_ray")):
    return [getattr(of.find_spec(name), "origin", None) for name in names]
print(ray.get(ray.remote(found).remote()))
"""
    root = str(Path(cluster.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": root}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    standard, planted, ours = ast.literal_eval(done.stdout.splitlines()[-1])
    assert standard.endswith("colorsys.py")
    assert not standard.startswith(str(tmp_path))
    assert planted is None
    assert ours == str(Path(root) / "sf_ray/__init__.py")
