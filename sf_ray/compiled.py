"""A decoder's layers on CUDA, compiled: their many small operations become few.

Knows torch alone. Defined by the decoder as it was, to which `compile_layers` compares it.
"""

import warnings
from contextlib import AbstractContextManager
from subprocess import SubprocessError

import torch
from torch import nn

# How far hidden states may lie from those of the decoder as it was, relative to their norm.
_APART = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 3e-2}


@torch.no_grad()
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
    ids = torch.arange(1, 25, device=device).view(2, 12)

    def hidden() -> torch.Tensor:
        low = dtype != "float32"
        with torch.autocast(device.type, getattr(torch, dtype), enabled=low):
            states: torch.Tensor = decoder(input_ids=ids, use_cache=False).last_hidden_state
        return states.float()

    warnings.filterwarnings("ignore", module=r"torch\._inductor")  # advice for who writes models
    expected, why_not = hidden(), None
    for layer in layers:  # lengths and sizes differ from batch to batch
        layer.forward = torch.compile(layer.forward, dynamic=True)
    try:
        apart = float((hidden() - expected).norm() / expected.norm())
        if not apart <= _APART[dtype]:
            why_not = f"their results change by {apart:.1e} of their norm"
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
