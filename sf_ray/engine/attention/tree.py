"""Causal attention inside a prefix tree: a token sees the tokens on its own path and no others.

The model's other layers look at one token at a time, so that the order of the slots does not
matter to them. Registered with transformers under `ATTENTION_NAME`; a forward pass that uses it
gets `tree=TreeBatch(...)`. Defined by causal attention over each sequence alone, with which
`prefix_batches.longest_in_tree` compares it whenever a model is loaded.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from transformers import AttentionInterface

from sf_ray.engine.attention.needs import Needs
from sf_ray.engine.prefix_tree import PrefixTree
from sf_ray.engine.sequences import Ints

ATTENTION_NAME = "sf_ray_tree"
# Queries in one matrix product of attention. Few are slow as a product; many waste more, because
# tokens of short sequences compute scores for each other that the mask then throws away. On CPU
# 96 are 1.04 to 1.06 times as fast as 128, and level with 64 (`docs/performance.md`).
_QUERIES = 96

KeysValues = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class _Chunk:
    """Queries [start, stop) of a batch, the keys that any of them sees, and which sees which.

    Attributes:
        start: First query, counted from the start of the batch.
        stop: The query after the last.
        keys: Places of the keys among those of the batch.
        bias: [queries, keys] 0 where a query sees a key, -inf elsewhere.
    """

    start: int
    stop: int
    keys: slice | torch.Tensor
    bias: torch.Tensor
    _biases: dict[tuple[int, torch.dtype], torch.Tensor] = field(default_factory=dict)

    def bias_of(self, group: int, dtype: torch.dtype) -> torch.Tensor:
        """[queries * group, keys] the bias with each row repeated `group` times, in a type.

        It is the same in all layers, so it is made once.
        """
        if (group, dtype) not in self._biases:
            self._biases[group, dtype] = self.bias.to(dtype).repeat_interleave(group, 0)
        return self._biases[group, dtype]


class TreeBatch:
    """Slots [start, stop) of a tree, with the keys and values of the path that leads to `start`.

    Slots are in depth-first order. So every slot before the batch that any of its tokens sees lies
    on the path to its first token. The same holds for a chunk of the batch.
    """

    def __init__(
        self,
        tree: PrefixTree,
        start: int,
        stop: int,
        before: "TreeBatch | None",
        needs: Needs,
        put: Callable[[Ints], torch.Tensor],
    ) -> None:
        """
        Args:
            tree: The whole tree.
            start: First slot of the batch.
            stop: The slot after its last.
            before: The batch that ends at `start`; None at the start of the tree.
            needs: Takes what the model's layers ask for.
            put: Brings numbers to the device.
        """
        self.start, self.stop, self.needs = start, stop, needs
        self._put = put
        # Keys and values stand in the order of `_slots`: first those of the path, taken over from
        # the batch before, then the batch's own.
        self._path: Ints = np.empty(0, np.int64) if before is None else before._next_path
        self._slots: Ints = np.concatenate([self._path, np.arange(start, stop)])
        self._path_by_layer = {} if before is None else before._next_by_layer
        # And those on the path to `stop` are kept for the batch after this one.
        self._next_by_layer: dict[int, KeysValues] = {}
        kept: Ints = np.empty(0, np.int64)
        if stop < len(tree):
            kept = np.flatnonzero(tree.is_on_path(stop, self._slots))
        self._next_path: Ints = self._slots[kept]
        self._kept = put(kept)
        slots = self._slots
        # [3, slots], of which a chunk needs those of its keys and of its queries.
        facts = put(np.stack([tree.owner[slots], tree.until[slots], tree.positions[slots]]))
        cuts = pairwise(_cuts(tree.ends, start, stop, _QUERIES))
        self._chunks = [self._chunk(tree, *cut, facts) for cut in cuts]

    def _chunk(self, tree: PrefixTree, start: int, stop: int, facts: torch.Tensor) -> _Chunk:
        """The chunk of slots [start, stop).

        Args:
            tree: The whole tree.
            start: First slot of the chunk.
            stop: The slot after its last.
            facts: [3, slots of the batch] owner, until and position of each.
        """
        first = len(self._path) + start - self.start
        last = first + stop - start
        path = np.flatnonzero(tree.is_on_path(start, self._slots[:first]))
        is_range = not len(path) or path[0] + len(path) == first
        keys: slice | torch.Tensor = slice(first - len(path), last)  # a view; copies nothing
        if not is_range:
            keys = self._put(np.concatenate([path, np.arange(first, last)]))
        owner, until, position = facts[:, keys]
        query_owner, _, query_position = facts[:, first:last, None]
        # A query sees a key if the key's subtree has begun and has not ended (owner <= query's
        # owner < until), and the key is not behind it on the path.
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
        """The attention of one layer.

        Args:
            layer: Number of the layer.
            query: [1, heads, n, d]
            key: [1, key heads, n, d]
            value: [1, key heads, n, d]
            scaling: Factor of the scores; None: 1 / sqrt(d).
            dtype: Type of the result.

        Returns:
            [1, n, heads, d]
        """
        if layer in self._path_by_layer:
            keys, values = self._path_by_layer[layer]
            key, value = torch.cat([keys, key], 2), torch.cat([values, value], 2)
        if len(self._kept):
            self._next_by_layer[layer] = (
                key.index_select(2, self._kept),
                value.index_select(2, self._kept),
            )
        heads = key.shape[1]
        group = query.shape[1] // heads
        # The query heads of one key head are stacked below each other: one product for all of
        # them, without a copy of the keys for each.
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
    """Cuts slots [start, stop) into chunks, where a sequence ends if possible.

    Behind the end of a sequence little of its path is left, so that the next chunk has few keys.

    Args:
        ends: Where sequences end.
        start: First slot.
        stop: The slot after the last.
        most: Slots of one chunk at most; a chunk that ends with a sequence has a quarter of that
            at least.
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
    tree: TreeBatch | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """The attention function that transformers calls in each layer."""
    if tree is None:
        raise ValueError("the model's layers do not pass keyword arguments on to their attention")
    tree.needs.add(others)
    # Under autocast, rotary positions leave queries and keys in float32, values in the low type.
    low = value.dtype
    with torch.autocast(query.device.type, enabled=False):
        # To cast queries, keys and the bias for each chunk costs more than the kernel gains.
        value = value.to(query.dtype)
        return tree.attend(module.layer_idx, query, key, value, scaling, low), None


AttentionInterface.register(ATTENTION_NAME, _attention)
