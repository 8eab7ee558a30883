"""A decoder's norms and rotary positions on CPU, in fewer passes over memory.

Knows torch alone. Defined by the decoder as it was: what gives something else stays as it was.
"""

from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

import torch
from torch import nn

from sf_ray.engine.layers.equivalence import keep_if_same

# What transformers' attention calls to rotate queries and keys, in the module of each model.
_ROTARY = "apply_rotary_pos_emb"


@torch.no_grad()
def fuse_elementwise(decoder: nn.Module) -> None:
    """Has a decoder's root mean square norms and rotary positions read their input less often.

    Args:
        decoder: On CPU, in float32.
    """
    _replace(decoder, [m for m in decoder.modules() if _is_norm(m)], _fuse_norm)
    _replace(decoder, [m for m in decoder.modules() if _rotates(m)], _fuse_rotary)


def _replace(decoder: nn.Module, layers: Sequence[Any], fuse: Callable[[Any], None]) -> None:
    """Gives layers another forward, if the decoder stays what it is."""

    def change() -> None:
        for layer in layers:
            fuse(layer)

    def undo() -> None:
        for layer in layers:
            del layer.forward

    if layers:
        keep_if_same(decoder, "float32", change, undo)


def _is_norm(layer: Any) -> bool:
    return type(layer).__name__.endswith("RMSNorm") and hasattr(layer, "weight")


def _fuse_norm(layer: Any) -> None:
    """States over their root mean square, times a weight (Zhang and Sennrich 2019)."""
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
    """Gives one layer's forward our rotation, and leaves the module that it came from alone.

    Under autocast it also casts its input once instead of once for each of its products.
    """
    of_class = type(layer).forward
    names = {**of_class.__globals__, _ROTARY: _rotate}
    rotating = FunctionType(
        of_class.__code__, names, of_class.__name__, of_class.__defaults__, of_class.__closure__
    )
    rotating.__kwdefaults__ = of_class.__kwdefaults__

    def forward(hidden_states: torch.Tensor, *more: Any, **others: Any) -> Any:
        if torch.is_autocast_enabled("cpu"):
            hidden_states = hidden_states.to(torch.get_autocast_dtype("cpu"))
        return rotating(layer, hidden_states, *more, **others)

    layer.forward = forward


def _rotate(
    query: torch.Tensor, key: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotary positions (Su et al. 2021): coordinates i and i + d / 2 as one complex number.

    The two come to stand side by side, in queries as in keys, which no product of them notices.

    Args:
        query, key: [batch, heads, n, d]
        cos, sin: [batch, n, d]
    """
    half = query.shape[-1] // 2
    turn = torch.complex(cos[..., :half], sin[..., :half])[:, :, None]

    def rotated(states: torch.Tensor) -> torch.Tensor:
        states = states.transpose(1, 2).float()
        halves = states.reshape(*states.shape[:-1], 2, half)
        turned = torch.complex(halves[..., 0, :], halves[..., 1, :]) * turn
        return torch.view_as_real(turned).flatten(-2).transpose(1, 2)

    return rotated(query), rotated(key)
