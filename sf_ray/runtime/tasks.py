"""Work on a Ray cluster: one function over many items, trying again, errors of workers.

Does not know what the work is.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from copy import copy
from itertools import islice
from typing import Any, Generic, NamedTuple, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from sf_ray.errors import ClusterError, LeaseError, SfRayError, UsageError
from sf_ray.runtime.log import duration, say
from sf_ray.runtime.metrics import count_retries

Work = TypeVar("Work")
Item = TypeVar("Item")
Value = TypeVar("Value")

# Attempts in a row without any progress after which `Patience` gives up.
_FRUITLESS_ATTEMPTS = 3
# Tasks submitted to Ray and not finished: enough to fill any cluster, few enough to wait for all of
# them in one call.
_TASKS_AHEAD = 1000
# Classes that can be made from the text of an error; the others have attributes that it lacks.
_MADE_OF_TEXT = {
    error_class.__name__: error_class
    for error_class in (SfRayError, UsageError, ClusterError, LeaseError)
}


class Patience:
    """Gives up trying again after three attempts in a row without any progress."""

    def __init__(self, left: int) -> None:
        """
        Args:
            left: How much work there is before the first attempt.
        """
        self._left, self._fruitless = left, 0

    def after_try(self, left: int, problem: ClusterError) -> None:
        """Counts an attempt.

        Args:
            left: How much work is left after the attempt.
            problem: What went wrong in the attempt.

        Raises:
            ClusterError: `problem`, after the third attempt in a row that left as much as before.
        """
        self._fruitless = 0 if left < self._left else self._fruitless + 1
        self._left = left
        if self._fruitless == _FRUITLESS_ATTEMPTS:
            raise problem


def until_done(
    todo: Work,
    attempt: Callable[[Work], None],
    missing: Callable[[], Work],
    size: Callable[[Work], int],
    before_retry: Callable[[int, ClusterError], None],
    unfinished: str,
) -> None:
    """Attempts work on the cluster until nothing of it is missing.

    An attempt may end early, or lose results that Ray cannot make good. What counts is only what
    `missing` sees afterwards, so a result that was committed is never made twice.

    Args:
        todo: The work that is missing now.
        attempt: Does the work that it is given, or part of it.
        missing: Looks up the work that is missing after an attempt.
        size: Size of some work, in any unit; 0 where nothing is missing.
        before_retry: Called before every attempt but the first, with the size of the missing work
            and with what went wrong.
        unfinished: What went wrong where an attempt raises nothing and work is missing all the
            same.

    Raises:
        ClusterError: What went wrong in the last attempt, where three attempts in a row did not
            make the missing work any smaller.
    """
    patience = Patience(size(todo))
    while size(todo):
        problem = ClusterError(unfinished)
        try:
            attempt(todo)
        except ClusterError as error:
            # A copy without the traceback, because the traceback keeps the attempt's actors alive.
            problem = ClusterError(str(error))
        todo = missing()
        if left := size(todo):
            patience.after_try(left, problem)
            before_retry(left, problem)


class Needs(NamedTuple):
    """What Ray reserves for a task.

    Attributes:
        cpus, gpus: How many.
        own_process: Whether the process of a task ends with it: what a model took is then given
            back for certain.
    """

    cpus: float = 1
    gpus: float = 0
    own_process: bool = False


class StoredResult(NamedTuple, Generic[Value]):
    """Result of one task of `parallel_map_stored`.

    Attributes:
        value: The value for the driver.
        refs: References, in order, to the values in Ray's object store.
    """

    value: Value
    refs: tuple[ray.ObjectRef, ...]


def parallel_map(
    function: Callable[[Item], Value],
    items: Sequence[Item],
    stall_s: float,
    needs: Needs = Needs(),  # noqa: B008 - frozen
) -> Iterator[Value]:
    """Applies a function to items in Ray tasks; yields results as tasks finish, in no fixed order.

    Tasks that are lost with a node run again, as long as other tasks still finish.

    Args:
        function: Takes an item; may be called more than once for the same item.
        items: Values that Ray can pickle.
        stall_s: Seconds to wait for the next result.
        needs: What Ray reserves for each task.

    Raises:
        ClusterError: Three attempts in a row finished no task.
        SfRayError: The function raised it.
    """
    return (result.value for result in _map(function, items, stall_s, 0, needs))


def parallel_map_stored(
    function: Callable[[Item], tuple[Value, Sequence[Any]]],
    items: Sequence[Item],
    stall_s: float,
    stored: int,
) -> Iterator[StoredResult[Value]]:
    """Like `parallel_map`, for results that are too large for the driver.

    Args:
        function: Takes an item; returns a small value for the driver, and `stored` values that
            stay in Ray's object store.
        items: Values that Ray can pickle.
        stall_s: Seconds to wait for the next result.
        stored: How many values each call stores.

    Raises:
        ClusterError: Three attempts in a row finished no task.
        SfRayError: The function raised it.
    """

    def call(item: Item) -> list[Any]:
        value, values = function(item)
        return [value, *values]

    return _map(call, items, stall_s, stored)


def _map(
    call: Callable[[Any], Any],
    items: Sequence[Any],
    stall_s: float,
    stored: int,
    needs: Needs = Needs(),  # noqa: B008 - frozen
) -> Iterator[StoredResult[Any]]:
    """Runs `call` in tasks until every item has a result; attempts again what the cluster loses.

    Args:
        call: Takes an item. Returns its value, or, where values are stored, a list of the value
            and the `stored` values.
        items: As in `parallel_map`.
        stall_s: As in `parallel_map`.
        stored: As in `parallel_map_stored`; 0 for `parallel_map`.
        needs: What Ray reserves for each task.
    """
    left = dict(enumerate(items))
    patience = Patience(len(left))
    while left:
        try:
            with user_errors():
                for index, result in _map_once(call, left, stall_s, stored, needs):
                    del left[index]
                    yield result
        except ClusterError as error:
            patience.after_try(len(left), error)
            count_retries("tasks", len(left))
            say(
                f"note: {error}; doing the {len(left)} tasks again that have no result",
                tasks=len(left),
            )


def _map_once(
    call: Callable[[Any], Any],
    items: Mapping[int, Any],
    stall_s: float,
    stored: int,
    needs: Needs,
) -> Iterator[tuple[int, StoredResult[Any]]]:
    # A lambda, because `ray.remote` takes plain functions only and `call` may be a partial.
    task = ray.remote(
        num_cpus=needs.cpus,
        num_gpus=needs.gpus,
        scheduling_strategy="SPREAD",
        num_returns=1 + stored,
        max_calls=int(needs.own_process),  # 0: as many as there are
    )(lambda item: call(item))
    # Futures, because a signal ends the wait for a future at once; `ray.wait` holds it back.
    waiting: dict[Future[Any], tuple[list[ray.ObjectRef], int]] = {}
    next_items = iter(list(items.items()))
    try:
        while True:
            for index, item in islice(next_items, _TASKS_AHEAD - len(waiting)):
                refs = task.remote(item) if stored else [task.remote(item)]
                waiting[refs[0].future()] = refs, index
            if not waiting:
                return
            done, _ = wait(waiting, timeout=stall_s, return_when=FIRST_COMPLETED)
            if not done:
                raise ClusterError(
                    f"no task has finished for {duration(stall_s)}: the cluster may have no free "
                    "CPU, or storage may hang; look at `ray status`, or raise --stall-s"
                )
            for future in done:
                refs, index = waiting.pop(future)
                yield index, StoredResult(future.result(), tuple(refs[1:]))
    finally:
        for unfinished, _ in waiting.values():
            # `force` kills the process, because a task that hangs in a library notices nothing else
            # and would keep its CPU.
            ray.cancel(unfinished[0], force=True)


def set_context() -> None:
    """Configures Ray Data for every dataset that this process creates from now on."""
    # Inside the function, because a worker takes a second to import it, with all of pandas, and the
    # tasks of `parallel_map` have no use for it.
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # 1 byte: a block leaves its task as soon as it is made, instead of waiting until it is full.
    context.target_max_block_size = 1
    # Ray Data's wrapper for errors of our functions loses the error itself between processes.
    context.raise_original_map_exception = True


@contextmanager
def user_errors() -> Iterator[None]:
    """Turns the failure of a Ray task or actor into the error that the worker raised.

    Raises:
        SfRayError: The worker raised it; class, attributes and text are kept. An error that ended
            an actor's `__init__` is rebuilt from text, because Ray sends nothing else.
        ClusterError: The worker raised another exception, or Ray lost the worker.
    """
    try:
        yield
    except RayError as error:
        raise _worker_error(error) or _error_from_text(str(error)) from error


def _worker_error(error: BaseException) -> SfRayError | None:
    """The `SfRayError` that a task or a method raised, if it did."""
    while isinstance(error, RayTaskError):  # which has one as its cause where tasks are nested
        error = error.cause
    # A copy, because an error that is raised from the one that holds it is a cycle of references:
    # what its traceback refers to, such as actors, would live until the garbage collector runs.
    return copy(error) if isinstance(error, SfRayError) else None


def _error_from_text(text: str) -> SfRayError:
    """The last `SfRayError` in a traceback; a `ClusterError` where the traceback has none."""
    text = text.strip()
    # A message ends at an empty line: Ray's advice or the next traceback follows.
    ours = re.findall(r"^sf_ray\.errors\.(\w+): (.+(?:\n.+)*)", text, re.MULTILINE)
    if ours:
        name, message = ours[-1]
        return _MADE_OF_TEXT.get(name, SfRayError)(message)
    # Lines below the exception are Ray's advice.
    raised = re.findall(r"^[\w.]+(?:Error|Exception|Died|Exit)\b.*$", text, re.MULTILINE)
    cause = raised[-1] if raised else text.splitlines()[-1]
    return ClusterError(f"a Ray task failed: {cause}")
