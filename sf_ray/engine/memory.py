"""Memory of a CPU or a card: what a batch takes of it, and how many tokens a batch should have.

Knows a model by its configuration. The formulas are in `docs/performance.md`; a test holds fresh
processes to them.
"""

import ctypes
from pathlib import Path
from typing import Any

_CUDA_TOKEN_BUDGET = 65536
# The LM head's tiles, what libraries keep, and the unit's token ids.
_FIXED_BYTES = 128 << 20
_USUAL_TOKENS = 1024


def cache_bytes(level: int) -> int:
    """Size of the CPU's second or third cache; a common one where Linux does not tell."""
    sizes = {2: 1 << 20, 3: 32 << 20}
    for cache in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        if (cache / "level").read_text(encoding="ascii").strip() == str(level):
            size = (cache / "size").read_text(encoding="ascii").strip()
            sizes[level] = int(size.removesuffix("K")) << 10
    return sizes[level]


def keep_freed_memory() -> None:
    """Has this process keep memory that it frees, where the C library is glibc.

    Activations come and go in pieces of megabytes; given back each time, every page of them
    would be mapped and cleared again.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(-4, 0)  # M_MMAP_MAX: nothing gets a mapping of its own
        mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD: nothing is given back


def scoring_bytes(config: Any, *, copies: int, lanes: int, token_budget: int, longest: int) -> int:
    """Bytes that scoring takes at most beside the loaded weights.

    Args:
        config: The text model's.
        copies: Bytes of weights that are kept a second time, in another type or layout.
        lanes: Batches that are computed side by side.
        token_budget: Tokens of each.
        longest: Tokens of the longest sequence.
    """
    # A batch takes over the keys and values of a path, and hands on such.
    paths = 2 * 2 * 4 * config.num_hidden_layers * config.hidden_size * longest
    # And as much again that the allocator cannot use.
    batch = paths + 2 * token_budget * _token_bytes(config, longest)
    return int(_FIXED_BYTES + copies + lanes * batch)


def cpu_token_budget(config: Any, dtype: str) -> int:
    """As many tokens as have an MLP's two halves, in a type, in the CPU's last cache."""
    item_bytes = 4 if dtype == "float32" else 2
    most = cache_bytes(3) // (2 * item_bytes * _wide(config))
    return int(min(8192 // item_bytes, max(256, 1 << max(most.bit_length() - 1, 0))))


def cuda_token_budget(config: Any, free_bytes: int) -> int:
    """As many tokens as fit into half of a card's free memory."""
    most = free_bytes // 2 // (2 * _token_bytes(config, _USUAL_TOKENS))
    return int(min(_CUDA_TOKEN_BUDGET, max(256, most)))


def _token_bytes(config: Any, longest: int) -> int:
    """Bytes of activations and of attention's bias for each token of a batch."""
    group = config.num_attention_heads // (
        getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    )
    wide = 8 * _wide(config) + 16 * config.hidden_size
    return int(4 * (wide + (group + 1) * (longest + 128)))


def _wide(config: Any) -> int:
    return int(getattr(config, "intermediate_size", None) or 4 * config.hidden_size)
