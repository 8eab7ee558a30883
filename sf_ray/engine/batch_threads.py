"""Batches of a model that are computed side by side on CPU, each in a thread of its own."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from sf_ray.engine.sequences import Ints

# Batches side by side: one a thread, until Python itself is in the way.
MOST_THREADS = 8

Item = TypeVar("Item")
Result = TypeVar("Result")


class BatchThreads:
    """Threads that outlive a pool of sequences: the next pool begins in those that are free.

    Attributes:
        count: Items that are computed side by side; with 1, in the thread that submits them.
    """

    def __init__(self, threads: int, most: int = MOST_THREADS) -> None:
        """
        Args:
            threads: Of all lanes together; as many for each, as one with more would give other
                bits than another.
            most: Lanes there may be.
        """
        self.count, self._threads = threads // -(-threads // most), threads
        self._executor = ThreadPoolExecutor(self.count)  # a thread starts when it is needed
        self._running: list[Future[Any]] = []

    def submit(
        self, function: Callable[[Item], list[Result]], items: Iterable[Item]
    ) -> Sequence[Future[list[Result]]]:
        """Begins to apply a function to items; what it raises, the futures raise.

        With one lane each item is taken when the one before it is done, and may depend on it.
        """
        if self.count == 1:
            return [_now(lambda: [result for item in items for result in function(item)])]
        items = list(items)
        lanes = min(self.count, len(items))
        if lanes < self.count:  # they have more threads each, so nothing else may run beside them
            self.settle()
        kind = "cpu"
        low, lowers = torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)

        def in_lane(item: Item) -> list[Result]:  # these are settings of a thread
            torch.set_num_threads(self._threads // lanes)
            torch.set_autocast_dtype(kind, low)
            torch.set_autocast_enabled(kind, lowers)
            return function(item)

        futures = [self._executor.submit(in_lane, item) for item in items]
        self._running = [future for future in self._running if not future.done()] + futures
        if lanes < self.count:
            self.settle()
        return futures

    def settle(self) -> None:
        """Waits until no lane computes."""
        wait(self._running)

    def results(self, futures: Sequence[Future[list[Result]]]) -> list[Result]:
        """All results in order. Where one failed, those that wait for a lane are given up."""
        try:
            return [result for future in futures for result in future.result()]
        finally:
            for future in futures:
                future.cancel()
            if self.count > 1:
                torch.set_num_threads(self._threads)  # which new threads take over


def _now(call: Callable[[], list[Result]]) -> Future[list[Result]]:
    future: Future[list[Result]] = Future()
    try:
        future.set_result(call())
    except Exception as error:  # noqa: BLE001 (as in an executor's thread)
        future.set_exception(error)
    return future


@dataclass(frozen=True)
class Part:
    """[n] losses of a batch in nats, each of one token.

    Attributes:
        spans: [n] the span that each belongs to.
    """

    spans: Ints
    _nll: torch.Tensor
    _copied: torch.cuda.Event | None

    @classmethod
    def of(cls, spans: Ints, nll: torch.Tensor) -> "Part":
        """Begins to copy them to the host."""
        if not nll.is_cuda:
            return cls(spans, nll, None)
        on_host = nll.to("cpu", non_blocking=True)
        copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        copied.record()
        return cls(spans, on_host, copied)

    def nll(self) -> torch.Tensor:
        """The losses; waits until they are there."""
        if self._copied:
            self._copied.synchronize()
        return self._nll


def sum_spans(parts: Sequence[Part], size: int = 0) -> NDArray[np.float64]:
    """The sum of each span's losses, in nats. Waits for them; always adds in the same order.

    Args:
        parts: Of all batches.
        size: How many spans there are, at least.
    """
    if not parts:
        return np.zeros(size)
    nll = torch.cat([part.nll() for part in parts]).double().numpy()
    where = np.concatenate([part.spans for part in parts])
    return np.bincount(where, weights=nll, minlength=size).astype(np.float64, copy=False)
