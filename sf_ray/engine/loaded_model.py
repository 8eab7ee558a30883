"""A model's weights onto a device. Knows torch and transformers."""

import platform
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from sf_ray.errors import SfRayError


def load_model(model_dir: Path, device: torch.device, trust_remote_code: bool) -> Any:
    """A causal language model with float32 weights, on a device.

    Args:
        model_dir: Directory with config.json and safetensors weights.
        device: Where to.
        trust_remote_code: Run Python code from the model's directory.

    Raises:
        SfRayError: It cannot be loaded, or the device has too little memory for it.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    try:
        model = AutoModelForCausalLM.from_pretrained(
            model_dir,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
        )
        return model.to(device).eval()
    except torch.OutOfMemoryError as error:
        raise SfRayError(
            f"model {model_dir}: does not fit into the memory of {device} ({error}); use a smaller "
            "model, or fewer actors a GPU (--gpus-per-actor)"
        ) from error
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise SfRayError(f"model {model_dir}: cannot be loaded: {error}") from error


def is_native(dtype: str) -> bool:
    """Whether this CPU has instructions for a type of low precision."""
    names = {"bfloat16": ("avx512_bf16", "amx_bf16"), "float16": ("avx512_fp16", "amx_fp16")}
    if platform.machine() != "x86_64" or not hasattr(torch.cpu, "get_capabilities"):
        return True  # as far as we know
    return any(torch.cpu.get_capabilities()[name] for name in names[dtype])
