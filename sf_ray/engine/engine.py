"""A causal language model on one device: token sequences -> mean losses.

Knows torch and transformers; no Ray, no text, no tables, no files but the model's. Defined by the
naive computation

    logits = model(ids[None]).logits[0].float()
    loss   = cross_entropy(logits[first - 1 : stop - 1], ids[first:stop])      for each span

for one sequence at a time, with which `tests/engine/test_engine.py` compares it. Padded
batches, the plain way, are computed here; `prefix_batches` computes only once what sequences share.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from sf_ray.engine.batch_threads import BatchLosses, sum_spans
from sf_ray.engine.batching import TokenBudgetBatches
from sf_ray.engine.flops import Work
from sf_ray.engine.loaded_model import LoadedModel, engine_errors, too_long
from sf_ray.engine.pending import Pending, Usage
from sf_ray.engine.pool import OnBatch, Pool
from sf_ray.engine.prefix_batches import TreePart, begin_tree, cut_tree, longest_in_tree, tree_of
from sf_ray.engine.prefix_tree import distinct
from sf_ray.engine.sequences import Ints, TokenSequence, ranges, span_of_each, span_starts


class Engine:
    """Holds the weights and scores pools of sequences.

    Equal sequences are scored once. Prefixes that sequences share run once where that is faster:
    the pool then goes through the model as a `PrefixTree`, else in padded batches.

    Attributes:
        dtype: Type in which matrix products are computed.
        notes: What users should know: why the model shares no prefixes or its layers are not
            compiled, or that the CPU has no instructions for the type.
    """

    def __init__(
        self,
        model_dir: Path,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        token_budget: int | None = None,
        threads: int | None = None,
        share: bool = True,
        compile: bool = True,
        trust_remote_code: bool = False,
    ) -> None:
        """
        Args:
            model_dir: Directory with config.json and safetensors weights.
            device: "cpu" or "cuda".
            dtype: "float32", or "float16" or "bfloat16" as autocast over float32 weights.
            token_budget: Tokens in one batch; None chooses by the device.
            threads: Threads on CPU, where each computes batches of its own; None: torch's setting.
            share: Compute once what sequences share.
            compile: Compile the model's layers on CUDA.
            trust_remote_code: Run Python code from the model's directory.

        Raises:
            SfRayError: No CUDA device, a model that cannot be loaded, or one whose logits are not
                those of its LM head.
        """
        self._model = LoadedModel(
            model_dir,
            device=device,
            dtype=dtype,
            token_budget=token_budget,
            threads=threads,
            compile=compile,
            trust_remote_code=trust_remote_code,
        )
        self.dtype = dtype
        self._share = share
        self._longest_in_tree = longest_in_tree(self._model, _begin_padded) if share else 0
        self.notes = self._model.notes

    @property
    def token_budget(self) -> int:
        """Tokens in one batch, padding included; shrinks when memory runs out."""
        return self._model.token_budget

    @token_budget.setter
    def token_budget(self, tokens: int) -> None:
        self._model.token_budget = tokens

    def memory_bound(self, longest: int) -> int:
        """Bytes that scoring takes at most beside the loaded weights (`docs/performance.md`).

        Args:
            longest: Tokens of the longest sequence.
        """
        return self._model.memory_bound(longest)

    def losses(
        self, sequences: Sequence[TokenSequence], on_batch: OnBatch = None
    ) -> NDArray[np.float64]:
        """Mean loss of each span of each sequence.

        The sequences are one pool for sharing and batching: the result depends on nothing else.

        Args:
            sequences: [n]; sequences without a scored token do not go through the model.
            on_batch: Called after each batch with the number of its sequences and of the tokens
                that went through the model, in the thread that computed the batch.

        Returns:
            [spans of all n, in order] nats per token; NaN for an empty span.

        Raises:
            EngineFailedError: The model cannot score one of the sequences.
        """
        return self.begin(sequences, on_batch).result()

    def begin(
        self, sequences: Sequence[TokenSequence], on_batch: OnBatch = None
    ) -> Pending[NDArray[np.float64]]:
        """Begins to score a pool; the result, or the error, is that of `losses`.

        Begin the next pool before you take the result of this one: then the device has work while
        this pool ends and the next is cut into batches. All pools are begun by the same thread.
        """
        starts = span_starts(sequences)
        scored = np.array([i for i, s in enumerate(sequences) if s.scored], dtype=np.int64)
        pool = [sequences[i] for i in scored]
        usage = Usage(sum(len(s.ids) - 1 for s in pool))
        places = np.arange(len(pool))  # of each scored sequence in the pool
        if self._share:
            first, places = distinct(pool)
            pool = [pool[i] for i in first]
            usage.tokens_saved = usage.tokens - sum(len(s.ids) - 1 for s in pool)
        copies = np.bincount(places, minlength=len(pool))
        mean_losses = self._begin(Pool(pool, copies, usage, on_batch), self.dtype)

        def result() -> NDArray[np.float64]:
            means, pool_starts = mean_losses(), span_starts(pool)
            self._repair(pool, means, usage)
            losses = np.full(starts[-1], np.nan)
            losses[ranges((starts[i], starts[i + 1]) for i in scored)] = means[
                ranges((pool_starts[i], pool_starts[i + 1]) for i in places)
            ]
            return losses

        return Pending(result, usage)

    def work(self, sequences: Sequence[TokenSequence]) -> Work:
        """What `losses` would compute for these sequences, padding left out.

        If memory ran out, batches would be smaller, and the work more.
        """
        pool = [s for s in sequences if s.scored]
        if self._share:
            pool = [pool[int(i)] for i in distinct(pool)[0]]
        shared = tree_of(self._model, pool, self._longest_in_tree)
        work = Work.plain(pool[int(i)] for i in _not_in(shared, len(pool)))
        for _, tree in cut_tree(self._model, pool, shared) if shared else ():
            # A slot at position p looks at the p slots before it on its path. With 0.5 for itself
            # a sequence of n alone has n^2 / 2 pairs, as in `Work.plain`.
            work += Work(len(tree), len(tree.slots), float((tree.positions + 0.5).sum()))
        return work

    def _begin(self, pool: Pool, dtype: str) -> Callable[[], NDArray[np.float64]]:
        """Begins to score a pool.

        Returns:
            A function that waits for the batches and returns the mean loss of each span in nats.
        """
        counts = _span_lengths(pool.sequences)
        shared = tree_of(self._model, pool.sequences, self._longest_in_tree)
        alone = _not_in(shared, len(pool.sequences))
        futures: list[Future[list[BatchLosses]]] = []
        with self._model.autocast(dtype):
            if len(alone):
                futures += _begin_padded(self._model, pool, alone)
            if shared:
                futures += begin_tree(self._model, pool, shared)

        def mean_losses() -> NDArray[np.float64]:
            with engine_errors():
                sums = sum_spans(self._model.batch_threads.results(futures), len(counts))
            means: NDArray[np.float64] = np.full(len(counts), np.nan)
            np.divide(sums, counts, out=means, where=counts > 0)
            return means

        return mean_losses

    def _repair(
        self, pool: Sequence[TokenSequence], means: NDArray[np.float64], usage: Usage
    ) -> None:
        """Computes again, in float32, the sequences whose losses overflow a smaller type.

        Args:
            pool: The sequences.
            means: [spans of the pool] mean losses; changed in place.
            usage: Counts when memory runs out.
        """
        if self.dtype == "float32":
            return
        starts = span_starts(pool)
        owner = np.repeat(np.arange(len(pool)), np.diff(starts))
        overflowed = np.unique(owner[~np.isfinite(means) & (_span_lengths(pool) > 0)])
        if not len(overflowed):
            return
        # No copies and no callback: these sequences were counted the first time.
        again = Pool([pool[i] for i in overflowed], np.zeros_like(overflowed), usage)
        spans = ranges((starts[i], starts[i + 1]) for i in overflowed)
        means[spans] = self._begin(again, "float32")()


def _not_in(shared: TreePart | None, count: int) -> Ints:
    """Which of the sequences 0 .. count - 1 do not go through a tree."""
    every = np.arange(count)
    return every if shared is None else np.setdiff1d(every, shared.chosen)


def _span_lengths(sequences: Sequence[TokenSequence]) -> Ints:
    """[spans of all sequences, in order] tokens of each."""
    return np.array([n for s in sequences for n in s.lengths], dtype=np.int64)


def _begin_padded(
    model: LoadedModel, pool: Pool, chosen: Ints
) -> Sequence[Future[list[BatchLosses]]]:
    """Begins to compute some sequences of a pool in padded batches, by the model's own attention.

    Args:
        model: The model.
        pool: The pool.
        chosen: Indices into the pool.

    Returns:
        Futures of the losses. They raise EngineFailedError where a single sequence does not fit
        into memory.
    """
    model.attend_by()
    starts = span_starts(pool.sequences)
    lengths = np.array([len(s.ids) for s in pool.sequences], dtype=np.int64)
    batches = TokenBudgetBatches(lengths[chosen], model.token_budget)

    def score(batch: Ints) -> list[BatchLosses]:
        try:
            nll = _padded_losses(model, [pool.sequences[i] for i in batch])
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise too_long(lengths[batch[0]]) from None
            nll = None
        # Outside of `except`, as the error's traceback holds the tensors of the failed batch.
        if nll is None:
            padded = len(batch) * int(lengths[batch].max())
            model.shrink_budget(min(padded // 2, model.token_budget), pool.usage)
            batches.token_budget = model.token_budget
            return [losses for half in np.array_split(batch, 2) for losses in score(half)]
        if pool.on_batch:
            pool.on_batch(int(pool.copies[batch].sum()), int((lengths[batch] - 1).sum()))
        return [BatchLosses.of(span_of_each(pool.sequences, batch, starts), nll)]

    return model.batch_threads.submit(score, (chosen[batch] for batch in batches))


@torch.no_grad()
def _padded_losses(model: LoadedModel, sequences: list[TokenSequence]) -> torch.Tensor:
    """[scored tokens] losses in nats, sequence after sequence."""
    # Token t is predicted from the hidden state at t - 1, so the last token is never fed. With
    # spans ((2, 3), (4, 5)) of a sequence a, and b that is padded on the right, where causal
    # attention hides the padding from every token:
    #
    #     column        0  1  2  3
    #     row 0  fed    a0 a1 a2 a3
    #            states    s1    s3        predicting = row * width + place - 1
    #            targets   a2    a4        ids[place]
    #     row 1  fed    b0 b1 0  0
    fed = np.array([len(s.ids) - 1 for s in sequences])
    width = int(fed.max())
    columns = np.arange(width)
    ids = np.zeros((len(sequences), width), dtype=np.int64)
    ids[columns < fed[:, None]] = np.concatenate([s.ids[:-1] for s in sequences])
    predicting = np.concatenate([row * width + s.places - 1 for row, s in enumerate(sequences)])
    targets = np.concatenate([s.ids[s.places] for s in sequences]).astype(np.int64)
    hidden = model.decoder(input_ids=model.put(ids), use_cache=False).last_hidden_state
    return model.head.nll(hidden.flatten(0, 1)[model.put(predicting)], model.put(targets))
