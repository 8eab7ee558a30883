import threading
from collections.abc import Iterator

import pytest
import torch

from sf_ray.engine.batch_threads import BatchThreads
from sf_ray.engine.sequences import TokenSequences
from tests.engine.conftest import EngineOf
from tests.support.sequences import random_sequences


def test_what_is_submitted_next_begins_while_a_thread_is_free() -> None:
    batch_threads, second_runs = BatchThreads(2), threading.Event()

    def first(item: int) -> list[int]:
        assert item or second_runs.wait(60)
        return [item]

    def second(item: int) -> list[int]:
        second_runs.set()
        return [item]

    first_futures = batch_threads.submit(first, [0, 1])
    second_futures = batch_threads.submit(second, [2, 3])
    assert batch_threads.results(first_futures) == [0, 1]
    assert batch_threads.results(second_futures) == [2, 3]


def test_items_with_more_threads_each_run_alone() -> None:
    batch_threads, running, seen = BatchThreads(6, most=3), [], []

    def alone(item: int) -> list[int]:
        running.append(item)
        seen.append((len(running), torch.get_num_threads()))
        threading.Event().wait(0.01)
        running.remove(item)
        return [item]

    pending = [batch_threads.submit(alone, [item]) for item in range(4)]
    assert [batch_threads.results(futures) for futures in pending] == [[0], [1], [2], [3]]
    assert seen == [(1, 6)] * 4
    assert torch.get_num_threads() == 6


@pytest.mark.parametrize("count", [1, 2])
def test_what_an_item_raises_is_raised_by_its_results(count: int) -> None:
    def invert(item: int) -> list[float]:
        return [1 / item]

    batch_threads = BatchThreads(count)
    bad = batch_threads.submit(invert, [1, 0, 2])
    good = batch_threads.submit(invert, [1, 2])
    with pytest.raises(ZeroDivisionError):
        batch_threads.results(bad)
    assert batch_threads.results(good) == [1, 0.5]


def test_with_one_thread_an_item_may_depend_on_the_one_before() -> None:
    done: list[int] = []

    def items() -> Iterator[int]:
        for _ in range(3):
            yield len(done)

    def note(item: int) -> list[int]:
        done.append(item)
        return [item]

    batch_threads = BatchThreads(1)
    assert batch_threads.results(batch_threads.submit(note, items())) == [0, 1, 2]


@pytest.mark.parametrize(
    ("threads", "budget", "of_each"),
    [(2, 60, [1] * 2), (8, 60, [1] * 8), (12, 60, [2] * 6), (11, 60, [2] * 5), (11, 10**5, [11])],
)
def test_batch_threads_are_alike_and_leave_few_threads_idle(
    engine_of: EngineOf,
    monkeypatch: pytest.MonkeyPatch,
    threads: int,
    budget: int,
    of_each: list[int],
) -> None:
    engine = engine_of(token_budget=budget, threads=threads, share=False)
    pool = TokenSequences.of(random_sequences(200))
    taken: dict[threading.Thread, int] = {}
    in_main, own = threading.main_thread(), torch.set_num_threads

    def set_num_threads(count: int) -> None:
        if threading.current_thread() is not in_main:
            taken[threading.current_thread()] = count
        own(count)

    monkeypatch.setattr(torch, "set_num_threads", set_num_threads)
    engine.losses(pool)
    assert set(taken.values()) == set(of_each)
    assert len(taken) <= len(of_each)
    assert torch.get_num_threads() == threads
