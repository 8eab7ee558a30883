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


COMMON = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
_BOTH_KINDS = {"sliding_window": 11, "layer_types": ["sliding_attention", "full_attention"]}
# Architectures with settings of a small model. Windows are shorter than the sequences of tests.
CAUSAL_MODELS: dict[str, dict[str, Any]] = {
    "GPT2": {"vocab_size": 300, "n_embd": 32, "n_layer": 2, "n_head": 4},
    "Llama": COMMON,
    "Qwen2": COMMON,
    "Qwen3": COMMON,
    "Gemma2": COMMON | _BOTH_KINDS | {"attn_logit_softcapping": None},
    "Gemma3Text": COMMON | _BOTH_KINDS,
    "Mistral": COMMON | {"sliding_window": 11},
    "GPTNeoX": COMMON,
    "OPT": {**COMMON, "ffn_dim": 64, "word_embed_proj_dim": 32},
    "Phi3": COMMON | {"pad_token_id": 0},
}


def causal_model(architecture: str, settings: dict[str, Any] | None = None) -> Any:
    """A causal language model, one of `CAUSAL_MODELS` where no settings are given."""
    import transformers

    torch.manual_seed(0)
    settings = CAUSAL_MODELS[architecture] if settings is None else settings
    config = getattr(transformers, f"{architecture}Config")(**settings)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    # Large weights, so that what a token sees shows in its loss.
    for weight in model.parameters():
        if weight.ndim == 2:
            weight.data.normal_(0, 0.3)
    return model
