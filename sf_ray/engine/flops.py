"""FLOPs of forward passes before they are done, from lengths and the shapes of weights.

Knows a model by its configuration; loads no weights. Counts what the formulas of a transformer
need: every token goes once through the layers, every scored position through the LM head, and each
token looks at the tokens before it. Norms, activations and what is computed twice for speed are
left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from sf_ray.engine.sequences import TokenSequences
from sf_ray.errors import SfRayError

Shape = tuple[int, ...]
ATTENTION = "attention"


@dataclass(frozen=True)
class Work:
    """The size of some forward passes, whatever the model.

    Attributes:
        tokens: Tokens that go through the layers.
        scored: Positions that go through the LM head.
        pairs: Pairs of a token and one that it looks at: n^2 / 2 for a sequence of n tokens.
    """

    tokens: int = 0
    scored: int = 0
    pairs: float = 0.0

    @classmethod
    def plain(cls, sequences: TokenSequences) -> "Work":
        """The work where nothing is shared; sequences without a scored token are left out.

        The last token of a sequence predicts nothing, so it is not fed.
        """
        fed = sequences.lengths[sequences.scored > 0] - 1
        return cls(int(fed.sum()), int(sequences.scored.sum()), float(fed @ fed) / 2)

    def __add__(self, other: "Work") -> "Work":
        return Work(
            self.tokens + other.tokens, self.scored + other.scored, self.pairs + other.pairs
        )


@dataclass(frozen=True)
class ModelCost:
    """The matrix products of a model.

    Attributes:
        layers: Shape of a weight -> how many weights of that shape each token is multiplied with,
            in all layers. Of the experts of a mixture, those that one token is routed to.
        head: Shape of the LM head.
        attention_width: Columns of the queries, summed over all layers.
    """

    layers: Mapping[Shape, float]
    head: Shape
    attention_width: int

    def flops_by_shape(self, work: Work) -> dict[Shape | str, float]:
        """Shape of a weight, or "attention" -> FLOPs; a multiply-add counts as two."""
        flops: dict[Shape | str, float] = {
            shape: 2.0 * count * prod(shape) * work.tokens for shape, count in self.layers.items()
        }
        head_flops = 2.0 * prod(self.head) * work.scored
        flops[self.head] = flops.get(self.head, 0.0) + head_flops
        # Two products, of queries with keys and of weights with values.
        flops[ATTENTION] = 4.0 * self.attention_width * work.pairs
        return flops

    def flops(self, work: Work) -> float:
        """FLOPs of all matrix products."""
        return sum(self.flops_by_shape(work).values())


def cost_of(model: Any) -> ModelCost:
    """The cost of a causal language model of transformers; its weights may be on "meta"."""
    from torch import nn

    head = model.get_output_embeddings().weight
    config = model.config.get_text_config()
    layers: dict[Shape, float] = {}
    for module in model.get_decoder().modules():
        if isinstance(module, nn.Embedding):  # a look-up, no product
            continue
        for weight in module.parameters(recurse=False):
            shape = tuple(weight.shape)
            if weight.ndim == 3:  # [experts, m, n]
                experts = getattr(config, "num_experts_per_tok", None) or shape[0]
                layers[shape] = layers.get(shape, 0) + experts / shape[0]
            elif weight.ndim == 2:
                layers[shape] = layers.get(shape, 0) + 1
    heads = config.num_attention_heads
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    return ModelCost(dict(layers), tuple(head.shape), config.num_hidden_layers * width)


def cost_of_config(model_dir: Path, trust_remote_code: bool = False) -> ModelCost:
    """The cost of a model, from its configuration alone.

    Args:
        model_dir: Directory with config.json.
        trust_remote_code: Run Python code from the model's directory.

    Raises:
        SfRayError: The configuration is of no causal language model that transformers can make.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(model_dir, trust_remote_code=trust_remote_code)
        with torch.device("meta"):  # shapes without numbers
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    except Exception as error:  # its files may be anybody's, and raise anything
        raise SfRayError(
            f"model {model_dir}: its config.json does not make a causal language model: {error}"
        ) from error
    return cost_of(model)
