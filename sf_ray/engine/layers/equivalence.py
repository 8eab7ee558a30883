"""Whether a decoder still computes what it did, after its layers were changed to be faster.

Knows torch alone.
"""

from collections.abc import Callable
from typing import Any

import torch

# How far results may lie from those before, relative to their norm.
_APART = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 3e-2}


@torch.no_grad()
def hidden_states(decoder: Any, dtype: str, device: torch.device) -> torch.Tensor:
    """What a decoder makes of a few tokens: [2, 12, hidden size] float32.

    Args:
        decoder: On the device.
        dtype: float32, or what autocast computes products in.
        device: Of the decoder.
    """
    ids = torch.arange(1, 25, device=device).view(2, 12)
    with torch.autocast(device.type, getattr(torch, dtype), enabled=dtype != "float32"):
        states: torch.Tensor = decoder(input_ids=ids, use_cache=False).last_hidden_state
    return states.float()


def keep_if_same(
    decoder: Any, dtype: str, change: Callable[[], None], undo: Callable[[], None]
) -> bool:
    """Changes layers of a decoder on CPU, unless it then fails or gives other hidden states.

    Args:
        decoder: On CPU.
        dtype: As of `hidden_states`.
        change: Changes it.
        undo: Makes it what it was.
    """
    cpu = torch.device("cpu")
    expected = hidden_states(decoder, dtype, cpu)
    change()
    try:
        is_same = is_near(hidden_states(decoder, dtype, cpu), expected, dtype)
    except (RuntimeError, TypeError, AttributeError, IndexError):  # it is of another kind
        is_same = False
    if not is_same:
        undo()
    return is_same


def apart(made: torch.Tensor, expected: torch.Tensor) -> float:
    """The norm of a difference, relative to that of what was expected."""
    return float((made.float() - expected.float()).norm() / expected.float().norm())


def is_near(made: torch.Tensor, expected: torch.Tensor, dtype: str) -> bool:
    """Whether two results are the same but for rounding in a type."""
    return apart(made, expected) <= _APART[dtype]  # False where it is no number
