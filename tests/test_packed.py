"""Layers with their weights laid out for oneDNN, against the layers as they were."""

import platform
from typing import Any

import pytest
import torch
from torch import nn

from sf_ray.packed import _PackedLinear, pack

pytestmark = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="other processors keep their layers"
)

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


@torch.no_grad()
def hidden(decoder: nn.Module, low: bool = False) -> torch.Tensor:
    with torch.autocast("cpu", torch.bfloat16, enabled=low):
        states: torch.Tensor = decoder(input_ids=IDS, use_cache=False).last_hidden_state
    return states.float()


def linears(decoder: nn.Module) -> list[nn.Linear]:
    return [m for m in decoder.modules() if isinstance(m, nn.Linear)]


def fused(decoder: nn.Module) -> int:
    return sum("forward" in vars(m) for m in decoder.modules())


@pytest.mark.parametrize(
    ("architecture", "mlps"), [("Llama", 2), ("Qwen2", 2), ("Gemma", 0), ("GPTNeoX", 0)]
)
def test_a_packed_decoder_gives_the_same(architecture: str, mlps: int) -> None:
    decoder = decoder_of(architecture)
    expected = hidden(decoder)
    pack(decoder, "float32", 64)
    assert fused(decoder) == mlps
    # The old weights are gone.
    assert all(type(m) is _PackedLinear and m.weight.is_mkldnn for m in linears(decoder))
    torch.testing.assert_close(hidden(decoder), expected, rtol=1e-5, atol=1e-5)


def test_bfloat16_is_packed_for_autocast_alone() -> None:
    decoder = decoder_of("Qwen2")  # its query, key and value have biases
    expected, low = hidden(decoder), hidden(decoder, low=True)
    pack(decoder, "bfloat16", 64)
    assert fused(decoder) == 2
    assert torch.equal(hidden(decoder), expected)
    made = hidden(decoder, low=True)
    assert not torch.equal(made, expected)
    assert (made - expected).norm() < 1.2 * (low - expected).norm()


def test_layers_that_use_their_weights_themselves_are_left_as_they_were() -> None:
    decoder = decoder_of("Mamba", vocab_size=100, hidden_size=32, num_hidden_layers=2)
    expected = hidden(decoder)
    pack(decoder, "float32", 64)
    assert all(type(m) is nn.Linear for m in linears(decoder))
    assert torch.equal(hidden(decoder), expected)


def test_what_only_looks_like_a_gated_mlp_is_computed_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from transformers.models.llama.modeling_llama import LlamaMLP

    plain = LlamaMLP.forward
    monkeypatch.setattr(LlamaMLP, "forward", lambda self, states: 2 * plain(self, states))
    decoder = decoder_of("Llama")
    expected = hidden(decoder)
    pack(decoder, "float32", 64)
    assert fused(decoder) == 0
    assert all(type(m) is _PackedLinear for m in linears(decoder))
    torch.testing.assert_close(hidden(decoder), expected, rtol=1e-5, atol=1e-5)


def test_other_types_keep_their_layers() -> None:
    decoder = decoder_of("Llama")
    pack(decoder, "float16", 64)
    assert all(type(m) is nn.Linear for m in linears(decoder))
