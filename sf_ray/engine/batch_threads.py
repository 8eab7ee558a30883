"""Batches that are computed side by side on CPU, and the losses that they give.

Knows torch, but no model: what a batch computes comes in as a function.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from sf_ray.engine.sequences import Ints

# With more threads that each drive a batch, Python itself would be the bottleneck.
MOST_THREADS = 8

Item = TypeVar("Item")
Result = TypeVar("Result")


class BatchThreads:
    """Threads that each compute batches of their own.

    One batch on all cores is slower: every product waits for the thread that was interrupted
    last, and what is not a product runs on one thread (`docs/performance.md`). The threads
    outlive a pool of sequences, so that the next pool begins in those that are free.

    Attributes:
        count: Number of batches that are computed side by side. With 1, batches are computed in
            the thread that submits them.
    """

    def __init__(self, threads: int, most: int = MOST_THREADS) -> None:
        """
        Args:
            threads: Intra-op threads of all batch threads together. Every batch thread gets the
                same number of them, because a batch that is computed with another number gives
                other bits; a remainder stays idle.
            most: Upper limit of batch threads.
        """
        threads_per_batch = -(-threads // most)
        self.count, self._threads = threads // threads_per_batch, threads
        self._executor = ThreadPoolExecutor(self.count)  # a thread starts when it is needed
        self._running: list[Future[Any]] = []

    def submit(
        self, function: Callable[[Item], list[Result]], items: Iterable[Item]
    ) -> Sequence[Future[list[Result]]]:
        """Begins to apply a function to items; the futures raise what the function raises.

        With one batch thread, each item is taken from the iterable when the item before it is
        done, and may depend on it.
        """
        if self.count == 1:
            return [_run_now(lambda: [result for item in items for result in function(item)])]
        items = list(items)
        side_by_side = min(self.count, len(items))
        if side_by_side < self.count:
            # Fewer batches share all intra-op threads, so nothing else may run beside them.
            self.wait_until_idle()
        autocast_dtype = torch.get_autocast_dtype("cpu")
        is_autocast = torch.is_autocast_enabled("cpu")

        def in_thread(item: Item) -> list[Result]:
            # torch keeps these settings for each thread; this one may have those of another pool.
            torch.set_num_threads(self._threads // side_by_side)
            torch.set_autocast_dtype("cpu", autocast_dtype)
            torch.set_autocast_enabled("cpu", is_autocast)
            return function(item)

        futures = [self._executor.submit(in_thread, item) for item in items]
        self._running = [future for future in self._running if not future.done()] + futures
        if side_by_side < self.count:
            self.wait_until_idle()
        return futures

    def wait_until_idle(self) -> None:
        """Waits until no batch is computed."""
        wait(self._running)

    def results(self, futures: Sequence[Future[list[Result]]]) -> list[Result]:
        """All results, in the order of the items. If one fails, those not begun are cancelled."""
        try:
            return [result for future in futures for result in future.result()]
        finally:
            for future in futures:
                future.cancel()
            if self.count > 1:
                # A new thread starts with the number that was set last, in whichever thread.
                torch.set_num_threads(self._threads)


def _run_now(call: Callable[[], list[Result]]) -> Future[list[Result]]:
    future: Future[list[Result]] = Future()
    try:
        future.set_result(call())
    except Exception as error:  # noqa: BLE001 (as in an executor's thread)
        future.set_exception(error)
    return future


@dataclass(frozen=True)
class BatchLosses:
    """The losses of n scored tokens of one batch, on their way to the host.

    Attributes:
        spans: [n] the span that each token belongs to.
    """

    spans: Ints
    _nll: torch.Tensor
    _copied: torch.cuda.Event | None

    @classmethod
    def of(cls, spans: Ints, nll: torch.Tensor) -> "BatchLosses":
        """Begins to copy losses to the host; does not wait for the device.

        Args:
            spans: [n] the span that each token belongs to.
            nll: [n] nats.
        """
        if not nll.is_cuda:
            return cls(spans, nll, None)
        on_host = nll.to("cpu", non_blocking=True)
        copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        copied.record()
        return cls(spans, on_host, copied)

    def nll(self) -> torch.Tensor:
        """[n] losses in nats, on the host; waits until they are there."""
        if self._copied:
            self._copied.synchronize()
        return self._nll


def sum_spans(batches: Sequence[BatchLosses], size: int) -> NDArray[np.float64]:
    """[size] the sum of each span's losses in nats; waits for the losses.

    The sum is taken in the order of the batches, so that it has the same bits each time.

    Args:
        batches: The losses of all batches.
        size: Number of spans.
    """
    sums: NDArray[np.float64] = np.zeros(size)
    every = np.arange(size)
    for batch in batches:
        # What was summed so far comes first, as one loss of each span. One batch after the other
        # stays in the cache, which all losses together would not.
        losses = np.concatenate([sums, batch.nll().numpy()])
        sums = np.bincount(np.concatenate([every, batch.spans]), losses).astype(np.float64)
    return sums


def tokens_in_order(batches: Sequence[BatchLosses], lengths: Ints) -> NDArray[np.float32]:
    """[scored tokens] losses of single tokens in nats, span after span; waits for the losses.

    Args:
        batches: The losses of all batches. The tokens of a span may be in several of them, and are
            in the order in which they follow each other.
        lengths: [spans] tokens of each span.

    Returns:
        NaN for the tokens of spans that no batch has.
    """
    none, no_spans = np.empty(0, np.float32), np.empty(0, np.int64)
    spans = np.concatenate([no_spans, *(batch.spans for batch in batches)])
    losses = np.concatenate([none, *(batch.nll().numpy() for batch in batches)])
    is_done = np.zeros(len(lengths), bool)
    is_done[spans] = True
    tokens: NDArray[np.float32] = np.full(int(lengths.sum()), np.nan, np.float32)
    tokens[np.repeat(is_done, lengths)] = losses[np.argsort(spans, kind="stable")]
    return tokens
