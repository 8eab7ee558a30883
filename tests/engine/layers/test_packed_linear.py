"""Linear layers with weights in oneDNN's layout, against the same layers before."""

import pytest
import torch
from torch import nn

from sf_ray.engine.layers import onednn
from sf_ray.engine.layers.packed_linear import pack_linear_layers
from tests.support.decoders import decoder_of, hidden, linears


def fused(decoder: nn.Module) -> int:
    return sum("forward" in vars(m) for m in decoder.modules())


@pytest.mark.parametrize(
    ("architecture", "mlps"), [("Llama", 2), ("Qwen2", 2), ("Gemma", 0), ("GPTNeoX", 0)]
)
def test_a_packed_decoder_gives_the_same(architecture: str, mlps: int) -> None:
    decoder = decoder_of(architecture)
    expected = hidden(decoder)
    pack_linear_layers(decoder, "float32", 64)
    is_packed = onednn.supports(torch.float32)
    assert fused(decoder) == (mlps if is_packed else 0)
    # The dense weights are gone.
    assert all(m.weight.is_mkldnn is is_packed for m in linears(decoder))
    torch.testing.assert_close(hidden(decoder), expected, rtol=1e-5, atol=1e-5)


def test_bfloat16_is_packed_for_autocast_alone() -> None:
    decoder = decoder_of("Qwen2")  # its query, key and value have biases
    expected, low = hidden(decoder), hidden(decoder, low=True)
    pack_linear_layers(decoder, "bfloat16", 64)
    # Where the CPU lacks the instructions, the layers stay as they were.
    assert fused(decoder) == (2 if onednn.supports(torch.bfloat16) else 0)
    assert torch.equal(hidden(decoder), expected)
    packed = hidden(decoder, low=True)
    assert not torch.equal(packed, expected)
    assert (packed - expected).norm() < 1.2 * (low - expected).norm()


def test_layers_that_use_their_weights_themselves_are_left_as_they_were() -> None:
    decoder = decoder_of("Mamba", vocab_size=100, hidden_size=32, num_hidden_layers=2)
    expected = hidden(decoder)
    why_not = pack_linear_layers(decoder, "float32", 64)
    assert why_not
    assert all(type(m) is nn.Linear for m in linears(decoder))
    assert torch.equal(hidden(decoder), expected)


def test_layers_whose_products_change_in_the_new_layout_are_left_as_they_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decoder = decoder_of("Llama")
    expected = hidden(decoder)
    right = onednn.linear
    assert onednn.supports(torch.float32)  # tried before, with the right products
    monkeypatch.setattr(onednn, "linear", lambda *given: 1.1 * right(*given))
    why_not = pack_linear_layers(decoder, "float32", 64)
    assert "give something else" in (why_not or "")
    assert all(type(m) is nn.Linear for m in linears(decoder))
    assert fused(decoder) == 0
    torch.testing.assert_close(hidden(decoder), expected, rtol=1e-6, atol=1e-6)


def test_what_only_looks_like_a_gated_mlp_is_computed_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from transformers.models.llama.modeling_llama import LlamaMLP

    plain = LlamaMLP.forward
    monkeypatch.setattr(LlamaMLP, "forward", lambda self, states: 2 * plain(self, states))
    decoder = decoder_of("Llama")
    expected = hidden(decoder)
    pack_linear_layers(decoder, "float32", 64)
    assert fused(decoder) == 0
    assert all(m.weight.is_mkldnn is onednn.supports(torch.float32) for m in linears(decoder))
    torch.testing.assert_close(hidden(decoder), expected, rtol=1e-5, atol=1e-5)


def test_other_types_keep_their_layers() -> None:
    decoder = decoder_of("Llama")
    assert pack_linear_layers(decoder, "float16", 64) is None
    assert all(type(m) is nn.Linear for m in linears(decoder))
