import threading

import pytest
import torch

from tests.engine.conftest import EngineOf
from tests.support.sequences import random_sequences


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
    pool = random_sequences(200)
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
