"""Packed batches: the tokens of sequences one after the other, without padding.

A batch ends where a sequence ends, and is a prefix tree of its own: what its sequences share runs
once, its first sequence runs whole, and nothing is handed on from batch to batch. Where sequences
share nothing, it is their tokens and no more.

Knows torch and the loaded model. Defined by padded batches of the same sequences, with which
`packed_check` compares a few whenever a model is loaded.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sf_ray.engine.attention.packed import PACKED_ATTENTION, Segments, Trial
from sf_ray.engine.batch_threads import BatchLosses
from sf_ray.engine.loaded_model import LoadedModel, too_long
from sf_ray.engine.memory import KEYS_PER_TOKEN
from sf_ray.engine.pool import Pool
from sf_ray.engine.prefix_tree import PrefixOrder, PrefixTree
from sf_ray.engine.sequences import offsets

# Prefixes are shared where that saves this part of the tokens. Gathering keys costs each token 2 %
# (3 key heads for 9 query heads) to 5 % (as many key heads) of its time in the layers, counted in
# bytes against FLOPs; Alpaca would save 1 % by sharing, T0 34 %.
_LEAST_SAVED = 0.04


def begin_packed(
    model: LoadedModel, pool: Pool, trial: Trial | None = None
) -> Sequence[Future[list[BatchLosses]]]:
    """Begins to compute a pool in packed batches.

    Args:
        model: The model.
        pool: The pool.
        trial: Takes what comes to light on the way; see `packed_check`.

    Returns:
        Futures of the losses. They raise EngineFailedError where a single sequence does not fit
        into memory.
    """
    order = packing_order(pool)

    def score(part: tuple[int, int]) -> list[BatchLosses]:
        start, stop = part
        tree = PrefixTree.of(pool.sequences, order, start, stop)
        try:
            losses = _losses(model, tree, trial)
        except torch.OutOfMemoryError:
            if stop - start == 1:
                raise too_long(int(order.fed[start]) + 1) from None
            losses = None
        # Outside of `except`, as the error's traceback holds the tensors of the failed batch.
        if losses is None:
            model.shrink_budget(min(len(tree) // 2, model.token_budget), pool.usage)
            # The end of a sequence nearest to the middle, but not that of the last.
            half = 1 + int(np.abs(tree.ends[:-1] - len(tree) / 2).argmin())
            return [*score((start, start + half)), *score((start + half, stop))]
        pool.usage.tokens_saved += int(tree.path_starts[-1]) - len(tree)
        if pool.on_batch:
            pool.on_batch(int(pool.copies[tree.sequences].sum()), len(tree))
        return [losses]

    model.attend_by(PACKED_ATTENTION)
    return model.batch_threads.submit(score, _cuts(model, order))


def packed_trees(model: LoadedModel, pool: Pool) -> Iterator[PrefixTree]:
    """The trees of the batches that `begin_packed` would compute."""
    order = packing_order(pool)
    for start, stop in _cuts(model, order):
        yield PrefixTree.of(pool.sequences, order, start, stop)


def packing_order(pool: Pool) -> PrefixOrder:
    """The order in which a pool is packed, and what it shares where that pays."""
    if pool.order is None:
        fed = pool.sequences.lengths[pool.chosen] - 1
        return PrefixOrder(pool.chosen, fed, np.zeros_like(fed))
    order, fed = pool.order.order, pool.order.fed
    if pool.order.slots > (1 - _LEAST_SAVED) * fed.sum():
        return PrefixOrder(order, fed, np.zeros_like(fed))
    return pool.order


def _cuts(model: LoadedModel, order: PrefixOrder) -> Iterator[tuple[int, int]]:
    """Cuts an order into batches [start, stop).

    One with more than one sequence has at most `token_budget` slots, and `KEYS_PER_TOKEN` times as
    many keys. The budget may be
    changed between two batches, and holds from the next one on.
    """
    slots, keys = offsets(order.fed - order.shared), offsets(order.fed)
    start = 0
    while start < len(order):
        # The first sequence runs whole, with what it shares with the batch before.
        last_slot = slots[start] - order.shared[start] + model.token_budget
        last_key = keys[start] + KEYS_PER_TOKEN * model.token_budget
        fits = min(
            int(np.searchsorted(starts, last, side="right"))
            for starts, last in ((slots, last_slot), (keys, last_key))
        )
        stop = max(start + 1, fits - 1)
        yield start, stop
        start = stop


def packed_arguments(
    tree: PrefixTree, put: Callable[[NDArray[np.integer]], torch.Tensor]
) -> dict[str, Any]:
    """What a decoder takes for one batch.

    Args:
        tree: The batch.
        put: Brings numbers to the device, without waiting for the device.
    """
    ids, positions = tree.ids, tree.positions
    own, fed, keys = tree.own, np.diff(tree.path_starts), tree.paths
    # A sequence that begins another one is all there already.
    is_new = own > 0
    if not is_new.all():
        keys = keys[np.repeat(is_new, fed)]
        own, fed = own[is_new], fed[is_new]
    is_shared = len(keys) > len(ids)
    if len(ids) == 1:
        # torch.compile would make a graph of its own for a single slot.
        ids, positions, own, fed = (np.repeat(numbers, 2) for numbers in (ids, positions, own, fed))
    segments = Segments(
        query_starts=put(offsets(own).astype(np.int32)),
        key_starts=put(offsets(fed).astype(np.int32)),
        key_index=put(keys if is_shared else np.zeros(2, np.int64)),  # sizes 0 and 1: as above
        facts=torch.tensor([own.max(), fed.max(), is_shared], dtype=torch.int64),
    )
    return {
        "input_ids": put(ids)[None],
        "position_ids": put(positions)[None],
        "use_cache": False,
        "segments": segments,
    }


@torch.no_grad()
def _losses(model: LoadedModel, tree: PrefixTree, trial: Trial | None) -> BatchLosses:
    """The losses of what is predicted in one batch, sequence after sequence."""
    arguments = packed_arguments(tree, model.put)
    if trial:
        arguments["trial"] = trial
    hidden = model.decoder(**arguments).last_hidden_state[0]
    # Where paths branch, one slot makes several predictions: its state is taken for each.
    nll = model.head.nll(hidden[model.put(tree.slots)], model.put(tree.targets))
    return BatchLosses.of(tree.spans, nll)
