"""Work that was begun and whose result is not taken yet, and what it takes.

Knows no tensors and no model.
"""

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
        tokens: Tokens that would go through the model if nothing were shared.
        tokens_saved: Those of them that repeat a prefix, and do not go through the model again.
        oom_splits: How often the device ran out of memory and a batch was made smaller.
    """

    tokens: int = 0
    tokens_saved: int = 0
    oom_splits: int = 0


@dataclass(frozen=True)
class Pending(Generic[T]):
    """Work that was begun.

    Attributes:
        result: Waits for the result, and returns it or raises; to be called once.
        usage: What the work takes; complete when `result` has returned.
    """

    result: Callable[[], T]
    usage: Usage


def one_ahead(
    items: Iterable[Item],
    begin: Callable[[Item], Begun],
    finish: Callable[[Begun], T],
    is_alone: Callable[[Item], bool],
) -> Iterator[T]:
    """Begins each item before it finishes the item before, so that the device always has work.

    Args:
        items: Done in their order; each is taken when it begins.
        begin: Begins an item.
        finish: Waits for a begun item and returns its result.
        is_alone: Whether nothing else may run beside an item.

    Yields:
        The result of each item.
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
