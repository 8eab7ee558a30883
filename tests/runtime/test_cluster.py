import logging
import signal
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import ray
from ray._private import services

from sf_ray.errors import SfRayError
from sf_ray.runtime.cluster import resolve_device, start_ray
from sf_ray.runtime.log import LogSettings, use_log_settings


class FakeRay:
    """Stands for Ray where only the arguments of `ray.init` matter."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.inits: list[dict[str, Any]] = []
        self.recorded: str | None = None
        self.error: Exception | None = None
        monkeypatch.setattr(ray, "is_initialized", lambda: False)
        monkeypatch.setattr(ray, "init", self._init)
        monkeypatch.setattr(services, "find_bootstrap_address", lambda _: self.recorded)

    def _init(self, **arguments: Any) -> None:
        self.inits.append(arguments)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # Ray sets a handler of its own
        if self.error:
            raise self.error


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


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


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


def test_a_recorded_cluster_that_is_gone_is_not_waited_for(
    fake_ray: FakeRay, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_ray.recorded = f"127.0.0.1:{free_port()}"
    start_ray(None)
    assert fake_ray.inits[0]["address"] == "local"
    assert "is gone; starting a local one" in capsys.readouterr().err


def test_a_recorded_cluster_that_answers_is_joined(fake_ray: FakeRay) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        fake_ray.recorded = f"127.0.0.1:{server.getsockname()[1]}"
        start_ray(None)
    assert fake_ray.inits[0]["address"] is None


def test_an_address_in_the_environment_is_left_to_ray(
    fake_ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "ray-head:6379")
    fake_ray.recorded = f"127.0.0.1:{free_port()}"
    start_ray(None)
    assert fake_ray.inits[0]["address"] is None


def test_a_cluster_that_cannot_be_joined_is_said_in_one_line(fake_ray: FakeRay) -> None:
    fake_ray.error = ConnectionError("no answer\nand many lines of advice")
    with pytest.raises(SfRayError) as raised:
        start_ray("ray-head:6379")
    assert str(raised.value) == (
        "no Ray cluster could be joined or started (no answer); check --ray-address and "
        "RAY_ADDRESS, or give --ray-address local"
    )


def test_ray_that_runs_already_is_used(fake_ray: FakeRay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    start_ray("local")
    assert fake_ray.inits == []


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
