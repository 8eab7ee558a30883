"""A decoder's linear layers on CPU, with weights in oneDNN's layout.

Knows torch alone. Defined by the decoder before, with which `pack_linear_layers` compares it.
"""

from typing import Any

import torch
from torch import nn

from sf_ray.engine.layers import onednn
from sf_ray.engine.layers.equivalence import change_if_equivalent, is_close


@torch.no_grad()
def pack_linear_layers(decoder: nn.Module, dtype: str, tokens: int) -> str | None:
    """Reorders the weights of a decoder's linear layers for oneDNN.

    In float32 a reordered weight replaces the dense one. In bfloat16 it is kept beside the float32
    weight, and is used under autocast. A decoder that then fails, or whose hidden states change,
    is restored: its layers may read their weights themselves.

    Args:
        decoder: The decoder, on CPU.
        dtype: Type in which matrix products are computed.
        tokens: About how many tokens go through a layer at a time.

    Returns:
        None, or why the layers stay plain though in this type they need not; for users.
    """
    if not onednn.supports(getattr(torch, dtype)):
        is_tried = getattr(torch, dtype) in onednn.DTYPES
        return f"oneDNN's own layout does not work in {dtype} on this machine" if is_tried else None
    linears: list[Any] = [m for m in decoder.modules() if type(m) is nn.Linear]

    def change() -> None:
        for layer in linears:
            _pack(layer, getattr(torch, dtype), tokens)

    def undo() -> None:
        for layer in linears:
            _restore(layer)

    if not change_if_equivalent(decoder, dtype, change, undo):
        return "they read their weights themselves, or give something else in oneDNN's own layout"
    for layer in decoder.modules():
        if _looks_gated(layer):
            _fuse_gated_mlp(layer, dtype)
    return None


class _PackedLinear(nn.Linear):
    """A linear layer that also has its weight in oneDNN's layout, in one type."""

    packed: torch.Tensor
    packed_bias: torch.Tensor | None

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if torch.is_autocast_enabled("cpu"):
            input = input.to(self.packed.dtype)
        elif self.packed.dtype != self.weight.dtype:
            return super().forward(input)
        return onednn.linear(input, self.packed, self.packed_bias)


def _pack(layer: Any, dtype: torch.dtype, tokens: int) -> None:
    layer.__class__ = _PackedLinear
    layer.packed = onednn.reorder_weight(layer.weight.to(dtype), tokens)
    layer.packed_bias = None if layer.bias is None else layer.bias.to(dtype)
    if layer.weight.dtype == dtype:
        # Frees the dense weight; the reordered one has the same shape and type for code that asks.
        layer.weight = nn.Parameter(layer.packed, requires_grad=False)


def _restore(layer: Any) -> None:
    layer.__class__ = nn.Linear
    if layer.weight.is_mkldnn:
        layer.weight = nn.Parameter(layer.weight.to_dense(), requires_grad=False)
    del layer.packed, layer.packed_bias


def _looks_gated(layer: nn.Module) -> bool:
    """Whether a layer has the parts of down(silu(gate(x)) * up(x)).

    Whether it computes that is for `_fuse_gated_mlp` to see.
    """
    children = dict(layer.named_children())
    return children.keys() == {"gate_proj", "up_proj", "down_proj", "act_fn"} and all(
        isinstance(child, _PackedLinear) for name, child in children.items() if name != "act_fn"
    )


def _fuse_gated_mlp(layer: Any, dtype: str) -> None:
    """Lets the products of an MLP also apply SiLU, and multiply, while their results are in cache.

    The MLP stays as it is where that gives something else.
    """
    plain_forward, low = layer.forward, getattr(torch, dtype)
    gate, up, down = layer.gate_proj, layer.up_proj, layer.down_proj

    def forward(states: torch.Tensor) -> torch.Tensor:
        if low != torch.float32 and not torch.is_autocast_enabled("cpu"):
            plain: torch.Tensor = plain_forward(states)
            return plain
        states = states.to(low)
        gated = onednn.linear(states, gate.packed, gate.packed_bias, "swish")
        gated = onednn.linear_times(states, up.packed, up.packed_bias, gated)
        return onednn.linear(gated, down.packed, down.packed_bias)

    always = torch.Generator().manual_seed(0)
    sample = 4 * torch.randn(8, gate.in_features, generator=always)
    with torch.autocast("cpu", low, enabled=low != torch.float32):
        if is_close(forward(sample), plain_forward(sample), dtype):
            layer.forward = forward
