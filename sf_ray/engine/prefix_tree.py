"""The prefix tree of token sequences, flat: every prefix that they share stands once.

The walk through the sequences in lexicographic order is the depth-first walk of their prefix tree:
what a sequence shares with any sequence before it, it shares with the one right before it.

    sequences   a b c d      slots   0 1 2 3   a b c d
                a b x                4         . . x      (a b: slots 0 1)
                q r                  5 6       q r

A slot is a node of the tree: a token behind one certain prefix. Its keys, values and hidden state
are the same for every sequence whose path goes through it. Plain arrays; knows no tensors. There is
no loop over sequences but the sort: a card scores thousands of them in a second.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sf_ray.engine.sequences import Ints, TokenSequences, offsets, ranges


@dataclass(frozen=True)
class PrefixOrder:
    """m distinct sequences in lexicographic order, and what each shares with the one before it.

    A sequence's last token predicts nothing, so it is not fed and counts nowhere here.

    Attributes:
        order: [m] indices of the sequences.
        fed: [m] tokens of each that go through the model.
        shared: [m] how many of them, from the first on, are those of the sequence before.
    """

    order: Ints
    fed: Ints
    shared: Ints

    @classmethod
    def of(cls, sequences: TokenSequences, chosen: Ints) -> tuple["PrefixOrder", Ints]:
        """Puts some sequences in order; of those with equal ids and spans it keeps the first.

        Args:
            sequences: All sequences.
            chosen: [k] indices, ascending, of those to put in order; each has a scored token.

        Returns:
            The order, and [k] for each of `chosen` the index of its equal in the order.
        """
        # Any total order under which equal prefixes stand together is as good as that of the ids;
        # that of their bytes is quick to compute.
        keys = _bytes_of(sequences.ids, sequences.starts, chosen)
        by_key = np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)
        order = chosen[by_key]
        lengths = sequences.lengths[order]
        common = _common_with_previous(sequences, order)
        # Of two that begin alike the shorter one is first: one that is all in common is equal.
        first = _first_of_equals(sequences, order, common == lengths)
        equals = np.empty_like(chosen)
        equals[by_key] = first
        fed = lengths - 1
        shared = np.minimum(common, fed)
        shared[1:] = np.minimum(shared[1:], fed[:-1])
        return cls(order, fed, shared).only(first == order), equals

    def __len__(self) -> int:
        return len(self.order)

    @property
    def slots(self) -> int:
        """The number of slots of one tree of all sequences."""
        return int(self.fed.sum() - self.shared.sum())

    def only(self, kept: NDArray[np.bool_]) -> "PrefixOrder":
        """The order of those sequences for which `kept` [m] is true."""
        places = np.flatnonzero(kept)
        if len(places) in (0, len(self)):
            return PrefixOrder(self.order[places], self.fed[places], self.shared[places])
        # Two share what all between them share.
        until_last = self.shared[: places[-1] + 1]
        shared = np.minimum.reduceat(until_last, np.append(0, places[:-1] + 1))
        return PrefixOrder(self.order[places], self.fed[places], shared)


@dataclass(frozen=True)
class PrefixTree:
    """n slots through which m sequences go, and the p predictions that are scored.

    The order of the tree is that of a `PrefixOrder`.

    Attributes:
        sequences: [m] indices of the sequences, in the order of the tree.
        ids: [n] int32 token ids.
        positions: [n] position of each slot's token in its sequences.
        ends: [m] number of slots up to the end of each sequence.
        paths: [sum of tokens fed] the slots that each sequence goes through, one after the other.
        path_starts: [m + 1] where the path of each sequence begins in `paths`; the last is the end.
        slots: [p] the slot in which a prediction is made, sequence after sequence.
        targets: [p] int32 ids of the tokens that are to be predicted.
        spans: [p] the span of that token, counted through all sequences.
    """

    sequences: Ints
    ids: NDArray[np.int32]
    positions: Ints
    ends: Ints
    paths: Ints
    path_starts: Ints
    slots: Ints
    targets: NDArray[np.int32]
    spans: Ints

    @classmethod
    def of(
        cls, sequences: TokenSequences, order: PrefixOrder, start: int = 0, stop: int | None = None
    ) -> "PrefixTree":
        """The tree of the sequences [start, stop) of an order, which shares nothing with others.

        Args:
            sequences: All sequences.
            order: The order of some of them.
            start: The first that goes through the tree.
            stop: The one after the last; None: the end of the order.
        """
        chosen, fed = order.order[start:stop], order.fed[start:stop]
        shared = order.shared[start:stop].copy()
        shared[:1] = 0
        own = fed - shared
        ends, path_starts = np.cumsum(own), offsets(fed)
        paths = _paths(shared, own, path_starts)
        # Token t is predicted in the slot of token t - 1:
        #     ids       a  b  c  d
        #     path      0  1  2        d is not fed
        #     predicts  b  c  d
        predictions = sequences.predictions(chosen, path_starts[:-1])
        return cls(
            sequences=chosen,
            ids=sequences.ids[ranges(sequences.starts[chosen] + shared, own)],
            positions=ranges(shared, own),
            ends=ends,
            paths=paths,
            path_starts=path_starts,
            slots=paths[predictions.fed_at],
            targets=predictions.targets,
            spans=predictions.spans,
        )

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def by_slot(self) -> tuple[Ints, NDArray[np.int32], Ints]:
        """Slots, targets and spans of the predictions, [p] each, the slots ascending."""
        order = np.argsort(self.slots, kind="stable")
        return self.slots[order], self.targets[order], self.spans[order]

    @cached_property
    def own(self) -> Ints:
        """[m] how many slots each sequence adds to those before it."""
        return np.diff(self.ends, prepend=0)

    @cached_property
    def owner(self) -> Ints:
        """[n] the first sequence, in the order of the tree, whose path goes through a slot."""
        return np.repeat(np.arange(len(self.own)), self.own)

    @cached_property
    def until(self) -> Ints:
        """[n] the first sequence after the owner whose path does not go through a slot."""
        until = np.empty(len(self), np.int64)
        # A slot that several paths go through takes the number of the last one.
        until[self.paths] = np.repeat(np.arange(1, len(self.own) + 1), np.diff(self.path_starts))
        return until

    def is_on_path(self, slot: int, earlier: Ints) -> NDArray[np.bool_]:
        """[k] which of some earlier slots lie on the path to a slot.

        In depth-first order, an earlier slot does if and only if its subtree has not ended.

        Args:
            slot: A slot.
            earlier: [k] slots before it.
        """
        on_path: NDArray[np.bool_] = self.until[earlier] > self.owner[slot]
        return on_path


def _bytes_of(values: NDArray[np.integer], starts: Ints, chosen: Ints) -> Sequence[bytes]:
    """[m] the bytes of some parts of an array [values, ..], part i being starts[i : i + 2]."""
    data = values.tobytes()
    at = starts * (len(data) // max(len(values), 1))
    edges = zip(at[chosen].tolist(), at[chosen + 1].tolist(), strict=True)
    return [data[first:stop] for first, stop in edges]


def _common_with_previous(sequences: TokenSequences, order: Ints) -> Ints:
    """[m] number of first tokens that each sequence has in common with the one before it."""
    shared = np.zeros(len(order), np.int64)
    starts, lengths = sequences.starts[order], sequences.lengths[order]
    most = np.minimum(lengths[1:], lengths[:-1])  # of each pair of neighbours
    # All pairs at once: the first tokens of each, then of those that are equal so far twice as many
    # more, and so on.
    pairs, first, count = np.arange(len(most)), 0, 4
    while len(pairs):
        columns = np.arange(first, first + count)
        left, right = (
            sequences.ids.take(begin[:, None] + columns, mode="clip")
            for begin in (starts[pairs], starts[pairs + 1])
        )
        equal = left == right
        common = np.where(equal.all(1), count, equal.argmin(1))
        shared[pairs + 1] = np.minimum(first + common, most[pairs])
        pairs = pairs[(common == count) & (first + count < most[pairs])]
        first, count = first + count, 2 * count
    return shared


def _first_of_equals(sequences: TokenSequences, order: Ints, same_ids: NDArray[np.bool_]) -> Ints:
    """[m] for each sequence in order the first one with equal ids and spans.

    Args:
        sequences: All sequences.
        order: [m] indices; of equal ids, the lower index first.
        same_ids: [m] whether a sequence has the ids of the one before it.
    """
    group = np.cumsum(~same_ids)
    several = np.flatnonzero(same_ids | np.append(same_ids[1:], False))
    first = order.copy()
    spans = _bytes_of(sequences.spans, sequences.span_starts, order[several])
    seen: dict[tuple[int, bytes], int] = {}
    keys = zip(group[several].tolist(), spans, strict=True)
    first[several] = [
        seen.setdefault(key, index)
        for key, index in zip(keys, order[several].tolist(), strict=True)
    ]
    return first


def _paths(shared: Ints, own: Ints, path_starts: Ints) -> Ints:
    """[sum of tokens fed] the slots that each of m sequences goes through, one after the other.

    Args:
        shared: [m] slots at the start of each path that lie on the path before it.
        own: [m] slots that each sequence adds.
        path_starts: [m + 1] where each path begins in the result.
    """
    if not shared.any():
        return np.arange(path_starts[-1])
    paths = np.empty(path_starts[-1], np.int64)
    paths[ranges(path_starts[:-1] + shared, own)] = np.arange(own.sum())
    # The shared part comes from the sequence that added the last slot of that part. Parents first:
    # all sequences of one depth at once.
    parents = _parents(shared)
    has_path = shared == 0
    waiting = np.flatnonzero(~has_path)
    while len(waiting):
        ready = waiting[has_path[parents[waiting]]]
        theirs = ranges(path_starts[parents[ready]], shared[ready])
        paths[ranges(path_starts[ready], shared[ready])] = paths[theirs]
        has_path[ready] = True
        waiting = waiting[~has_path[waiting]]
    return paths


def _parents(shared: Ints) -> Ints:
    """[m] the last sequence before each that shares less, so that it added what follows.

    Where a sequence shares nothing, the value has no meaning.
    """
    parents = np.maximum(np.arange(len(shared)) - 1, 0)
    waiting = np.flatnonzero(shared > 0)
    while True:
        # All between a sequence and its candidate share as much as the sequence or more. If the
        # candidate does so too, the same holds for all up to the candidate's own.
        waiting = waiting[shared[parents[waiting]] >= shared[waiting]]
        if not len(waiting):
            return parents
        parents[waiting] = parents[parents[waiting]]
