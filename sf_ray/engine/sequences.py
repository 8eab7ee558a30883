"""Token sequences as the engine takes them: ids, and which of them are scored. Plain arrays."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

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


@dataclass(frozen=True)
class TokenSequences:
    """n sequences in flat arrays, one after the other: to handle thousands makes no object each.

        ids           q0 q1 a0 a1 | a0 a1        a row's conditioned pass, then its direct pass
        starts        0             4     6
        spans         (2, 4)        (1, 2)       counted from the start of the sequence
        span_starts   0             1     2

    Attributes:
        ids: [tokens] int32 token ids of all sequences.
        starts: [n + 1] where each sequence begins in `ids`; the last is the end.
        spans: [s, 2] first and stop of each span, as `TokenSequence.spans` has them.
        span_starts: [n + 1] where each sequence's spans begin in `spans`; the last is the end.
    """

    ids: NDArray[np.int32]
    starts: Ints
    spans: Ints
    span_starts: Ints

    @classmethod
    def of(cls, sequences: Sequence[TokenSequence]) -> "TokenSequences":
        """Copies sequences into flat arrays."""
        ids = np.concatenate([np.empty(0, np.int32), *(s.ids for s in sequences)])
        spans = np.array([span for s in sequences for span in s.spans], np.int64).reshape(-1, 2)
        return cls(
            ids,
            offsets([len(s.ids) for s in sequences]),
            spans,
            offsets([len(s.spans) for s in sequences]),
        )

    @classmethod
    def joined(cls, parts: Sequence["TokenSequences"]) -> "TokenSequences":
        """The sequences of several parts, one after the other; copies them."""
        return cls(
            np.concatenate([np.empty(0, np.int32), *(part.ids for part in parts)]),
            offsets(np.concatenate([np.empty(0, np.int64), *(part.lengths for part in parts)])),
            np.concatenate([np.empty((0, 2), np.int64), *(part.spans for part in parts)]),
            offsets(
                np.concatenate(
                    [np.empty(0, np.int64), *(np.diff(part.span_starts) for part in parts)]
                )
            ),
        )

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __iter__(self) -> Iterator[TokenSequence]:
        """Makes an object of each sequence, for code that need not be fast."""
        for ids, spans in zip(pairwise(self.starts), pairwise(self.span_starts), strict=True):
            edges = self.spans[slice(*spans)].tolist()
            yield TokenSequence(
                self.ids[slice(*ids)], tuple((first, stop) for first, stop in edges)
            )

    @cached_property
    def lengths(self) -> Ints:
        """[n] tokens of each sequence."""
        return np.diff(self.starts)

    @cached_property
    def span_lengths(self) -> Ints:
        """[s] scored tokens of each span."""
        lengths: Ints = self.spans[:, 1] - self.spans[:, 0]
        return lengths

    @cached_property
    def token_starts(self) -> Ints:
        """[s + 1] where each span's tokens begin among the scored tokens of all spans."""
        return offsets(self.span_lengths)

    @cached_property
    def scored(self) -> Ints:
        """[n] scored tokens of each sequence."""
        starts = self.token_starts
        scored: Ints = starts[self.span_starts[1:]] - starts[self.span_starts[:-1]]
        return scored

    def take(self, chosen: Ints) -> "TokenSequences":
        """Some of the sequences, in the order of `chosen` [m]."""
        lengths = self.lengths[chosen]
        span_counts = np.diff(self.span_starts)[chosen]
        return TokenSequences(
            self.ids[ranges(self.starts[chosen], lengths)],
            offsets(lengths),
            self.spans[self.spans_of(chosen)],
            offsets(span_counts),
        )

    def spans_of(self, chosen: Ints) -> Ints:
        """Places in `spans` of the spans of some sequences, sequence after sequence."""
        return ranges(self.span_starts[chosen], np.diff(self.span_starts)[chosen])

    def tokens_of(self, spans: Ints) -> Ints:
        """Places of the tokens of some spans among the scored tokens of all, span after span."""
        return ranges(self.token_starts[spans], self.span_lengths[spans])

    def predictions(self, chosen: Ints, starts: Ints) -> "Predictions":
        """What a model has to predict in some of the sequences, sequence after sequence.

        Args:
            chosen: [m] indices of the sequences.
            starts: [m] where the tokens of each begin in what the model is fed.
        """
        span = self.spans_of(chosen)
        lengths, counts = self.span_lengths[span], np.diff(self.span_starts)[chosen]
        first = self.spans[span, 0]
        # Token t is predicted from the hidden state at t - 1.
        fed_at = ranges(np.repeat(starts, counts) + first - 1, lengths)
        targets = self.ids[ranges(np.repeat(self.starts[chosen], counts) + first, lengths)]
        return Predictions(fed_at, targets, np.repeat(span, lengths))


class Predictions(NamedTuple):
    """The p tokens that are scored in some sequences.

    Attributes:
        fed_at: [p] place, in what the model is fed, of the token before each: its hidden state
            predicts the scored token.
        targets: [p] int32 ids of the scored tokens.
        spans: [p] the span of each, counted through all sequences.
    """

    fed_at: Ints
    targets: NDArray[np.int32]
    spans: Ints


def offsets(lengths: ArrayLike) -> Ints:
    """[n + 1] where parts of these lengths begin when they stand one after the other."""
    ends = np.cumsum(lengths, dtype=np.int64)
    return np.concatenate([[0], ends])


def ranges(starts: Ints, lengths: Ints) -> Ints:
    """The integers start, start + 1, ... of each range, one range after the other.

    Args:
        starts: [n] first integer of each range.
        lengths: [n] how many integers each range has.
    """
    ends = np.cumsum(lengths)
    integers: Ints = np.repeat(starts - (ends - lengths), lengths)
    integers += np.arange(len(integers))
    return integers
