import threading
from collections.abc import Iterator

import pytest
import torch

from sf_ray.engine.batch_threads import BatchThreads


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_what_is_submitted_next_begins_while_a_lane_is_free() -> None:
    lanes, second_runs = BatchThreads(2), threading.Event()

    def first(item: int) -> list[int]:
        assert item or second_runs.wait(60)
        return [item]

    def second(item: int) -> list[int]:
        second_runs.set()
        return [item]

    one = lanes.submit(first, [0, 1])
    two = lanes.submit(second, [2, 3])
    assert lanes.results(one) == [0, 1]
    assert lanes.results(two) == [2, 3]


def test_items_with_more_threads_each_run_alone() -> None:
    lanes, running, most = BatchThreads(6, most=3), [], []

    def alone(item: int) -> list[int]:
        running.append(item)
        most.append((len(running), torch.get_num_threads()))
        threading.Event().wait(0.01)
        running.remove(item)
        return [item]

    pending = [lanes.submit(alone, [item]) for item in range(4)]
    assert [lanes.results(each) for each in pending] == [[0], [1], [2], [3]]
    assert most == [(1, 6)] * 4
    assert torch.get_num_threads() == 6


@pytest.mark.parametrize("count", [1, 2])
def test_what_an_item_raises_is_raised_by_its_results(count: int) -> None:
    def invert(item: int) -> list[float]:
        return [1 / item]

    lanes = BatchThreads(count)
    bad, good = lanes.submit(invert, [1, 0, 2]), lanes.submit(invert, [1, 2])
    with pytest.raises(ZeroDivisionError):
        lanes.results(bad)
    assert lanes.results(good) == [1, 0.5]


def test_with_one_lane_an_item_may_depend_on_the_one_before() -> None:
    done: list[int] = []

    def items() -> Iterator[int]:
        for _ in range(3):
            yield len(done)

    def note(item: int) -> list[int]:
        done.append(item)
        return [item]

    lanes = BatchThreads(1)
    assert lanes.results(lanes.submit(note, items())) == [0, 1, 2]
