"""Sequences as a prefix tree, cut into batches: every prefix that they share is computed once.

Knows torch and the loaded model. Defined by padded batches of the same sequences, with which
`longest_in_tree` compares a small tree whenever a model is loaded (`docs/adr/0007`).
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from itertools import pairwise

import numpy as np
import torch

from sf_ray.engine.attention.needs import Needs
from sf_ray.engine.attention.tree import ATTENTION_NAME, TreeBatch
from sf_ray.engine.batch_threads import BatchLosses, sum_spans
from sf_ray.engine.batching import TokenBudgetBatches
from sf_ray.engine.loaded_model import LoadedModel, too_long
from sf_ray.engine.pool import Pool
from sf_ray.engine.prefix_tree import PrefixOrder, PrefixTree
from sf_ray.engine.sequences import Ints, TokenSequence, TokenSequences

# Several parts for each thread, so that all threads are done at about the same time. But parts of
# several batches, where there are enough, because what two parts share is computed twice.
_PARTS_PER_THREAD, _BATCHES_PER_PART = 4, 16


# Begins to compute some sequences (indices) of a pool without sharing.
BeginPadded = Callable[[LoadedModel, Pool, Ints], Sequence[Future[list[BatchLosses]]]]


def divide(model: LoadedModel, pool: Pool, longest: int) -> tuple[PrefixOrder | None, Ints]:
    """Divides a pool into what goes through a prefix tree and what goes through padded batches.

    Args:
        model: The model.
        pool: The pool.
        longest: From `longest_in_tree`.

    Returns:
        The order of the sequences for the tree, None where a tree is slower, and the indices of
        the others, ascending.
    """
    if pool.order is None or not longest:
        return None, pool.chosen
    lengths = pool.sequences.lengths
    shared = pool.order.only(lengths[pool.order.order] <= longest)
    if not _is_faster(model, shared):
        return None, pool.chosen
    return shared, pool.chosen[lengths[pool.chosen] > longest]


def _is_faster(model: LoadedModel, shared: PrefixOrder) -> bool:
    """Whether a tree feeds fewer tokens than padded batches; a token costs the same both ways."""
    padded = sum(
        len(batch) * int(shared.fed[batch].max())
        for batch in TokenBudgetBatches(shared.fed, model.token_budget)
    )
    return shared.slots < padded


def begin_tree(
    model: LoadedModel, pool: Pool, shared: PrefixOrder
) -> Sequence[Future[list[BatchLosses]]]:
    """Begins to compute some sequences of a pool as a prefix tree.

    Args:
        model: A model that shares prefixes; see `longest_in_tree`.
        pool: The pool.
        shared: The order of those of its sequences that go through the tree.

    Returns:
        Futures of the losses. They raise EngineFailedError where a single token with its path
        does not fit into memory.
    """
    trees = cut_tree(model, pool.sequences, shared)

    def score(tree: PrefixTree) -> list[BatchLosses]:
        return list(_batches(model, tree, pool, Needs()))

    model.attend_by(ATTENTION_NAME)
    pool.usage.tokens_saved += int(shared.fed.sum()) - sum(len(tree) for tree in trees)
    return model.batch_threads.submit(score, trees)


def cut_tree(
    model: LoadedModel, sequences: TokenSequences, shared: PrefixOrder
) -> Sequence[PrefixTree]:
    """Cuts a tree into trees with about as many slots each, which threads compute side by side.

    Args:
        model: The model.
        sequences: All sequences of the pool.
        shared: The order of those that go through the tree.
    """
    threads = model.batch_threads.count
    batches = -(-shared.slots // model.token_budget)
    count = min(_PARTS_PER_THREAD * threads, max(threads, batches // _BATCHES_PER_PART))
    count = min(count, batches)
    if threads == 1 or count < 2:
        return [PrefixTree.of(sequences, shared)]
    ends = np.cumsum(shared.fed - shared.shared)
    cuts = np.searchsorted(ends, shared.slots * np.arange(1, count) / count)
    edges = np.unique([0, *cuts, len(shared)])
    return [PrefixTree.of(sequences, shared, *edge) for edge in pairwise(edges.tolist())]


def _batches(
    model: LoadedModel, tree: PrefixTree, pool: Pool, needs: Needs
) -> Iterator[BatchLosses]:
    """Computes the batches of a tree, one after the other.

    Args:
        model: The model.
        tree: The tree.
        pool: The pool that its sequences come from.
        needs: Takes what the model's attention asks for.

    Yields:
        The losses of each batch.
    """
    copies_before = np.concatenate([[0], np.cumsum(pool.copies[tree.sequences])])
    before: TreeBatch | None = None
    start = 0
    while start < len(tree):
        stop = min(start + model.token_budget, len(tree))
        try:
            batch = TreeBatch(tree, start, stop, before, needs, model.put)
            losses = _losses(model, tree, batch)
        except torch.OutOfMemoryError:
            if stop - start == 1:
                # A slot at position p is followed by at least the token that it predicts.
                raise too_long(int(tree.positions[start]) + 2) from None
            model.shrink_budget((stop - start) // 2, pool.usage)
            continue
        yield losses
        if pool.on_batch:
            first, last = np.searchsorted(tree.ends, [start, stop], side="right")
            pool.on_batch(int(copies_before[last] - copies_before[first]), stop - start)
        before, start = batch, stop


@torch.no_grad()
def _losses(model: LoadedModel, tree: PrefixTree, batch: TreeBatch) -> BatchLosses:
    """The losses of the predictions that are made in a batch's slots."""
    fed = slice(batch.start, batch.stop)
    hidden = model.decoder(
        input_ids=model.put(tree.ids[fed])[None],
        position_ids=model.put(tree.positions[fed])[None],
        use_cache=False,
        tree=batch,
    ).last_hidden_state[0]
    # A slot's hidden state predicts what follows it on a path. Where paths branch, one slot makes
    # several predictions, each with a target and a span of its own:
    #
    #     slots of the batch   a  b  c          predictions  b -> c    (a b c)
    #                             x  y                       b -> x    (a b x y)
    slots, targets, spans = tree.by_slot
    predicted = slice(*np.searchsorted(slots, [batch.start, batch.stop]))
    states = hidden[model.put(slots[predicted] - batch.start)]
    return BatchLosses.of(spans[predicted], model.head.nll(states, model.put(targets[predicted])))


