"""Small random decoders, and what they compute. Seeded: the same at each call."""

from typing import Any

import torch
from torch import nn

SETTINGS = {
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 8,
}

IDS = torch.arange(3, 45).view(3, 14)


def decoder_of(architecture: str, **settings: Any) -> nn.Module:
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{architecture}Config")(**(settings or SETTINGS))
    decoder: nn.Module = transformers.AutoModel.from_config(config).eval()
    return decoder


def model_of(architecture: str) -> Any:
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{architecture}Config")(**SETTINGS)
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def linears(decoder: nn.Module) -> list[nn.Linear]:
    return [m for m in decoder.modules() if isinstance(m, nn.Linear)]


@torch.no_grad()
def hidden(decoder: nn.Module, low: bool = False) -> torch.Tensor:
    """[3, 14, hidden size] float32; `low` computes products in bfloat16."""
    with torch.autocast("cpu", torch.bfloat16, enabled=low):
        states: torch.Tensor = decoder(input_ids=IDS, use_cache=False).last_hidden_state
    return states.float()
