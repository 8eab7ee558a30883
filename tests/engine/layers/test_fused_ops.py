"""Norms and rotary positions in fewer passes over memory, against the same decoder before."""

import pytest
import torch
from torch import nn

from sf_ray.engine.layers.fused_ops import fuse_elementwise
from tests.support.decoders import SETTINGS, decoder_of, hidden


def changed(decoder: nn.Module, suffix: str) -> int:
    """How many layers, of classes whose names end so, have another forward than their class."""
    return sum(
        "forward" in vars(layer) and type(layer).__name__.endswith(suffix)
        for layer in decoder.modules()
    )


@pytest.mark.parametrize(
    ("architecture", "norms", "attentions"),
    [
        ("Llama", 5, 2),
        ("Mistral", 5, 2),
        ("Qwen2", 5, 2),
        ("Qwen3", 9, 2),  # queries and keys have norms of their own
        ("Gemma", 0, 2),  # its norms add one to their weights
        ("SmolLM3", 5, 2),
        ("GPTNeoX", 0, 0),  # rotates a quarter of each head
        ("Cohere", 0, 0),  # rotates neighbours
        ("GPT2", 0, 0),
    ],
)
def test_a_decoder_gives_the_same(architecture: str, norms: int, attentions: int) -> None:
    settings = dict(SETTINGS, pad_token_id=0)
    if architecture == "GPT2":
        settings = {"vocab_size": 100, "n_embd": 32, "n_layer": 2, "n_head": 4}
    decoder = decoder_of(architecture, **settings)
    expected, low = hidden(decoder), hidden(decoder, low=True)
    fuse_elementwise(decoder)
    assert (changed(decoder, "Norm"), changed(decoder, "Attention")) == (norms, attentions)
    torch.testing.assert_close(hidden(decoder), expected, rtol=1e-5, atol=1e-5)
    fused = hidden(decoder, low=True)
    assert (fused - expected).norm() <= 1.2 * (low - expected).norm()


def test_other_models_of_the_process_are_left_alone() -> None:
    one, other = decoder_of("Llama"), decoder_of("Llama")
    expected = hidden(other)
    fuse_elementwise(one)
    assert torch.equal(hidden(other), expected)


def test_what_is_called_a_norm_or_a_rotation_and_is_another_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from transformers.models.llama import modeling_llama as llama

    plain = llama.LlamaRMSNorm.forward
    monkeypatch.setattr(llama.LlamaRMSNorm, "forward", lambda self, states: 2 * plain(self, states))
    rotate = llama.apply_rotary_pos_emb
    monkeypatch.setattr(
        llama, "apply_rotary_pos_emb", lambda q, k, cos, sin: rotate(q, k, sin, cos)
    )
    decoder = decoder_of("Llama")
    expected = hidden(decoder)
    fuse_elementwise(decoder)
    assert (changed(decoder, "Norm"), changed(decoder, "Attention")) == (0, 0)
    assert torch.equal(hidden(decoder), expected)
