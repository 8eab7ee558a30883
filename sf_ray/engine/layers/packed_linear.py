"""A decoder's linear layers on CPU, with weights laid out for oneDNN.

Knows torch alone. Defined by the decoder as it was, to which `pack` compares what it made of it.
"""

from typing import Any

import torch
from torch import nn

from sf_ray.engine.layers.equivalence import is_near, keep_if_same
from sf_ray.engine.layers.onednn import laid_out, product, product_times, supports


@torch.no_grad()
def pack(decoder: nn.Module, dtype: str, tokens: int) -> None:
    """Lays out the weights of a decoder's linear layers, where its layers leave them alone.

    In float32 the new layout takes the place of the old; in bfloat16 it stands beside the float32
    weights, and is used under autocast. A decoder that then fails, or whose hidden states change,
    is left as it was.

    Args:
        decoder: On CPU.
        dtype: What products are computed in.
        tokens: That a layer will see at a time, about.
    """
    if not supports(getattr(torch, dtype)):
        return
    linears: list[Any] = [m for m in decoder.modules() if type(m) is nn.Linear]

    def change() -> None:
        for layer in linears:
            _lay_out(layer, getattr(torch, dtype), tokens)

    def undo() -> None:
        for layer in linears:
            _restore(layer)

    if keep_if_same(decoder, dtype, change, undo):
        for layer in decoder.modules():
            if _is_gated(layer):
                _fuse(layer, dtype)


class _PackedLinear(nn.Linear):
    """A linear layer with its weight in oneDNN's layout as well, in one type."""

    packed: torch.Tensor
    packed_bias: torch.Tensor | None

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if torch.is_autocast_enabled("cpu"):
            input = input.to(self.packed.dtype)
        elif self.packed.dtype != self.weight.dtype:
            return super().forward(input)
        return product(input, self.packed, self.packed_bias)


def _lay_out(layer: Any, dtype: torch.dtype, tokens: int) -> None:
    layer.__class__ = _PackedLinear
    layer.packed = laid_out(layer.weight.to(dtype), tokens)
    layer.packed_bias = None if layer.bias is None else layer.bias.to(dtype)
    if layer.weight.dtype == dtype:  # the old one goes; who asks for its shape or type is told
        layer.weight = nn.Parameter(layer.packed, requires_grad=False)


def _restore(layer: Any) -> None:
    layer.__class__ = nn.Linear
    if layer.weight.is_mkldnn:
        layer.weight = nn.Parameter(layer.weight.to_dense(), requires_grad=False)
    del layer.packed, layer.packed_bias


def _is_gated(layer: nn.Module) -> bool:
    """Whether it looks like down(silu(gate(x)) * up(x)); comparing tells whether it is."""
    children = dict(layer.named_children())
    return children.keys() == {"gate_proj", "up_proj", "down_proj", "act_fn"} and all(
        isinstance(child, _PackedLinear) for name, child in children.items() if name != "act_fn"
    )


def _fuse(layer: Any, dtype: str) -> None:
    """Has the products of such an MLP apply SiLU, and multiply, while their results are in cache.

    It stays as it was where that gives something else.
    """
    plain, low = layer.forward, getattr(torch, dtype)
    gate, up, down = layer.gate_proj, layer.up_proj, layer.down_proj

    def forward(states: torch.Tensor) -> torch.Tensor:
        if low != torch.float32 and not torch.is_autocast_enabled("cpu"):
            made: torch.Tensor = plain(states)
            return made
        states = states.to(low)
        gated = product(states, gate.packed, gate.packed_bias, "swish")
        gated = product_times(states, up.packed, up.packed_bias, gated)
        return product(gated, down.packed, down.packed_bias)

    always = torch.Generator().manual_seed(0)
    sample = 4 * torch.randn(8, gate.in_features, generator=always)
    with torch.autocast("cpu", low, enabled=low != torch.float32):
        if is_near(forward(sample), plain(sample), dtype):
            layer.forward = forward
