"""A decoder's layers on CUDA, compiled: their many small operations become few.

Knows torch alone. Defined by the decoder before, with which `compile_layers` compares it.
"""

import warnings
from collections.abc import Mapping
from subprocess import SubprocessError
from typing import Any

import torch
from torch import nn

from sf_ray.engine.layers.equivalence import (
    first_line,
    hidden_states,
    is_close,
    relative_difference,
)


def compile_layers(
    decoder: nn.Module, dtype: str, device: torch.device, batch: Mapping[str, Any] | None = None
) -> str | None:
    """Compiles a decoder's layers, unless that fails or changes hidden states.

    Args:
        decoder: The decoder, on the device.
        dtype: Type in which matrix products are computed.
        device: Where the decoder is.
        batch: What the decoder takes for a batch of the kind that it is compiled for; see
            `hidden_states`. Its sizes should differ from each other, because what is equal the
            first time becomes one size in the graph.

    Returns:
        None, or why the layers are left uncompiled.
    """
    lists = [m for m in decoder.children() if isinstance(m, nn.ModuleList) and len(m)]
    if not lists:
        return "they are not in one list"
    layers = max(lists, key=len)
    # Its advice is for authors of models.
    warnings.filterwarnings("ignore", module=r"torch\._inductor")
    expected, why_not = hidden_states(decoder, dtype, device, batch), None
    for layer in layers:
        # Dynamic, because lengths and sizes differ from batch to batch.
        layer.forward = torch.compile(layer.forward, dynamic=True)
    try:
        actual = hidden_states(decoder, dtype, device, batch)
        if not is_close(actual, expected, dtype):
            difference = relative_difference(actual, expected)
            why_not = f"their results change by {difference:.1e} of their norm"
    except (RuntimeError, OSError, ImportError, SubprocessError) as error:
        why_not = first_line(error)
    if why_not:
        for layer in layers:
            del layer.forward
    return why_not
