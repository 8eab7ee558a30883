"""Stops a job that waits: at SIGTERM, or when another thread of the job sees a reason.

Only a signal interrupts the main thread whatever call it waits in: Python runs the signal's handler
there, and the handler raises. So a thread that sees a lost lease, or no progress, stores its error
and sends SIGTERM to the main thread. Knows no Ray.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from types import FrameType

from sf_ray.errors import SfRayError, TerminatedError

# The error of `interrupt`, for the signal handler; empty where the signal comes from outside.
_reason: list[SfRayError] = []


class Stop(BaseException):
    """Raised in the main thread by the signal handler.

    A BaseException like KeyboardInterrupt, because Ray Data catches every Exception in places.

    Attributes:
        error: The error that the job ends with.
    """

    def __init__(self, error: SfRayError) -> None:
        super().__init__(str(error))
        self.error = error


@contextmanager
def stoppable() -> Iterator[None]:
    """A context that SIGTERM and `interrupt` end, wherever its code waits.

    Outside the main thread it has no effect, because only the main thread can handle signals.

    Raises:
        TerminatedError: SIGTERM came from outside.
        SfRayError: The error of `interrupt`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _raise_stop)
    _reason.clear()
    try:
        yield
    except Stop as stop:
        raise stop.error from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _raise_stop(number: int, frame: FrameType | None) -> None:
    if _reason:
        raise Stop(_reason.pop())
    raise Stop(TerminatedError("stopped by SIGTERM; the same command goes on where this one was"))


def interrupt(error: SfRayError) -> None:
    """Raises `Stop(error)` in the main thread if that thread is inside `stoppable`."""
    if signal.getsignal(signal.SIGTERM) is _raise_stop:
        _reason.append(error)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


@contextmanager
def watched(moved: Callable[[], object], limit_s: float, stalled: SfRayError) -> Iterator[None]:
    """A context that ends with an error when its code makes no progress.

    Args:
        moved: Returns a value that changes with every bit of progress, such as a count.
        limit_s: Seconds for which the value may stay the same.
        stalled: The error to raise.

    Raises:
        SfRayError: `stalled`.
    """
    done = threading.Event()

    def watch() -> None:
        last, since = moved(), monotonic()
        while not done.wait(min(limit_s / 4, 5.0)):
            now = moved()
            if now != last:
                last, since = now, monotonic()
            elif monotonic() - since > limit_s:
                interrupt(stalled)
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    except Stop as stop:
        # Here and not only in `stoppable`, so that the caller can catch `stalled` and try again.
        raise stop.error from None
    finally:
        done.set()
        thread.join()
