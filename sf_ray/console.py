"""What the driver says while it works: lines on standard error; results go to standard output."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic


def say(line: str) -> None:
    """One line, at once."""
    print(line, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Seconds as a person says them: 42 s, 5 min 12 s, 3 h 20 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


@contextmanager
def timed(stage: str, wall_s: dict[str, float]) -> Iterator[None]:
    """Says how long a stage took, and adds it to `wall_s`."""
    start = monotonic()
    yield
    wall_s[stage] = monotonic() - start
    say(f"{stage}: {duration(wall_s[stage])}")
