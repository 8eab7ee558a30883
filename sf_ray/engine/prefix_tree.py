"""The prefix tree of a pool of token sequences, flat: every prefix that they share stands once.

The walk through the sequences in lexicographic order is the depth-first walk of their prefix tree:
what a sequence shares with any sequence before it, it shares with the one right before it.

    sequences   a b c d      slots   0 1 2 3   a b c d
                a b x                4         . . x      (a b: slots 0 1)
                q r                  5 6       q r

A slot is a node of the tree: a token behind one certain prefix. Its keys, values and hidden state
are the same for every sequence whose path goes through it. Plain arrays; knows no tensors.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sf_ray.engine.sequences import Ints, TokenSequence, span_of_each, span_starts


@dataclass(frozen=True)
class PrefixTree:
    """n slots through which m sequences go, and the p predictions that are scored.

    The order of the tree is the lexicographic order of the sequences.

    Attributes:
        ids: [n] token ids.
        positions: [n] position of each slot's token in its sequences.
        owner: [n] the first sequence, in the order of the tree, whose path goes through a slot.
        until: [n] the first sequence after the owner whose path does not.
        ends: [m] number of slots up to the end of each sequence, in the order of the tree.
        order: [m] the order of the tree: indices into the pool.
        slots: [p] the slot in which a prediction is made, ascending.
        targets: [p] the token that is to be predicted.
        spans: [p] the span of that token, counted through the whole pool.
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
        """The tree of sequences that each have a scored token.

        A path ends before its sequence's last token: that token predicts nothing, so a forward
        pass need not be fed it.
        """
        # Any total order under which equal prefixes stand together is as good as that of the ids;
        # that of their bytes is quick to compute.
        order = np.array(sorted(range(len(pool)), key=[s.ids.tobytes() for s in pool].__getitem__))
        ordered = [pool[index] for index in order]
        fed = np.array([len(s.ids) - 1 for s in ordered])
        shared = np.minimum(_shared_with_previous(ordered), fed)
        shared[1:] = np.minimum(shared[1:], fed[:-1])
        ends = np.cumsum(fed - shared)
        until = np.full(ends[-1], len(pool))
        path = np.empty(fed.max(), np.int64)  # slots on the way to the end of a sequence
        predicted_at, first_slot, length = [], 0, 0
        for i, (s, end) in enumerate(zip(ordered, ends, strict=True)):
            until[path[shared[i] : length]] = i  # the rest of the path before ends here
            length = len(s.ids) - 1
            path[shared[i] : length] = np.arange(first_slot, end)
            # Token t is predicted in the slot of token t - 1:
            #     ids       a  b  c  d
            #     path      0  1  2        d is not fed
            #     predicts  b  c  d
            predicted_at.append(path[s.places - 1])
            first_slot = end
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

    def is_on_path(self, slot: int, earlier: Ints) -> NDArray[np.bool_]:
        """[k] which of some earlier slots lie on the path to a slot.

        In depth-first order, an earlier slot does if and only if its subtree has not ended.

        Args:
            slot: A slot.
            earlier: [k] slots before it.
        """
        on_path: NDArray[np.bool_] = self.until[earlier] > self.owner[slot]
        return on_path


def distinct(pool: Sequence[TokenSequence]) -> tuple[Ints, Ints]:
    """Finds the sequences that differ in ids or spans.

    Returns:
        [d] indices into the pool of the first of equal sequences, and [m] for each sequence of the
        pool the place of its equal in the former.
    """
    seen: dict[tuple[bytes, tuple[tuple[int, int], ...]], int] = {}
    first = [seen.setdefault((s.ids.tobytes(), s.spans), i) for i, s in enumerate(pool)]
    return np.unique(np.array(first, dtype=np.int64), return_inverse=True)


def _shared_with_previous(ordered: Sequence[TokenSequence]) -> Ints:
    """[m] number of first tokens that each sequence has in common with the one before it."""
    # All pairs of neighbours at once, each up to the shorter one's length: the first place where
    # left and right differ, at or behind a pair's start, ends what the pair has in common.
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
