"""A pool of token sequences as one stream, in which every prefix that they share stands once.

Sequences in lexicographic order are the depth-first walk of their prefix tree: what a sequence
shares with any other before it, it shares with the one right before it.

    sequences   a b c d      slots   0 1 2 3   a b c d
                a b x                4         . . x      (a b: slots 0 1)
                q r                  5 6       q r

A slot is a token behind one certain prefix; its keys, values and hidden state are the same for
every sequence that goes through it. Plain arrays; knows no tensors.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sf_ray.engine.sequences import Ints, TokenSequence, span_of_each, span_starts


@dataclass(frozen=True)
class PrefixTree:
    """n slots that feed m sequences, and the p predictions that are scored.

    Attributes:
        ids: [n] token ids.
        positions: [n] place of each in its sequence.
        owner: [n] the first sequence, in the stream's order, that goes through a slot.
        until: [n] the first one after it that does not.
        ends: [m] slots before and with each sequence's own; not in order of the pool.
        order: [m] the stream's order: indices into the pool.
        slots: [p] where a prediction is made, ascending.
        targets: [p] the token that is to be predicted there.
        spans: [p] the span that it belongs to, among those of all sequences of the pool.
    """

    ids: Ints
    positions: Ints
    owner: Ints
    until: Ints
    ends: Ints
    order: Ints
    slots: Ints
    targets: Ints
    spans: Ints

    @classmethod
    def of(cls, pool: Sequence[TokenSequence]) -> "PrefixTree":
        """The stream of sequences that each have a scored token.

        Like a forward pass, it ends before each sequence's last token, which predicts nothing.
        """
        order = np.array(sorted(range(len(pool)), key=[s.ids.tobytes() for s in pool].__getitem__))
        ordered = [pool[index] for index in order]
        fed = np.array([len(s.ids) - 1 for s in ordered])
        shared = np.minimum(_shared_with_previous(ordered), fed)
        shared[1:] = np.minimum(shared[1:], fed[:-1])
        ends = np.cumsum(fed - shared)
        until = np.full(ends[-1], len(pool))
        path = np.empty(fed.max(), np.int64)
        predicted_at, before, length = [], 0, 0
        for i, (s, end) in enumerate(zip(ordered, ends, strict=True)):
            until[path[shared[i] : length]] = i
            length = len(s.ids) - 1
            path[shared[i] : length] = np.arange(before, end)
            predicted_at.append(path[s.places - 1])
            before = end
        slots = np.concatenate(predicted_at)
        by_slot = np.argsort(slots, kind="stable")
        owner = np.repeat(np.arange(len(pool)), fed - shared)
        return cls(
            ids=_concatenate([s.ids[a:b] for s, a, b in zip(ordered, shared, fed, strict=True)]),
            positions=np.arange(len(owner)) - (ends - fed)[owner],
            owner=owner,
            until=until,
            ends=ends,
            order=order,
            slots=slots[by_slot],
            targets=_concatenate([s.ids[s.places] for s in ordered])[by_slot],
            spans=span_of_each(pool, order, span_starts(pool))[by_slot],
        )

    def __len__(self) -> int:
        return len(self.ids)

    def path(self, slot: int, among: Ints) -> NDArray[np.bool_]:
        """Which of some slots before a slot lie on the way to it."""
        on_path: NDArray[np.bool_] = self.until[among] > self.owner[slot]
        return on_path


def distinct(pool: Sequence[TokenSequence]) -> tuple[Ints, Ints]:
    """Equal sequences with equal spans, once.

    Returns:
        Indices into the pool of the first of each, and for each of the pool its place in those.
    """
    seen: dict[tuple[bytes, tuple[tuple[int, int], ...]], int] = {}
    places = [seen.setdefault((s.ids.tobytes(), s.spans), i) for i, s in enumerate(pool)]
    return np.unique(np.array(places, dtype=np.int64), return_inverse=True)


def _shared_with_previous(ordered: Sequence[TokenSequence]) -> Ints:
    """[m] tokens at the start of each sequence that the one before it has too."""
    common = np.array([0] + [min(len(a.ids), len(b.ids)) for a, b in pairwise(ordered)])
    ends = np.cumsum(common)
    left = _concatenate([s.ids[:n] for s, n in zip(ordered[:-1], common[1:], strict=True)])
    right = _concatenate([s.ids[:n] for s, n in zip(ordered[1:], common[1:], strict=True)])
    differ = np.append(np.flatnonzero(left != right), ends[-1])
    starts = ends - common
    shared: Ints = np.minimum(differ[np.searchsorted(differ, starts)], ends) - starts
    return shared


def _concatenate(arrays: list[NDArray[np.int32]]) -> Ints:
    return np.concatenate([np.empty(0, np.int64), *arrays]).astype(np.int64)
