import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import ray
import ray.data
from ray.exceptions import RayError

from sf_ray.errors import (
    BadShardError,
    ClusterError,
    SfRayError,
    TerminatedError,
    UsageError,
)
from sf_ray.runtime.signals import stoppable
from sf_ray.runtime.tasks import (
    parallel_map,
    parallel_map_stored,
    set_context,
    until_done,
    user_errors,
)
from sf_ray.storage.location import Location
from tests.support.waiting import HANG_S


@pytest.fixture
def actors_end() -> Iterator[None]:
    """Ends actors that the traceback of a test holds: the tests after it want every CPU."""
    yield
    gc.collect()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "ray::x\n  File y\nsf_ray.errors.SfRayError: shard a is broken\n\nmore",
            SfRayError("shard a is broken"),
        ),
        (
            "The actor died\nsf_ray.errors.UsageError: first\nsecond\n\nValueError: of Ray",
            UsageError("first\nsecond"),
        ),
        (
            "sf_ray.errors.BadRowError: its attributes are not in the text",
            SfRayError("its attributes are not in the text"),
        ),
        (
            "The actor died\nOSError: disk full",
            ClusterError("a Ray task failed: OSError: disk full"),
        ),
        ("lost", ClusterError("a Ray task failed: lost")),
    ],
)
def test_where_only_text_arrives_the_error_is_made_of_it(text: str, expected: SfRayError) -> None:
    with pytest.raises(SfRayError) as raised, user_errors():
        raise RayError(text)
    assert type(raised.value) is type(expected)
    assert str(raised.value) == str(expected)


MANY_LINES = (
    UsageError("--quota: no such value\nthe column has: a, b\ngive one of them"),
    BadShardError("a/1.jsonl", "line 3 is no JSON object:\n  {half"),
)


def raise_it(error: SfRayError, *_: object) -> None:
    raise error


def in_a_task(error: SfRayError) -> None:
    list(parallel_map(partial(raise_it, error), [1], 60))


def in_a_nested_task(error: SfRayError) -> None:
    task = ray.remote(lambda: raise_it(error))
    list(parallel_map(lambda _: ray.get(task.remote()), [1], 60))


class Raises:
    """Raises its error in a method, and as the function of a dataset."""

    def __init__(self, error: SfRayError) -> None:
        self._error = error

    def __call__(self, batch: object = None) -> None:
        raise self._error


def in_a_method_of_an_actor(error: SfRayError) -> None:
    with user_errors():
        ray.get(ray.remote(num_cpus=0)(Raises).remote(error).__call__.remote())


def in_a_function_of_a_dataset(error: SfRayError) -> None:
    set_context()
    with user_errors():
        ray.data.range(1).map_batches(partial(raise_it, error)).materialize()


def in_an_actor_of_a_dataset(error: SfRayError) -> None:
    set_context()
    with user_errors():
        data = ray.data.range(1)
        data.map_batches(
            Raises, fn_constructor_args=(error,), concurrency=1, num_cpus=0.01
        ).materialize()


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session", "actors_end")
@pytest.mark.parametrize(
    "fail",
    [
        in_a_task,
        in_a_nested_task,
        in_a_method_of_an_actor,
        in_a_function_of_a_dataset,
        in_an_actor_of_a_dataset,
    ],
)
def test_the_error_of_a_worker_arrives_whole(fail: Callable[[SfRayError], None]) -> None:
    for error in MANY_LINES:
        with pytest.raises(SfRayError) as raised:
            fail(error)
        assert type(raised.value) is type(error)
        assert str(raised.value) == str(error)
        assert vars(raised.value) == vars(error)
        assert isinstance(raised.value.__cause__, RayError)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session", "actors_end")
def test_the_error_of_an_actor_that_does_not_start_keeps_its_lines() -> None:
    class Broken:
        def __init__(self, error: SfRayError) -> None:
            raise error

        def answer(self) -> None:
            """Never called."""

    for error in MANY_LINES:
        with pytest.raises(SfRayError) as raised, user_errors():
            ray.get(ray.remote(Broken).remote(error).answer.remote())
        assert raised.value.exit_code == error.exit_code
        assert str(raised.value) == str(error)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session", "actors_end")
def test_any_other_exception_of_a_worker_is_named() -> None:
    def fail(batch: object) -> None:
        raise ValueError("a bug")

    set_context()
    with pytest.raises(ClusterError) as raised, user_errors():
        ray.data.range(1).map_batches(fail).materialize()
    assert str(raised.value) == "a Ray task failed: ValueError: a bug"


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_large_values_of_tasks_stay_in_the_object_store() -> None:
    def split(number: int) -> tuple[int, list[str]]:
        return number, [f"{number} low", f"{number} high"]

    results = sorted(parallel_map_stored(split, [1, 2], 60, stored=2))
    assert [result.value for result in results] == [1, 2]
    assert [ray.get(list(result.refs)) for result in results] == [
        ["1 low", "1 high"],
        ["2 low", "2 high"],
    ]


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
        deadline = time.monotonic() + HANG_S / 2
        while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        return f"{len(list(tmp_path.iterdir()))} are here"

    assert list(parallel_map(meet, ["a", "b"], HANG_S)) == ["2 are here"] * 2


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


class Work:
    """Items of which each attempt does some, and ends with an error."""

    def __init__(self, items: int, done_by_attempt: list[int], error: str | None) -> None:
        self.left, self._error = items, error
        self._done_by_attempt = iter(done_by_attempt)
        self.attempts: list[int] = []
        self.retries: list[tuple[int, str]] = []

    def until_done(self) -> None:
        until_done(
            self.left,
            self._attempt,
            lambda: self.left,
            lambda left: left,
            lambda left, problem: self.retries.append((left, str(problem))),
            "some are missing",
        )

    def _attempt(self, todo: int) -> None:
        self.attempts.append(todo)
        self.left -= next(self._done_by_attempt)
        if self._error:
            raise ClusterError(self._error)


def test_work_goes_on_with_what_is_missing_until_nothing_is() -> None:
    work = Work(9, [4, 0, 0, 3, 2], "a node is gone")
    work.until_done()
    assert work.attempts == [9, 5, 5, 5, 2]
    assert work.retries == [(left, "a node is gone") for left in (5, 5, 5, 2)]


def test_three_attempts_in_a_row_without_result_end_the_work() -> None:
    for error in ("a node is gone", None):
        work = Work(9, [0, 0, 4, 0, 0, 0, 5], error)
        with pytest.raises(ClusterError, match=error or "some are missing"):
            work.until_done()
        assert work.attempts == [9, 9, 9, 5, 5, 5]


def test_work_that_is_done_is_not_attempted() -> None:
    work = Work(0, [], None)
    work.until_done()
    assert work.attempts == []


def test_errors_that_trying_again_cannot_mend_end_the_work_at_once() -> None:
    def attempt(todo: int) -> None:
        raise SfRayError("the model is broken")

    with pytest.raises(SfRayError, match="the model is broken"):
        until_done(1, attempt, lambda: 1, lambda left: left, lambda left, problem: None, "")
