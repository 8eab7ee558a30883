"""Whether a decoder computes the same after its layers were changed to be faster.

Knows torch alone.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch

# Largest difference that counts as rounding, relative to the norm of the results.
TOLERANCE = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 3e-2}


@torch.no_grad()
def hidden_states(
    decoder: Any, dtype: str, device: torch.device, batch: Mapping[str, Any] | None = None
) -> torch.Tensor:
    """[batch, n, hidden size] float32: what a decoder computes for some tokens.

    Args:
        decoder: The decoder, on the device.
        dtype: Type in which matrix products are computed: float32, or another by autocast.
        device: Where the decoder is.
        batch: What the decoder takes; None: two rows of 12 fixed tokens.
    """
    if batch is None:
        batch = {"input_ids": torch.arange(1, 25, device=device).view(2, 12), "use_cache": False}
    with torch.autocast(device.type, getattr(torch, dtype), enabled=dtype != "float32"):
        states: torch.Tensor = decoder(**batch).last_hidden_state
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
    return relative_difference(actual, expected) <= TOLERANCE[dtype]


def first_line(error: Exception) -> str:
    """An error as one line for users."""
    return f"{type(error).__name__}: {(str(error).strip() or '?').splitlines()[0]}"
