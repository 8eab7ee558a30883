"""Whether a decoder computes the same after its layers were changed to be faster.

Knows torch alone.
"""

from collections.abc import Callable
from typing import Any

import torch

# Largest difference that counts as rounding, relative to the norm of the results.
_TOLERANCE = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 3e-2}


@torch.no_grad()
def hidden_states(decoder: Any, dtype: str, device: torch.device) -> torch.Tensor:
    """[2, 12, hidden size] float32: what a decoder computes for a few fixed tokens.

    Args:
        decoder: The decoder, on the device.
        dtype: Type in which matrix products are computed: float32, or another by autocast.
        device: Where the decoder is.
    """
    ids = torch.arange(1, 25, device=device).view(2, 12)
    with torch.autocast(device.type, getattr(torch, dtype), enabled=dtype != "float32"):
        states: torch.Tensor = decoder(input_ids=ids, use_cache=False).last_hidden_state
    return states.float()


def change_if_equivalent(
    decoder: Any, dtype: str, change: Callable[[], None], undo: Callable[[], None]
) -> bool:
    """Changes layers of a decoder on CPU, unless it then fails or gives other hidden states.

    Args:
        decoder: The decoder, on CPU.
        dtype: Type in which matrix products are computed.
        change: Changes the layers.
        undo: Restores the layers.

    Returns:
        Whether the change is kept.
    """
    cpu = torch.device("cpu")
    expected = hidden_states(decoder, dtype, cpu)
    change()
    try:
        is_same = is_close(hidden_states(decoder, dtype, cpu), expected, dtype)
    except (RuntimeError, TypeError, AttributeError, IndexError):
        # The layers use their parts in ways that the change does not know.
        is_same = False
    if not is_same:
        undo()
    return is_same


def relative_difference(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """|actual - expected| / |expected|, by the Euclidean norm of all numbers."""
    return float((actual.float() - expected.float()).norm() / expected.float().norm())


def is_close(actual: torch.Tensor, expected: torch.Tensor, dtype: str) -> bool:
    """Whether two results differ only by rounding in a type; False where one is NaN."""
    return relative_difference(actual, expected) <= _TOLERANCE[dtype]
