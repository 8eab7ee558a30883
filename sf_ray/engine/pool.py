"""Token sequences that are scored together, as batches of every kind see them.

Knows no tensors.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from sf_ray.engine.pending import Usage
from sf_ray.engine.prefix_tree import PrefixOrder
from sf_ray.engine.sequences import Ints, TokenSequences

OnBatch = Callable[[int, int], None] | None


@dataclass(frozen=True)
class Pool:
    """Sequences that go through the model.

    Attributes:
        sequences: [n] all sequences of the caller; spans are counted through all of them.
        chosen: [m] those that go through the model, ascending; each has a scored token.
        order: The order of `chosen`, where prefixes may be shared; else None.
        copies: [n] for how many sequences of the caller each that goes through the model stands.
        usage: What scoring takes; the batches add to it.
        on_batch: Called after each batch with the number of the caller's sequences and of tokens
            that went through the model, in the thread that computed the batch.
    """

    sequences: TokenSequences
    chosen: Ints
    order: PrefixOrder | None
    copies: Ints
    usage: Usage
    on_batch: OnBatch = None

    @classmethod
    def of(
        cls, sequences: TokenSequences, share: bool, on_batch: OnBatch = None
    ) -> tuple["Pool", Ints, Ints]:
        """The pool of all sequences that have a scored token.

        Args:
            sequences: All sequences.
            share: Compute equal sequences once, and let prefixes be shared.
            on_batch: See the class.

        Returns:
            The pool, [k] the indices of all sequences that have a scored token, and [k] the index
            of the sequence of the pool that is equal to each of them.
        """
        scored = np.flatnonzero(sequences.scored)
        usage = Usage(int((sequences.lengths[scored] - 1).sum()))
        order, equals = PrefixOrder.of(sequences, scored) if share else (None, scored)
        chosen = np.sort(order.order) if order else scored
        usage.tokens_saved = usage.tokens - int((sequences.lengths[chosen] - 1).sum())
        copies = np.bincount(equals, minlength=len(sequences))
        return cls(sequences, chosen, order, copies, usage, on_batch), scored, equals

    def only(self, chosen: Ints) -> "Pool":
        """Some of the sequences once more, which then count neither as copies nor as done."""
        order = self.order.only(np.isin(self.order.order, chosen)) if self.order else None
        return Pool(self.sequences, chosen, order, np.zeros_like(self.copies), self.usage)
