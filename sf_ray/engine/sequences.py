"""Token sequences as the engine takes them: ids, and which of them are scored. Plain arrays."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class TokenSequence:
    """Tokens for one forward pass, and the spans of them that are scored, each on its own.

        ids     q0 q1 | a0 a1 | q2 | a2 a3       a chat with two assistant turns
        spans           2   4        5   7

    Attributes:
        ids: [length] int32 token ids.
        spans: [first, stop) of each span, in order; at least one. No span begins with token 0,
            because nothing precedes that token to predict it from. A span may be empty.
    """

    ids: NDArray[np.int32]
    spans: tuple[tuple[int, int], ...]

    @classmethod
    def scored_from(cls, ids: Sequence[int] | NDArray[np.int32], first: int) -> "TokenSequence":
        """A sequence with one span: the tokens from `first` on, empty if there are none."""
        array = np.asarray(ids, np.int32)
        return cls(array, ((first, max(len(array), first)),))

    @property
    def first(self) -> int:
        """Where the first span begins."""
        return self.spans[0][0]

    @property
    def lengths(self) -> list[int]:
        """Tokens of each span."""
        return [stop - first for first, stop in self.spans]

    @property
    def scored(self) -> int:
        """Number of tokens that are scored."""
        return sum(self.lengths)

    @property
    def places(self) -> Ints:
        """[scored] places in `ids` of the tokens that are scored."""
        return ranges(self.spans)


def ranges(spans: Iterable[tuple[int, int]]) -> Ints:
    """The integers of all [first, stop), one range after the other."""
    return np.concatenate([np.empty(0, np.int64), *(np.arange(a, b) for a, b in spans)])


def span_starts(pool: Sequence[TokenSequence]) -> Ints:
    """[m + 1] number of each sequence's first span, when the spans of all are counted through."""
    return np.cumsum([0] + [len(s.spans) for s in pool])


def span_of_each(pool: Sequence[TokenSequence], chosen: Iterable[int], starts: Ints) -> Ints:
    """The span, counted through the whole pool, of each scored token of some of its sequences.

    Args:
        pool: The pool.
        chosen: Indices into the pool.
        starts: `span_starts(pool)`.
    """
    spans = [np.empty(0, np.int64)]
    for i in chosen:
        spans.append(np.repeat(np.arange(starts[i], starts[i + 1]), pool[i].lengths))
    return np.concatenate(spans)
