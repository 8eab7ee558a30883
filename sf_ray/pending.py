"""What was begun and is not waited for yet."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass
class Usage:
    """What scoring a pool of sequences takes.

    Attributes:
        tokens: That were to be scored.
        tokens_saved: Those of them that are repeats, and do not go through the model again.
        oom_splits: How often the device ran out of memory.
    """

    tokens: int = 0
    tokens_saved: int = 0
    oom_splits: int = 0


@dataclass(frozen=True)
class Pending(Generic[T]):
    """Work that was begun.

    Attributes:
        result: Waits for what it comes to; to be called once.
        usage: What it takes; complete when the result is there.
    """

    result: Callable[[], T]
    usage: Usage
