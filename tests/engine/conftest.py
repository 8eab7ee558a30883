"""Engines that are loaded once for all tests of a process."""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from sf_ray.engine.engine import Engine

EngineOf = Callable[..., Engine]


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    """An engine on CPU sets the number of threads of the process; each test starts with its own."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def _loaded(tiny_model: Path) -> EngineOf:
    return cache(lambda **settings: Engine(tiny_model, **settings))


@pytest.fixture
def engine_of(_loaded: EngineOf) -> EngineOf:
    """Engine arguments -> an engine over `tiny_model`, shared with other tests.

    For tests that change nothing of it; the others load their own.
    """

    def engine_of(**settings: Any) -> Engine:
        # As a new engine would.
        torch.set_num_threads(settings.get("threads") or torch.get_num_threads())
        return _loaded(**settings)

    return engine_of


def limit_memory(engine: Engine, most: int) -> None:
    """Lets an engine's device run out of memory where a batch has more than `most` tokens."""
    decoder = engine._model.decoder

    def small_device(input_ids: torch.Tensor, **others: Any) -> Any:
        if input_ids.numel() > most:
            raise torch.OutOfMemoryError("too large")
        return decoder(input_ids=input_ids, **others)

    engine._model.decoder = small_device