def longest_in_tree(model: LoadedModel, begin_padded: BeginPadded) -> int:
    """The longest sequence, in tokens, for which a tree gives what padded batches give.

    Computes a few sequences both ways. Appends to the model's notes where sharing is limited.

    Args:
        model: The model.
        begin_padded: Begins padded batches, which define what is right.

    Returns:
        0 where the model cannot share prefixes at all.
    """
    needs = Needs()
    why_not = _difference(model, needs, begin_padded)
    if why_not:
        model.notes.append(f"shared prefixes are computed anew for each sequence: {why_not}")
        return 0
    # Chunked attention is done by masks, which a tree does without, so `needs` cannot show it.
    chunk = getattr(model.config, "attention_chunk_size", None)
    windows = needs.windows | ({int(chunk)} if chunk else set())
    if windows:
        model.notes.append(
            f"sequences of more than {min(windows)} tokens do not share prefixes: some of the "
            "model's layers look no further back"
        )
    return min(windows, default=1 << 62)


def _difference(model: LoadedModel, needs: Needs, begin_padded: BeginPadded) -> str | None:
    """Why a small tree does not give the losses of padded batches; None where it does."""
    ids = np.arange(1, 33, dtype=np.int32)
    # Three that begin alike, one with the same tokens at other positions, one with them backwards.
    sequences = TokenSequences.of(
        [
            TokenSequence.scored_from(np.concatenate(parts), 1)
            for parts in ([ids], [ids[:20], ids[:9]], [ids[:20], ids[3:9]], [ids[9:]], [ids[::-1]])
        ]
    )
    pool, scored, _ = Pool.of(sequences, share=True)
    assert pool.order is not None
    budget, model.token_budget = model.token_budget, 14  # several batches, cut anywhere
    try:
        futures = begin_padded(model, pool, scored)
        spans = len(sequences.spans)
        expected = sum_spans(model.batch_threads.results(futures), spans)
        model.attend_by(ATTENTION_NAME)
        tree = PrefixTree.of(sequences, pool.order)
        shared = sum_spans(list(_batches(model, tree, pool, needs)), spans)
        if needs.unsupported:
            return f"the model's attention uses {', '.join(sorted(needs.unsupported))}"
        if not np.allclose(expected, shared, rtol=1e-4):
            return "the model's layers do not look at each token alone"
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        model.token_budget = budget
    return None
