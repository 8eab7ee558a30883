"""A decoder's layers on CUDA, compiled: their many small operations become few.

Knows torch alone. Defined by the decoder as it was, to which `compile_layers` compares it.
"""

import warnings
from contextlib import AbstractContextManager
from subprocess import SubprocessError

import torch
from torch import nn

from sf_ray.engine.layers.equivalence import apart, hidden_states, is_near


def compile_layers(decoder: nn.Module, dtype: str, device: torch.device) -> str | None:
    """Compiles a decoder's layers.

    Args:
        decoder: On the device.
        dtype: What products are computed in.
        device: Of the decoder.

    Returns:
        None, or why the layers are left as they were.
    """
    lists = [m for m in decoder.children() if isinstance(m, nn.ModuleList) and len(m)]
    if not lists:
        return "they are not in one list"
    layers = max(lists, key=len)
    warnings.filterwarnings("ignore", module=r"torch\._inductor")  # advice for who writes models
    expected, why_not = hidden_states(decoder, dtype, device), None
    for layer in layers:  # lengths and sizes differ from batch to batch
        layer.forward = torch.compile(layer.forward, dynamic=True)
    try:
        made = hidden_states(decoder, dtype, device)
        if not is_near(made, expected, dtype):
            why_not = f"their results change by {apart(made, expected):.1e} of their norm"
    except (RuntimeError, OSError, ImportError, SubprocessError) as error:
        why_not = f"{type(error).__name__}: {(str(error).strip() or '?').splitlines()[0]}"
    if why_not:
        for layer in layers:
            del layer.forward
    return why_not


def plainly() -> AbstractContextManager[object]:
    """Calls what is compiled as if it were not."""
    stance: AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
    return stance
