"""What was begun and is not waited for yet."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
Item = TypeVar("Item")
Begun = TypeVar("Begun")


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


def one_ahead(
    items: Iterable[Item],
    begin: Callable[[Item], Begun],
    finish: Callable[[Begun], T],
    is_alone: Callable[[Item], bool],
) -> Iterator[T]:
    """Begins with each item before the one before it is finished, so that nobody waits for it.

    Args:
        items: Done in their order; each is taken when it begins.
        begin: Begins with an item.
        finish: Waits for what was begun; what it comes to.
        is_alone: Whether nothing else may run beside an item.
    """
    begun: list[Begun] = []
    for item in items:
        ahead = 0 if is_alone(item) else 1
        while len(begun) > ahead:
            yield finish(begun.pop(0))
        begun.append(begin(item))
        while len(begun) > ahead:
            yield finish(begun.pop(0))
    yield from map(finish, begun)
