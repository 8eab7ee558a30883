"""Sequences as a prefix tree, cut into batches: every prefix that they share is computed once.

Knows torch and the loaded model. Defined by padded batches of the same sequences, with which
`longest_in_tree` compares a small tree whenever a model is loaded (`docs/adr/0007`).
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from typing import NamedTuple

import numpy as np
import torch

from sf_ray.engine.batch_threads import BatchLosses, sum_spans
from sf_ray.engine.batching import TokenBudgetBatches
from sf_ray.engine.layers.compiled import run_eagerly
from sf_ray.engine.loaded_model import LoadedModel, too_long
from sf_ray.engine.pending import Usage
from sf_ray.engine.pool import Pool
from sf_ray.engine.prefix_tree import PrefixTree
from sf_ray.engine.sequences import Ints, TokenSequence, ranges, span_starts
from sf_ray.engine.tree_attention import ATTENTION_NAME, QUERIES, Needs, TreeBatch

# A tree is used where it saves more than this share of the tokens that padded batches feed,
# padding included. On CPU a token costs the same both ways. On CUDA a token of a tree costs 3.3
# times as much: its attention is in many small pieces, and its layers are not compiled
# (`docs/adr/0007`).
_LEAST_SAVED = {"cpu": 0.0, "cuda": 0.75}
# Several parts for each thread, so that all threads are done at about the same time. But parts of
# several batches, where there are enough, because what two parts share is computed twice.
_PARTS_PER_THREAD, _BATCHES_PER_PART = 4, 16


# Begins to compute some sequences (indices into the pool) without sharing.
BeginPadded = Callable[[LoadedModel, Pool, Ints], Sequence[Future[list[BatchLosses]]]]


class TreePart(NamedTuple):
    """Sequences of a pool, next to each other in lexicographic order, as a tree of their own.

    Attributes:
        chosen: [m] indices of the sequences into the pool, in the order given to `tree`.
        tree: The prefix tree of these sequences.
    """

    chosen: Ints
    tree: PrefixTree


def tree_of(
    model: LoadedModel, sequences: Sequence[TokenSequence], longest: int
) -> TreePart | None:
    """The prefix tree of the sequences that may share prefixes; None where it is slower.

    Args:
        model: The model.
        sequences: All sequences of a pool.
        longest: From `longest_in_tree`.
    """
    lengths = np.array([len(s.ids) for s in sequences], dtype=np.int64)
    chosen = np.flatnonzero(lengths <= longest)
    if not len(chosen):
        return None
    shared = TreePart(chosen, PrefixTree.of([sequences[int(i)] for i in chosen]))
    return shared if _is_faster(model, shared.tree, lengths[chosen] - 1) else None


def _is_faster(model: LoadedModel, tree: PrefixTree, fed: Ints) -> bool:
    """Whether a tree is faster than padded batches: see `_LEAST_SAVED`.

    Args:
        model: The model.
        tree: The tree.
        fed: Tokens of each of its sequences that go through the model without sharing.
    """
    padded = sum(
        len(batch) * int(fed[batch].max()) for batch in TokenBudgetBatches(fed, model.token_budget)
    )
    return len(tree) < (1 - _LEAST_SAVED[model.device.type]) * padded


def begin_tree(
    model: LoadedModel, pool: Pool, whole: TreePart
) -> Sequence[Future[list[BatchLosses]]]:
    """Begins to compute some sequences of a pool as a prefix tree.

    Args:
        model: A model that shares prefixes; see `longest_in_tree`.
        pool: The pool.
        whole: Its sequences that go through the tree.

    Returns:
        Futures of the losses. They raise EngineFailedError where a single token with its path
        does not fit into memory.
    """
    starts = span_starts(pool.sequences)
    parts = cut_tree(model, pool.sequences, whole)

    def score(part: TreePart) -> list[BatchLosses]:
        # Spans are numbered within the part; the pool wants its own numbers.
        span_in_pool = ranges((starts[i], starts[i + 1]) for i in part.chosen)
        batches = _batches(model, part.tree, pool, pool.copies[part.chosen], Needs())
        return [BatchLosses.of(span_in_pool[spans], nll) for spans, nll in batches]

    model.attend_by(ATTENTION_NAME)
    pool.usage.tokens_saved += sum(
        sum(len(pool.sequences[i].ids) - 1 for i in part.chosen) - len(part.tree) for part in parts
    )
    return model.batch_threads.submit(score, parts)


def cut_tree(
    model: LoadedModel, sequences: Sequence[TokenSequence], whole: TreePart
) -> list[TreePart]:
    """Cuts a tree into parts of about as many slots each, which threads compute side by side.

    Args:
        model: The model.
        sequences: All sequences of the pool.
        whole: Those that go through the tree.
    """
    tree, threads = whole.tree, model.batch_threads.count
    batches = -(-len(tree) // model.token_budget)
    count = min(_PARTS_PER_THREAD * threads, max(threads, batches // _BATCHES_PER_PART))
    count = min(count, batches)
    if threads == 1 or count < 2:
        return [whole]
    cuts = np.searchsorted(tree.ends, len(tree) * np.arange(1, count) / count)
    return [
        TreePart(chosen, PrefixTree.of([sequences[i] for i in chosen]))
        for chosen in np.split(whole.chosen[tree.order], np.unique(cuts))
        if len(chosen)
    ]


def _batches(
    model: LoadedModel, tree: PrefixTree, pool: Pool, copies: Ints, needs: Needs
) -> Iterator[tuple[Ints, torch.Tensor]]:
    """Computes the batches of a tree, one after the other.

    Args:
        model: The model.
        tree: The tree.
        pool: The pool that its sequences come from.
        copies: [m] how many sequences of the caller each sequence of the tree stands for.
        needs: Takes what the model's attention asks for.

    Yields:
        [n] the span, among those of the tree's sequences, and [n] the loss in nats of each scored
        token of a batch.
    """
    copies_before = np.concatenate([[0], np.cumsum(copies[tree.order])])
    before: TreeBatch | None = None
    start = 0
    while start < len(tree):
        stop = min(start + model.token_budget, len(tree))
        try:
            queries = QUERIES[model.device.type]
            batch = TreeBatch(tree, start, stop, before, needs, model.put, queries)
            spans, nll = _losses(model, tree, batch)
        except torch.OutOfMemoryError:
            if stop - start == 1:
                # A slot at position p is followed by at least the token that it predicts.
                raise too_long(int(tree.positions[start]) + 2) from None
            model.shrink_budget((stop - start) // 2, pool.usage)
            continue
        yield spans, nll
        if pool.on_batch:
            first, last = np.searchsorted(tree.ends, [start, stop], side="right")
            pool.on_batch(int(copies_before[last] - copies_before[first]), stop - start)
        before, start = batch, stop


@torch.no_grad()
def _losses(model: LoadedModel, tree: PrefixTree, batch: TreeBatch) -> tuple[Ints, torch.Tensor]:
    """[n] spans and [n] losses in nats of the predictions that are made in a batch's slots."""
    fed = slice(batch.start, batch.stop)
    # Layers are compiled for padded batches alone.
    with run_eagerly() if model.is_compiled else nullcontext():
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
    predicted = slice(*np.searchsorted(tree.slots, [batch.start, batch.stop]))
    states = hidden[model.put(tree.slots[predicted] - batch.start)]
    return tree.spans[predicted], model.head.nll(states, model.put(tree.targets[predicted]))


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
    sequences = [
        TokenSequence.scored_from(np.concatenate(parts), 1)
        for parts in ([ids], [ids[:20], ids[:9]], [ids[:20], ids[3:9]], [ids[9:]], [ids[::-1]])
    ]
    pool = Pool(sequences, np.ones(len(sequences), np.int64), Usage())
    budget, model.token_budget = model.token_budget, 14  # several batches, cut anywhere
    try:
        futures = begin_padded(model, pool, np.arange(len(sequences)))
        expected = sum_spans(model.batch_threads.results(futures))
        model.attend_by(ATTENTION_NAME)
        batches = _batches(model, PrefixTree.of(sequences), pool, pool.copies, needs)
        shared = sum_spans([BatchLosses.of(*batch) for batch in batches])
        if needs.unsupported:
            return f"the model's attention uses {', '.join(sorted(needs.unsupported))}"
        if not np.allclose(expected, shared, rtol=1e-4):
            return "the model's layers do not look at each token alone"
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        model.token_budget = budget
    return None
