"""A decoder's layers on CUDA, compiled: their many small operations become few.

Knows torch alone. Defined by the decoder before, with which `compile_layers` compares it.
"""

import warnings
from contextlib import AbstractContextManager
from subprocess import SubprocessError

import torch
from torch import nn

from sf_ray.engine.layers.equivalence import hidden_states, is_close, relative_difference


def compile_layers(decoder: nn.Module, dtype: str, device: torch.device) -> str | None:
    """Compiles a decoder's layers, unless that fails or changes hidden states.

    Args:
        decoder: The decoder, on the device.
        dtype: Type in which matrix products are computed.
        device: Where the decoder is.

    Returns:
        None, or why the layers are left uncompiled.
    """
    lists = [m for m in decoder.children() if isinstance(m, nn.ModuleList) and len(m)]
    if not lists:
        return "they are not in one list"
    layers = max(lists, key=len)
    # Its advice is for authors of models.
    warnings.filterwarnings("ignore", module=r"torch\._inductor")
    expected, why_not = hidden_states(decoder, dtype, device), None
    for layer in layers:
        # Dynamic, because lengths and sizes differ from batch to batch.
        layer.forward = torch.compile(layer.forward, dynamic=True)
    try:
        actual = hidden_states(decoder, dtype, device)
        if not is_close(actual, expected, dtype):
            difference = relative_difference(actual, expected)
            why_not = f"their results change by {difference:.1e} of their norm"
    except (RuntimeError, OSError, ImportError, SubprocessError) as error:
        why_not = f"{type(error).__name__}: {(str(error).strip() or '?').splitlines()[0]}"
    if why_not:
        for layer in layers:
            del layer.forward
    return why_not


def run_eagerly() -> AbstractContextManager[object]:
    """A context in which compiled functions run as if they were not compiled."""
    stance: AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
    return stance
