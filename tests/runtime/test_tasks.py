import os
import signal
import threading
import time
from pathlib import Path

import pytest
from ray.exceptions import RayError

from sf_ray.errors import ClusterError, SfRayError, TerminatedError
from sf_ray.runtime.signals import stoppable
from sf_ray.runtime.tasks import parallel_map, user_errors
from sf_ray.storage.location import Location


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "ray::x\n  File y\nsf_ray.errors.SfRayError: shard a is broken\n\nmore",
            "shard a is broken",
        ),
        ("The actor died\nOSError: disk full", "a Ray task failed: OSError: disk full"),
    ],
)
def test_a_task_that_fails_says_why(text: str, message: str) -> None:
    with pytest.raises(SfRayError) as error, user_errors():
        raise RayError(text)
    assert str(error.value) == message


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_a_function_is_applied_to_every_item() -> None:
    assert list(parallel_map(str, [], 60)) == []
    items = [(Location("memory://a"), n) for n in range(7)]
    assert sorted(parallel_map(lambda item: (item[1], item[0].uri), items, 60)) == [
        (n, "memory://a") for n in range(7)
    ]


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_tasks_run_at_once_on_every_cpu(tmp_path: Path) -> None:
    def meet(name: str) -> str:
        (tmp_path / name).touch()
        deadline = time.monotonic() + 60
        while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        return f"{len(list(tmp_path.iterdir()))} are here"

    assert list(parallel_map(meet, ["a", "b"], 90)) == ["2 are here"] * 2


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_a_task_whose_process_is_killed_is_done_again(tmp_path: Path) -> None:
    def die_once(number: int) -> int:
        if number == 3 and not (tmp_path / "died").exists():
            (tmp_path / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    assert sorted(parallel_map(die_once, range(6), 60)) == list(range(6))
    assert (tmp_path / "died").exists()


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_tasks_that_hang_are_given_up_the_third_time(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ClusterError, match="no task has finished for 1 s: .* --stall-s"):
        list(parallel_map(time.sleep, [3600], 1))
    assert capfd.readouterr().err.count("doing the 1 tasks again") == 2


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_a_wait_for_tasks_ends_at_sigterm() -> None:
    threading.Timer(1, os.kill, (os.getpid(), signal.SIGTERM)).start()
    start = time.monotonic()
    with pytest.raises(TerminatedError), stoppable():
        list(parallel_map(time.sleep, [3600], 100))
    assert time.monotonic() - start < 25  # Kubernetes waits 30 s
