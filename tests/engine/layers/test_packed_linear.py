"""Layers with their weights laid out for oneDNN, against the layers as they were."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from sf_ray.engine.layers import onednn
from sf_ray.engine.layers.lm_head import LMHead
from sf_ray.engine.layers.packed_linear import pack
from tests.support.decoders import SETTINGS, decoder_of, hidden, model_of


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
    is_packed = onednn.supports(torch.float32)
    assert fused(decoder) == (mlps if is_packed else 0)
    # The old weights are gone.
    assert all(m.weight.is_mkldnn is is_packed for m in linears(decoder))
    torch.testing.assert_close(hidden(decoder), expected, rtol=1e-5, atol=1e-5)


def test_bfloat16_is_packed_for_autocast_alone() -> None:
    decoder = decoder_of("Qwen2")  # its query, key and value have biases
    expected, low = hidden(decoder), hidden(decoder, low=True)
    pack(decoder, "bfloat16", 64)
    # Where the CPU lacks the instructions, the layers stay as they were.
    assert fused(decoder) == (2 if onednn.supports(torch.bfloat16) else 0)
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
    assert all(m.weight.is_mkldnn is onednn.supports(torch.float32) for m in linears(decoder))
    torch.testing.assert_close(hidden(decoder), expected, rtol=1e-5, atol=1e-5)


def test_other_types_keep_their_layers() -> None:
    decoder = decoder_of("Llama")
    pack(decoder, "float16", 64)
    assert all(type(m) is nn.Linear for m in linears(decoder))


@pytest.fixture
def fresh_trial() -> Iterator[None]:
    """`supports` tries again in the test, and once more after it."""
    onednn.supports.cache_clear()
    yield
    onednn.supports.cache_clear()


def refuse(*_: object) -> torch.Tensor:
    raise RuntimeError("the bf16 path needs CPU support that is not here")


def wrong(states: torch.Tensor, weight: torch.Tensor, *_: object) -> torch.Tensor:
    return torch.zeros(len(states), 32, dtype=states.dtype)


@pytest.mark.usefixtures("fresh_trial")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("operator", "stands_in"),
    [("laid_out", refuse), ("product", refuse), ("product", wrong), ("product_times", refuse)],
)
def test_where_an_operator_fails_or_is_wrong_layers_and_head_stay_plain(
    operator: str, stands_in: Any, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onednn, operator, stands_in)
    decoder = decoder_of("Llama")
    expected = hidden(decoder, low=dtype == "bfloat16")
    assert not onednn.supports(getattr(torch, dtype))
    pack(decoder, dtype, 64)
    assert all(type(m) is nn.Linear for m in linears(decoder))
    assert torch.equal(hidden(decoder, low=dtype == "bfloat16"), expected)
    head = LMHead(model_of("Llama"), dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
        losses = head.nll(torch.ones(3, SETTINGS["hidden_size"]), torch.arange(3))
    assert bool(torch.isfinite(losses).all())


@pytest.mark.usefixtures("fresh_trial")
def test_a_torch_without_the_operator_keeps_its_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    class Without:
        pass

    monkeypatch.setattr(torch.ops, "mkldnn", Without())
    assert not onednn.supports(torch.float32)
    assert not onednn.supports(torch.bfloat16)
