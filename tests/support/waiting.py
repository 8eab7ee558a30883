"""How long a test waits for what another process does."""

import time
from collections.abc import Callable

# Seconds that only a hang takes, however slow and loaded the machine is. Less than pytest's own
# limit, so that a failure says what was waited for.
HANG_S = 600


def wait_until(seen: Callable[[], object], said: Callable[[], str] = str) -> None:
    """Waits until something is seen.

    Args:
        seen: Whether it is; may raise where it never will be.
        said: What the failure shows where it is not, such as the log of a process.
    """
    deadline = time.monotonic() + HANG_S
    while not seen():
        assert time.monotonic() < deadline, said()
        time.sleep(0.02)
