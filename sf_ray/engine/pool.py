"""A pool of token sequences that is scored as one, as batches of either sort see it.

Knows no tensors.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sf_ray.engine.pending import Usage
from sf_ray.engine.sequences import Ints, TokenSequence

OnBatch = Callable[[int, int], None] | None


@dataclass(frozen=True)
class Pool:
    """Sequences that go through the model.

    Attributes:
        sequences: [m] each has at least one scored token. With sharing, all are distinct.
        copies: [m] how many sequences of the caller each stands for.
        usage: What scoring takes; the batches add to it.
        on_batch: Called after each batch with the number of the caller's sequences and of tokens
            that went through the model, in the thread that computed the batch.
    """

    sequences: Sequence[TokenSequence]
    copies: Ints
    usage: Usage
    on_batch: OnBatch = None
