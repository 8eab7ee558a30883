import os
import signal
import threading
import time

import pytest

from sf_ray.errors import ClusterError, SfRayError, TerminatedError
from sf_ray.runtime.signals import Stop, interrupt, stoppable, watched


def test_sigterm_ends_any_wait_with_word_how_to_go_on() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(TerminatedError, match="the same command goes on") as error, stoppable():
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
        time.sleep(30)
    assert error.value.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_thread_can_end_the_wait_with_its_reason() -> None:
    with pytest.raises(SfRayError, match="too much rubbish"), stoppable():
        threading.Timer(0.1, interrupt, (SfRayError("too much rubbish"),)).start()
        threading.Event().wait(30)


def test_a_stop_passes_what_catches_exceptions() -> None:
    with pytest.raises(TerminatedError), stoppable():
        try:
            signal.raise_signal(signal.SIGTERM)
        except Exception:  # noqa: BLE001 (what Ray Data does in places)
            pytest.fail("was caught")
    assert not issubclass(Stop, Exception)


def test_nothing_is_interrupted_outside() -> None:
    interrupt(SfRayError("nobody hears this"))
    went_on = False
    with stoppable():
        time.sleep(0.1)
        went_on = True
    assert went_on


def test_what_does_not_move_is_interrupted_and_what_moves_is_not() -> None:
    stalled = ClusterError("nothing moves")
    with stoppable():
        with watched(time.monotonic, 0.2, stalled):
            time.sleep(1)
        with pytest.raises(ClusterError, match="nothing moves"), watched(lambda: 0, 0.2, stalled):
            time.sleep(30)


def test_another_thread_than_the_main_one_may_run_a_job() -> None:
    ran = []

    def job() -> None:
        with stoppable():
            ran.append(True)

    thread = threading.Thread(target=job)
    thread.start()
    thread.join()
    assert ran == [True]
