"""A decoder's norms and rotary positions on CPU, in fewer passes over memory.

Knows torch alone. Defined by the decoder before: a change that gives something else is undone.
"""

from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

import torch
from torch import nn

from sf_ray.engine.layers.equivalence import change_if_equivalent

# The function that attention calls to rotate queries and keys; each model's module has its own.
_ROTARY = "apply_rotary_pos_emb"


@torch.no_grad()
def fuse_elementwise(decoder: nn.Module) -> None:
    """Makes a decoder's RMS norms and rotary positions read their input from memory less often.

    Args:
        decoder: The decoder, on CPU, in float32.
    """
    _replace(decoder, [m for m in decoder.modules() if _is_norm(m)], _fuse_norm)
    _replace(decoder, [m for m in decoder.modules() if _rotates(m)], _fuse_rotary)


def _replace(decoder: nn.Module, layers: Sequence[Any], fuse: Callable[[Any], None]) -> None:
    """Gives layers another forward, if the decoder then computes the same."""

    def change() -> None:
        for layer in layers:
            fuse(layer)

    def undo() -> None:
        for layer in layers:
            del layer.forward

    if layers:
        change_if_equivalent(decoder, "float32", change, undo)


def _is_norm(layer: Any) -> bool:
    return type(layer).__name__.endswith("RMSNorm") and hasattr(layer, "weight")


def _fuse_norm(layer: Any) -> None:
    """RMS norm (Zhang and Sennrich 2019): weight * x / sqrt(mean(x^2) + epsilon)."""
    weight = layer.weight
    epsilon = getattr(layer, "variance_epsilon", getattr(layer, "eps", 0.0))

    def forward(hidden_states: torch.Tensor) -> torch.Tensor:
        states = hidden_states.float()
        norms = torch.linalg.vector_norm(states, dim=-1, keepdim=True)
        scale = norms.square_().div_(states.shape[-1]).add_(epsilon).rsqrt_()
        normed: torch.Tensor = (states * scale).mul_(weight)
        return normed

    layer.forward = forward


def _rotates(layer: nn.Module) -> bool:
    forward = type(layer).forward
    return isinstance(forward, FunctionType) and _ROTARY in forward.__code__.co_names


def _fuse_rotary(layer: Any) -> None:
    """Gives a layer a copy of its forward that calls `_rotate`.

    The rotation is a global name of the model's module. To replace it there would change every
    other model of that class in the process, so the copy has global names of its own.

    Under autocast the forward also casts its input once, instead of once for each product.
    """
    original = type(layer).forward
    names = {**original.__globals__, _ROTARY: _rotate}
    rotating = FunctionType(
        original.__code__, names, original.__name__, original.__defaults__, original.__closure__
    )
    rotating.__kwdefaults__ = original.__kwdefaults__

    def forward(hidden_states: torch.Tensor, *more: Any, **others: Any) -> Any:
        if torch.is_autocast_enabled("cpu"):
            hidden_states = hidden_states.to(torch.get_autocast_dtype("cpu"))
        return rotating(layer, hidden_states, *more, **others)

    layer.forward = forward


def _rotate(
    query: torch.Tensor, key: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotary positions (Su et al. 2021).

    Coordinates i and i + d / 2 are rotated as one complex number, and stand side by side in the
    result. Queries and keys get the same new order of coordinates, so their product is the same.

    Args:
        query: [batch, heads, n, d]
        key: [batch, key heads, n, d]
        cos: [batch, n, d]
        sin: [batch, n, d]

    Returns:
        Queries and keys in float32, of the same shapes.
    """
    half = query.shape[-1] // 2
    turn = torch.complex(cos[..., :half], sin[..., :half])[:, :, None]

    def rotated(states: torch.Tensor) -> torch.Tensor:
        states = states.transpose(1, 2).float()
        halves = states.reshape(*states.shape[:-1], 2, half)
        turned = torch.complex(halves[..., 0, :], halves[..., 1, :]) * turn
        return torch.view_as_real(turned).flatten(-2).transpose(1, 2)

    return rotated(query), rotated(key)
