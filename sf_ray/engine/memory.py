"""Memory of a CPU or a card: what a batch takes of it, and how many tokens a batch should have.

Knows a model by its configuration; loads nothing. The formulas are in `docs/performance.md`, and
tests/engine/test_memory.py compares them with the growth of fresh processes.
"""

import ctypes
from pathlib import Path
from typing import Any

# Upper limit of the default on CUDA.
_CUDA_TOKEN_BUDGET = 65536
# The LM head's tiles, what libraries keep, and the unit's token ids.
_FIXED_BYTES = 128 << 20
# Keys that a packed batch gathers at most for each token of its budget. Behind a long common prefix
# the few tokens of each sequence look at hundreds of keys, which are copied for each sequence.
KEYS_PER_TOKEN = 16


def cache_bytes(level: int) -> int:
    """Size of the CPU's second or third cache; a common size where Linux does not say."""
    sizes = {2: 1 << 20, 3: 32 << 20}
    for cache in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        if (cache / "level").read_text(encoding="ascii").strip() == str(level):
            size = (cache / "size").read_text(encoding="ascii").strip()
            sizes[level] = int(size.removesuffix("K")) << 10
    return sizes[level]


def keep_freed_memory() -> None:
    """Makes this process keep the memory that it frees, where the C library is glibc.

    Activations come and go in pieces of megabytes. If each were given back to the kernel, the
    kernel would map and clear every page again: with this, elementwise operations take a third
    less time (`docs/performance.md`).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(-4, 0)  # M_MMAP_MAX: nothing gets a mapping of its own
        mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD: nothing is given back


def scoring_bytes(
    config: Any, *, copies: int, batches: int, token_budget: int, longest: int
) -> int:
    """Bytes that scoring takes at most beside the loaded weights.

    Args:
        config: Configuration of the text model.
        copies: Bytes of weights that are kept a second time, in another type or layout.
        batches: Batches that are computed side by side.
        token_budget: Tokens of each batch.
        longest: Tokens of the longest sequence.
    """
    # Keys and values, in float32, of the path that a batch takes over and of the one it hands on.
    paths = 2 * 2 * 4 * config.num_hidden_layers * config.hidden_size * longest
    # Activations twice: as much again is fragmented memory that the allocator cannot use.
    batch = paths + 2 * token_budget * _token_bytes(config, longest)
    return int(_FIXED_BYTES + copies + batches * batch)


def cpu_token_budget(config: Any, dtype: str) -> int:
    """The largest power of two of tokens whose two MLP activations fit the CPU's last cache.

    Between 256 and 2,048 tokens, or 4,096 in a type of two bytes.
    """
    item_bytes = 4 if dtype == "float32" else 2
    most = cache_bytes(3) // (2 * item_bytes * _mlp_width(config))
    return int(min(8192 // item_bytes, max(256, 1 << max(most.bit_length() - 1, 0))))


def cuda_token_budget(config: Any, free_bytes: int) -> int:
    """The number of tokens whose batch fits into half of a card's free memory."""
    # Attention's kernels need no bias. Gathered are the keys and the values of one layer
    # at a time.
    gathered = KEYS_PER_TOKEN * 2 * config.hidden_size // _query_heads_per_key_head(config)
    most = free_bytes // 2 // (2 * 4 * (_activations(config) + gathered))
    return int(min(_CUDA_TOKEN_BUDGET, max(256, most)))


def _token_bytes(config: Any, longest: int) -> int:
    """Bytes of activations and of attention's bias for each token of a batch on CPU, in float32."""
    bias = (_query_heads_per_key_head(config) + 1) * (longest + 128)
    return int(4 * (_activations(config) + bias))


def _activations(config: Any) -> int:
    """Numbers that stand in memory at a time for each token of a batch."""
    return int(8 * _mlp_width(config) + 16 * config.hidden_size)


def _query_heads_per_key_head(config: Any) -> int:
    key_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    return int(config.num_attention_heads // key_heads)


def _mlp_width(config: Any) -> int:
    return int(getattr(config, "intermediate_size", None) or 4 * config.hidden_size)
