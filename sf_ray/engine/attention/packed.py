"""Causal attention over packed tokens: sequences one after the other, without padding.

A sequence may begin like another that stands before it in the batch. Its own slots are then only
those behind the common prefix, while its keys are those of its whole path, gathered by one index:

    slots        a b c d | x | q r       three sequences: a b c d, a b x, q r
    queries      a b c d | x | q r       query starts 0 4 5 7
    keys         a b c d | a b x | q r   key starts   0 4 7 9, key index 0 1 2 3 0 1 4 5 6

Each query sees the keys of its own sequence up to itself: counted from the end of both, so that
the last query sees the last key. The model's other layers look at each token alone, and need not
know where sequences begin.

Knows torch; no model, no pools. Registered with transformers under `PACKED_ATTENTION`; a forward
pass that uses it gets `segments=Segments(...)`. Defined by `attend_each`, with which the device's
kernel is compared, in every layer, whenever a model is loaded (`packed_check`).
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import cache
from inspect import signature
from typing import Any, NamedTuple

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from sf_ray.engine.attention.needs import Needs
from sf_ray.engine.layers.equivalence import first_line, is_close, relative_difference

PACKED_ATTENTION = "sf_ray_packed"

# `custom_mask_type` of the memory-efficient kernel: causal, aligned at the bottom right.
_CAUSAL_FROM_BOTTOM_RIGHT = 2


class States(NamedTuple):
    """What one layer gives to attention, at all slots of a batch.

    Attributes:
        query: [slots, heads, d]
        key: [slots, key heads, d]; [keys, key heads, d] once they are gathered.
        value: [slots, key heads, width]; the same.
    """

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor


class Segments(NamedTuple):
    """Where the s sequences of a batch have their queries and their keys.

    Attributes:
        query_starts: [s + 1] int32 where the queries of each begin; the last is the end.
        key_starts: [s + 1] int32 the same of the keys, as `key_index` puts them.
        key_index: [keys] slots of the keys. Without meaning where nothing is shared: then keys
            stand as queries do.
        facts: [3] the most queries and the most keys of one sequence, and 1 where prefixes are
            shared, else 0. On the CPU on every device: an operator reads them without waiting for
            a card, and compiled layers take them as data, so that one graph is for all batches.
    """

    query_starts: torch.Tensor
    key_starts: torch.Tensor
    key_index: torch.Tensor
    facts: torch.Tensor


# States, segments, the factor of the scores, and how many keys a query sees at most, its own
# included (0: all before it) -> [slots, heads, width].
Attend = Callable[[States, Segments, float, int], torch.Tensor]


def attend_each(states: States, segments: Segments, scale: float, window: int) -> torch.Tensor:
    """The definition: each sequence alone."""
    states = _repeated(_gathered(states, segments))
    output = states.value.new_empty(*states.query.shape[:2], states.value.shape[2])
    queries, keys = segments.query_starts.tolist(), segments.key_starts.tolist()
    for i in range(len(queries) - 1):
        own, path = slice(*queries[i : i + 2]), slice(*keys[i : i + 2])
        places = torch.arange(path.stop - path.start, device=output.device)
        behind = places[own.start - own.stop :, None] - places
        visible = behind >= 0
        if window:
            visible &= behind < window
        query, key, value = (
            part.transpose(0, 1)[None]
            for part in (states.query[own], states.key[path], states.value[path])
        )
        attended = scaled_dot_product_attention(query, key, value, attn_mask=visible, scale=scale)
        output[own] = attended[0].transpose(0, 1)
    return output


def _gathered(states: States, segments: Segments) -> States:
    """Keys and values as `Segments.key_starts` counts them."""
    if not segments.facts[2]:
        return states
    key, value = (part.index_select(0, segments.key_index) for part in states[1:])
    return States(states.query, key, value)


def _repeated(states: States) -> States:
    """As many key heads as query heads, by repeating them."""
    group = states.query.shape[1] // states.key.shape[1]
    if group == 1:
        return states
    key, value = (part.repeat_interleave(group, 1) for part in states[1:])
    return States(states.query, key, value)


# Opaque to torch.compile: what differs from batch to batch would otherwise become part of a graph.
@torch.library.custom_op("sf_ray::packed_attention", mutates_args=())
def _operator(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    query_starts: torch.Tensor,
    key_starts: torch.Tensor,
    key_index: torch.Tensor,
    facts: torch.Tensor,
    scale: float,
    window: int,
) -> torch.Tensor:
    """`attend_each`, on CUDA by one kernel."""
    states = States(query, key, value)
    segments = Segments(query_starts, key_starts, key_index, facts)
    with torch.autocast(query.device.type, enabled=False):
        if not query.is_cuda:
            return attend_each(states, segments, scale, window)
        # FlashAttention takes types of two bytes alone.
        kernel = _memory_efficient if query.dtype == torch.float32 else _flash()
        return kernel(_gathered(states, segments), segments, scale, window)


@_operator.register_fake
def _(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any) -> torch.Tensor:
    return query.new_empty(query.shape[0], query.shape[1], value.shape[2])


def _attend(states: States, segments: Segments, scale: float, window: int) -> torch.Tensor:
    output: torch.Tensor = _operator(*states, *segments, scale, window)
    return output


@cache
def _flash() -> Attend:
    """FlashAttention 2 (Dao 2023) for types of two bytes, by the way that this torch offers.

    `varlen_attn` is public since torch 2.10, but took neither a scale nor a window at first. The
    operator below it takes both in every release since 2.6.
    """
    try:
        from torch.nn.attention import varlen
    except ImportError:
        return _flash_by_operator
    # Its arguments differ from release to release.
    varlen_attn: Any = varlen.varlen_attn
    known = signature(varlen_attn).parameters.keys()
    if not {"scale", "window_size", "enable_gqa"} <= known:
        return _flash_by_operator
    splits = _one_split(known)

    def attend(states: States, segments: Segments, scale: float, window: int) -> torch.Tensor:
        most_queries, most_keys, _ = segments.facts.tolist()
        starts = segments.query_starts, segments.key_starts
        left = window - 1 if window else -1  # keys beside the query's own; -1: all
        output: torch.Tensor = varlen_attn(
            *states, *starts, most_queries, most_keys,
            scale=scale, window_size=(left, 0), enable_gqa=True, **splits,
        )  # fmt: skip
        return output

    return attend


def _flash_by_operator(
    states: States, segments: Segments, scale: float, window: int
) -> torch.Tensor:
    operator = torch.ops.aten._flash_attention_forward.default
    splits = _one_split({argument.name for argument in operator._schema.arguments})
    most_queries, most_keys, _ = segments.facts.tolist()
    starts = segments.query_starts, segments.key_starts
    left = window - 1 if window else -1
    dropout, is_causal, return_debug_mask = 0.0, True, False
    output: torch.Tensor = operator(
        *states, *starts, most_queries, most_keys, dropout, is_causal, return_debug_mask,
        scale=scale, window_size_left=left, window_size_right=0, **splits,
    )[0]  # fmt: skip
    return output


def _one_split(known: Collection[str]) -> dict[str, int]:
    """The argument that forbids to split a sequence's keys, where there is one.

    In how many parts a kernel splits them depends on the other sequences, and so would the bits.
    """
    return {"num_splits": 1} if "num_splits" in known else {}


def _memory_efficient(
    states: States, segments: Segments, scale: float, window: int
) -> torch.Tensor:
    """Memory-efficient attention (Rabe and Staats 2021), which also takes float32."""
    query, key, value = (part[None] for part in _repeated(states))
    most_queries, most_keys, _ = segments.facts.tolist()
    starts = segments.query_starts, segments.key_starts
    bias, dropout = None, 0.0
    output: torch.Tensor = torch.ops.aten._efficient_attention_forward(
        query, key, value, bias, *starts, most_queries, most_keys, dropout,
        _CAUSAL_FROM_BOTTOM_RIGHT, scale=scale, window_size=window or None,
    )[0][0]  # fmt: skip
    return output


@dataclass(frozen=True)
class Trial:
    """What comes to light while a model runs a few batches when it is loaded.

    Attributes:
        needs: What its layers ask of attention.
        problems: What is wrong with the device's kernel, at most one for each layer.
    """

    needs: Needs = field(default_factory=Needs)
    problems: list[str] = field(default_factory=list)

    def attend(self, states: States, segments: Segments, scale: float, window: int) -> torch.Tensor:
        """Attention by its definition, with which the device's kernel is compared."""
        low = states.value.dtype
        expected = attend_each(States(*(p.float() for p in states)), segments, scale, window)
        try:
            actual = _attend(states, segments, scale, window)
        except (RuntimeError, ValueError, TypeError) as error:
            self.problems.append(first_line(error))
        else:
            # Where low precision overflows, losses are computed again in float32.
            if expected.isfinite().all() and not is_close(
                actual, expected, str(low).removeprefix("torch.")
            ):
                difference = relative_difference(actual, expected)
                self.problems.append(f"attention's kernel is off by {difference:.1e} of the norm")
        return expected.to(low)


def _attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    segments: Segments | None = None,
    trial: Trial | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """The attention function that transformers calls in each layer."""
    if segments is None:
        raise ValueError("the model's layers do not pass keyword arguments on to their attention")
    # Under autocast, rotary positions leave queries and keys in float32, values in the low type.
    device, low = query.device.type, value.dtype
    if torch.is_autocast_enabled(device):
        low = torch.get_autocast_dtype(device)
    states = States(*(part[0].transpose(0, 1).to(low) for part in (query, key, value)))
    scale = query.shape[3] ** -0.5 if scaling is None else scaling
    if trial is None:
        attended = _attend(states, segments, scale, sliding_window or 0)
    else:
        trial.needs.add({**others, "sliding_window": sliding_window})
        with torch.autocast(device, enabled=False):
            attended = trial.attend(states, segments, scale, sliding_window or 0)
    return attended[None], None


AttentionInterface.register(PACKED_ATTENTION, _attention)
