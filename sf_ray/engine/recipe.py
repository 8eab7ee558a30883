"""How a model is trained. A plain record, so that whoever only names it imports no torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """How a model is trained.

    Attributes:
        epochs: How often each sequence is seen.
        learning_rate: The highest one.
        batch_tokens: Tokens of one step, about.
        lora_rank: Rank of adapters on all linear layers, which are merged at the end; 0 trains all
            weights.
        freeze_embeddings: Leave embeddings and LM head as they are.
    """

    epochs: int
    learning_rate: float
    batch_tokens: int
    lora_rank: int = 0
    freeze_embeddings: bool = False
