"""A causal language model on one device: token sequences -> losses.

Knows torch and transformers; no Ray, no text, no tables, no files but the model's. Defined by the
naive computation

    logits = model(ids[None]).logits[0].float()
    loss   = cross_entropy(logits[first - 1 : stop - 1], ids[first:stop])      for each span

for one sequence at a time, with which `tests/engine/test_engine.py` compares it. Padded
batches, the plain way, are computed here. `prefix_batches` on CPU and `packed_batches` on CUDA do
without padding, and compute only once what sequences share.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from sf_ray.engine.attention.packed import PACKED_ATTENTION
from sf_ray.engine.batch_threads import BatchLosses, sum_spans, tokens_in_order
from sf_ray.engine.batching import TokenBudgetBatches
from sf_ray.engine.flops import Work
from sf_ray.engine.loaded_model import LoadedModel, engine_errors, too_long
from sf_ray.engine.packed_batches import begin_packed, packed_arguments, packed_trees
from sf_ray.engine.packed_check import check_tree, packed_types
from sf_ray.engine.pending import Pending
from sf_ray.engine.pool import OnBatch, Pool
from sf_ray.engine.prefix_batches import begin_tree, cut_tree, divide, longest_in_tree
from sf_ray.engine.prefix_tree import PrefixTree
from sf_ray.engine.sequences import Ints, TokenSequences, offsets, ranges


@dataclass(frozen=True)
class SpanLosses:
    """The losses of a pool's spans; NaN where nothing went through the model.

    Attributes:
        means: [spans] nats per token.
        tokens: [scored tokens, span after span] nats; None where nobody asked for them.
    """

    means: NDArray[np.float64]
    tokens: NDArray[np.float32] | None

    def copy_spans(
        self, sequences: TokenSequences, spans: Ints, source: "SpanLosses", theirs: Ints
    ) -> None:
        """Takes over the losses of other spans, each of which has as many tokens.

        Args:
            sequences: The sequences of the pool.
            spans: [k] the spans whose losses are replaced, in place.
            source: Where the losses come from.
            theirs: [k] spans of the same sequences.
        """
        self.means[spans] = source.means[theirs]
        if self.tokens is not None and source.tokens is not None:
            self.tokens[sequences.tokens_of(spans)] = source.tokens[sequences.tokens_of(theirs)]


class Engine:
    """Holds the weights and scores pools of sequences.

    Equal sequences are scored once. Prefixes that sequences share run once where that is faster.
    On CPU a pool then goes through the model as a `PrefixTree`, else padded; on CUDA packed.

    Attributes:
        dtype: Type in which matrix products are computed.
        notes: What users should know: why the model shares no prefixes, is padded or not compiled,
            or that the CPU has no instructions for the type.
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
        packed: bool | None = None,
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
            packed: Compute packed batches if they prove right; None: on CUDA.

        Raises:
            SfRayError: No CUDA device, a model that cannot be loaded, or one whose logits are not
                those of its LM head.
        """
        packed = device == "cuda" if packed is None else packed
        self._model = LoadedModel(
            model_dir,
            device=device,
            dtype=dtype,
            token_budget=token_budget,
            threads=threads,
            side_by_side=device == "cpu" and not packed,
            trust_remote_code=trust_remote_code,
        )
        self.dtype = dtype
        self._share = share
        self._packed_types: frozenset[str] = frozenset()
        self._longest_in_tree = 0
        if packed:
            self._packed_types = packed_types(self._model, dtype, _begin_padded)
        elif share:
            self._longest_in_tree = longest_in_tree(self._model, _begin_padded)
        if compile and device == "cuda":
            self._compile()
        self.notes = self._model.notes

    def _compile(self) -> None:
        """Compiles the model for the batches that it will get."""
        if self.dtype in self._packed_types:
            self._model.attend_by(PACKED_ATTENTION)
            self._model.compile(packed_arguments(check_tree(), self._model.put))
        else:
            self._model.attend_by()
            self._model.compile(None)

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

    def losses(self, sequences: TokenSequences, on_batch: OnBatch = None) -> NDArray[np.float64]:
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
        self, sequences: TokenSequences, on_batch: OnBatch = None
    ) -> Pending[NDArray[np.float64]]:
        """Begins to score a pool; the result, or the error, is that of `losses`.

        Begin the next pool before you take the result of this one: then the device has work while
        this pool ends and the next is cut into batches. All pools are begun by the same thread.
        """
        pending = self._begin_pool(sequences, on_batch, keep_tokens=False)
        return Pending(lambda: pending.result().means, pending.usage)

    def begin_tokens(
        self, sequences: TokenSequences, on_batch: OnBatch = None
    ) -> Pending[SpanLosses]:
        """As `begin`, with the losses of the single tokens beside the means, which are the same."""
        return self._begin_pool(sequences, on_batch, keep_tokens=True)

    def _begin_pool(
        self, sequences: TokenSequences, on_batch: OnBatch, keep_tokens: bool
    ) -> Pending[SpanLosses]:
        pool, scored, equals = Pool.of(sequences, self._share, on_batch)
        span_losses = self._begin(pool, self.dtype, keep_tokens)

        def result() -> SpanLosses:
            losses = span_losses()
            self._repair(pool, losses)
            # A repeated sequence takes the losses of its equal.
            ours, theirs = sequences.spans_of(scored), sequences.spans_of(equals)
            losses.copy_spans(sequences, ours, losses, theirs)
            return losses

        return Pending(result, pool.usage)

    def work(self, sequences: TokenSequences) -> Work:
        """What `losses` would compute for these sequences, padding left out.

        If memory ran out, batches would be smaller, and the work more.
        """
        pool, _, _ = Pool.of(sequences, self._share)
        trees: Iterable[PrefixTree] = ()
        if self.dtype in self._packed_types:
            work, trees = Work(), packed_trees(self._model, pool)
        else:
            shared, alone = divide(self._model, pool, self._longest_in_tree)
            work = Work.plain(sequences.take(alone))
            if shared:
                trees = cut_tree(self._model, sequences, shared)
        for tree in trees:
            # A slot at position p looks at the p slots before it on its path. With 0.5 for itself
            # a sequence of n alone has n^2 / 2 pairs, as in `Work.plain`.
            work += Work(len(tree), len(tree.slots), float((tree.positions + 0.5).sum()))
        return work

    def _begin(self, pool: Pool, dtype: str, keep_tokens: bool) -> Callable[[], SpanLosses]:
        """Begins to score a pool.

        Returns:
            A function that waits for the batches and returns the losses of all spans.
        """
        with self._model.autocast(dtype):
            futures = self._begin_batches(pool, dtype)

        def span_losses() -> SpanLosses:
            counts = pool.sequences.span_lengths
            with engine_errors():
                batches = self._model.batch_threads.results(futures)
                sums = sum_spans(batches, len(counts))
                tokens = tokens_in_order(batches, counts) if keep_tokens else None
            is_done = np.zeros(len(counts), bool)
            is_done[pool.sequences.spans_of(pool.chosen)] = True
            means: NDArray[np.float64] = np.full(len(counts), np.nan)
            np.divide(sums, counts, out=means, where=is_done & (counts > 0))
            return SpanLosses(means, tokens)

        return span_losses

    def _begin_batches(self, pool: Pool, dtype: str) -> Sequence[Future[list[BatchLosses]]]:
        """Begins to compute a pool in the batches that suit the model, the device and the type."""
        if dtype in self._packed_types:
            return begin_packed(self._model, pool)
        futures: list[Future[list[BatchLosses]]] = []
        shared, alone = divide(self._model, pool, self._longest_in_tree)
        if len(alone):
            futures += _begin_padded(self._model, pool, alone)
        if shared:
            futures += begin_tree(self._model, pool, shared)
        return futures

    def _repair(self, pool: Pool, losses: SpanLosses) -> None:
        """Computes again, in float32, the sequences whose losses overflow a smaller type.

        Args:
            pool: The pool.
            losses: Of all of its sequences; changed in place.
        """
        if self.dtype == "float32":
            return
        counts = pool.sequences.span_lengths
        bad = offsets(~np.isfinite(losses.means) & (counts > 0))[pool.sequences.span_starts]
        overflowed = pool.chosen[np.diff(bad)[pool.chosen] > 0]
        if len(overflowed):
            saved = pool.usage.tokens_saved  # what is computed again saves nothing
            spans = pool.sequences.spans_of(overflowed)
            again = self._begin(pool.only(overflowed), "float32", losses.tokens is not None)()
            losses.copy_spans(pool.sequences, spans, again, spans)
            pool.usage.tokens_saved = saved


def _begin_padded(
    model: LoadedModel, pool: Pool, chosen: Ints
) -> Sequence[Future[list[BatchLosses]]]:
    """Begins to compute some sequences of a pool in padded batches, by the model's own attention.

    Args:
        model: The model.
        pool: The pool.
        chosen: Indices of the sequences.

    Returns:
        Futures of the losses. They raise EngineFailedError where a single sequence does not fit
        into memory.
    """
    model.attend_by()
    lengths = pool.sequences.lengths
    batches = TokenBudgetBatches(lengths[chosen], model.token_budget)

    def score(batch: Ints) -> list[BatchLosses]:
        try:
            losses = _padded_losses(model, pool.sequences, batch)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise too_long(lengths[batch[0]]) from None
            losses = None
        # Outside of `except`, as the error's traceback holds the tensors of the failed batch.
        if losses is None:
            padded = len(batch) * int(lengths[batch].max())
            model.shrink_budget(min(padded // 2, model.token_budget), pool.usage)
            batches.token_budget = model.token_budget
            return [losses for half in np.array_split(batch, 2) for losses in score(half)]
        if pool.on_batch:
            pool.on_batch(int(pool.copies[batch].sum()), int((lengths[batch] - 1).sum()))
        return [losses]

    return model.batch_threads.submit(score, (chosen[batch] for batch in batches))


@torch.no_grad()
def _padded_losses(model: LoadedModel, sequences: TokenSequences, batch: Ints) -> BatchLosses:
    """The losses of the scored tokens of a batch, sequence after sequence.

    Args:
        model: The model.
        sequences: All sequences.
        batch: Indices of those in the batch.
    """
    # Token t is predicted from the hidden state at t - 1, so the last token is never fed. With
    # spans ((2, 3), (4, 5)) of a sequence a, and b that is padded on the right, where causal
    # attention hides the padding from every token:
    #
    #     column        0  1  2  3
    #     row 0  fed    a0 a1 a2 a3
    #            states    s1    s3        fed_at = row * width + place - 1
    #            targets   a2    a4        ids[place]
    #     row 1  fed    b0 b1 0  0
    fed = sequences.lengths[batch] - 1
    width = int(fed.max())
    ids = np.zeros((len(batch), width), dtype=np.int32)
    ids[np.arange(width) < fed[:, None]] = sequences.ids[ranges(sequences.starts[batch], fed)]
    predictions = sequences.predictions(batch, width * np.arange(len(batch)))
    hidden = model.decoder(input_ids=model.put(ids), use_cache=False).last_hidden_state
    states = hidden.flatten(0, 1)[model.put(predictions.fed_at)]
    return BatchLosses.of(predictions.spans, model.head.nll(states, model.put(predictions.targets)))
