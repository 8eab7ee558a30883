"""Threads side by side: items in, results out in the items' order. Knows nothing of the work."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def map_ahead(
    function: Callable[[_Item], _Result],
    items: Iterable[_Item],
    at_once: int,
    ahead: int | None = None,
    begin: Callable[[], object] | None = None,
) -> Iterator[_Result]:
    """Applies a function to items, several at a time.

    Args:
        function: What is done to each.
        items: Taken one by one, as there is room.
        at_once: Threads.
        ahead: Items that are begun or done before the first of them is taken; None: `at_once`.
        begin: Called first in each thread.
    """
    waiting: deque[Future[_Result]] = deque()
    with ThreadPoolExecutor(at_once, initializer=begin) as threads:
        for item in items:
            waiting.append(threads.submit(function, item))
            if len(waiting) == (ahead or at_once):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
