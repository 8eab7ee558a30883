"""Causal attention inside a token stream, where a token sees its own path and nothing else.

The model's other layers look at one token at a time and never notice. Registered with transformers
under `NAME`; a forward pass that uses it gets `stream=StreamBatch(...)`. It is defined by causal
attention over each sequence alone, which `Engine` holds it against whenever it loads a model.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from transformers import AttentionInterface

from sf_ray.engine.prefix_tree import PrefixTree
from sf_ray.engine.sequences import Ints

ATTENTION_NAME = "sf_ray_stream"
# Queries that are computed together: enough for a matrix product, few enough that tokens of short
# sequences, who hide from each other behind a mask, waste little.
QUERIES = {"cpu": 96, "cuda": 1024}
# What some models add to attention, and this does not know.
_UNKNOWN = ("softcap", "s_aux", "position_bias", "head_mask")

KeysValues = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Needs:
    """What a model's layers ask of attention beside causality.

    Attributes:
        windows: Sliding windows in tokens.
        unknown: What is not done here.
    """

    windows: set[int] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class _Chunk:
    """Queries [start, stop) of a batch, the keys that any of them sees, and which sees which.

    Attributes:
        bias: [queries, keys] 0 where a query sees a key, -inf elsewhere.
    """

    start: int
    stop: int
    keys: slice | torch.Tensor
    bias: torch.Tensor
    _by_group: dict[tuple[int, torch.dtype], torch.Tensor] = field(default_factory=dict)

    def bias_of(self, group: int, dtype: torch.dtype) -> torch.Tensor:
        """[queries group, keys] the bias, each row so many times; made once for all layers."""
        if (group, dtype) not in self._by_group:
            self._by_group[group, dtype] = self.bias.to(dtype).repeat_interleave(group, 0)
        return self._by_group[group, dtype]


class TreeBatch:
    """Slots [start, stop) of a stream, with the keys and values of the path that leads there.

    Slots are in depth-first order, so a slot before a batch (or a chunk of it) that any of its
    tokens sees lies on the path to its first token.
    """

    def __init__(
        self,
        stream: PrefixTree,
        start: int,
        stop: int,
        before: "TreeBatch | None",
        needs: Needs,
        put: Callable[[Ints], torch.Tensor],
        queries: int,
    ) -> None:
        """
        Args:
            stream: The whole stream.
            start: First slot of the batch.
            stop: The slot after its last.
            before: The batch that ends at `start`; None at the start of the stream.
            needs: Takes what the model's layers ask for.
            put: Brings numbers to the device, without waiting for it.
            queries: That are computed together, at most.
        """
        self.start, self.stop, self.needs = start, stop, needs
        self._put = put
        self._known: Ints = np.empty(0, np.int64) if before is None else before._handed_on
        self._slots: Ints = np.concatenate([self._known, np.arange(start, stop)])
        self._entering = {} if before is None else before._kept
        self._kept: dict[int, KeysValues] = {}
        leaving: Ints = np.empty(0, np.int64)
        if stop < len(stream):
            leaving = np.flatnonzero(stream.path(stop, self._slots))
        self._handed_on: Ints = self._slots[leaving]
        self._leaving = put(leaving)
        slots = self._slots
        # [3, slots] of which a chunk sees those of its keys, and of its queries.
        facts = put(np.stack([stream.owner[slots], stream.until[slots], stream.positions[slots]]))
        cuts = pairwise(_cuts(stream.ends, start, stop, queries))
        self._chunks = [self._chunk(stream, *cut, facts) for cut in cuts]

    def _chunk(self, stream: PrefixTree, start: int, stop: int, facts: torch.Tensor) -> _Chunk:
        first = len(self._known) + start - self.start
        path = np.flatnonzero(stream.path(start, self._slots[:first]))
        last = first + stop - start
        is_range = not len(path) or path[0] + len(path) == first
        keys: slice | torch.Tensor = slice(first - len(path), last)
        if not is_range:
            keys = self._put(np.concatenate([path, np.arange(first, last)]))
        owner, until, position = facts[:, keys]
        query_owner, _, query_position = facts[:, first:last, None]
        hidden = owner > query_owner
        hidden |= query_owner >= until
        hidden |= position > query_position
        bias = torch.zeros(hidden.shape, device=hidden.device).masked_fill_(hidden, -torch.inf)
        return _Chunk(start - self.start, stop - self.start, keys, bias)

    def attend(
        self,
        layer: int,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        scaling: float | None,
        dtype: torch.dtype,
    ) -> torch.Tensor:
        """[1, heads, n, d] and twice [1, key heads, n, d] -> [1, n, heads, d], of a type."""
        if layer in self._entering:
            keys, values = self._entering[layer]
            key, value = torch.cat([keys, key], 2), torch.cat([values, value], 2)
        if len(self._leaving):
            self._kept[layer] = (
                key.index_select(2, self._leaving),
                value.index_select(2, self._leaving),
            )
        heads = key.shape[1]
        group = query.shape[1] // heads
        # The query heads of one key head stand below each other: no keys are copied for them.
        query = query.reshape(1, heads, group, *query.shape[2:]).transpose(2, 3).contiguous()
        output = query.new_empty(1, query.shape[2], heads, group, value.shape[3], dtype=dtype)
        for chunk in self._chunks:
            if isinstance(chunk.keys, slice):
                keys, values = key[:, :, chunk.keys], value[:, :, chunk.keys]
            else:
                keys = key.index_select(2, chunk.keys)
                values = value.index_select(2, chunk.keys)
            queries = query[:, :, chunk.start : chunk.stop].flatten(2, 3)
            attended = torch.nn.functional.scaled_dot_product_attention(
                queries, keys, values, attn_mask=chunk.bias_of(group, query.dtype), scale=scaling
            )
            attended = attended.reshape(1, heads, -1, group, attended.shape[3])
            output[:, chunk.start : chunk.stop] = attended.transpose(1, 2)
        return output.flatten(2, 3)


def _cuts(ends: Ints, start: int, stop: int, most: int) -> list[int]:
    """Cuts slots [start, stop) into parts of at most so many, where sequences end if it can be.

    Behind such an end little of the path is left, so that the next part has few keys.
    """
    cuts = [start]
    while cuts[-1] < stop:
        limit = min(cuts[-1] + most, stop)
        end = int(ends[max(int(np.searchsorted(ends, limit, side="right")) - 1, 0)])
        cuts.append(end if cuts[-1] + most // 4 <= end <= limit else limit)
    return cuts


def _attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    stream: TreeBatch | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    if stream is None:
        raise ValueError("the model's layers do not hand on what their attention is told")
    stream.needs.unknown.update(name for name in _UNKNOWN if others.get(name) is not None)
    if others.get("sliding_window"):
        stream.needs.windows.add(int(others["sliding_window"]))
    low = value.dtype
    with torch.autocast(query.device.type, enabled=False):
        if query.device.type == "cpu":  # casts of what is this short cost more than they save
            value = value.to(query.dtype)
        else:
            query, key = query.to(low), key.to(low)
        return stream.attend(module.layer_idx, query, key, value, scaling, low), None


AttentionInterface.register(ATTENTION_NAME, _attention)
