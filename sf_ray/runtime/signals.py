"""How a job that waits is made to stop: by SIGTERM, or by a thread of its own that sees a reason.

What must interrupt a wait of the main thread, whatever it waits in, is a signal: its handler raises
there. So a thread that finds the lease lost, or nothing moving, leaves its error and sends one.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from types import FrameType

from sf_ray.errors import SfRayError, TerminatedError

_reason: list[SfRayError] = []


class Stop(BaseException):
    """Raised in the main thread; like KeyboardInterrupt, no `except Exception` may catch it.

    Attributes:
        error: Why.
    """

    def __init__(self, error: SfRayError) -> None:
        super().__init__(str(error))
        self.error = error


@contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM and `interrupt` end what runs inside with the error that says why.

    Outside the main thread Python takes no signals, and neither does this.
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
    told = TerminatedError("stopped by SIGTERM; the same command goes on where this one was")
    raise Stop(_reason.pop() if _reason else told)


def interrupt(error: SfRayError) -> None:
    """Raises `Stop(error)` in the main thread, if it is in `stoppable`."""
    if signal.getsignal(signal.SIGTERM) is _raise_stop:
        _reason.append(error)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


@contextmanager
def watched(moved: Callable[[], object], limit_s: float, stalled: SfRayError) -> Iterator[None]:
    """Interrupts what runs inside when nothing has moved for a while.

    Args:
        moved: Its value changes when something does.
        limit_s: How long it may stay the same.
        stalled: The error to raise.
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
        raise stop.error from None
    finally:
        done.set()
        thread.join()
