"""A causal language model on one device: token sequences -> mean losses.

Knows torch and transformers; no Ray, no text, no tables. Defined by the naive computation

    logits = model(ids[None]).logits[0].float()
    loss   = cross_entropy(logits[first - 1 : stop - 1], ids[first:stop])      for each span

for one sequence at a time, which `tests/test_engine.py` holds it against.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sf_ray.engine.batch_threads import MOST_THREADS, BatchThreads, Part, sum_spans
from sf_ray.engine.batching import TokenBudgetBatches
from sf_ray.engine.flops import Work
from sf_ray.engine.layers.compiled import compile_layers, plainly
from sf_ray.engine.layers.fused_ops import fuse_elementwise
from sf_ray.engine.layers.lm_head import LMHead
from sf_ray.engine.layers.packed_linear import pack
from sf_ray.engine.loaded_model import is_native, load_model
from sf_ray.engine.memory import cpu_token_budget, cuda_token_budget, scoring_bytes
from sf_ray.engine.pending import Pending, Usage
from sf_ray.engine.prefix_tree import PrefixTree, distinct
from sf_ray.engine.sequences import Ints, TokenSequence, ranges, span_of_each, span_starts
from sf_ray.engine.tree_attention import ATTENTION_NAME, QUERIES, Needs, TreeBatch
from sf_ray.errors import EngineFailedError, SfRayError

# A stream that feeds a smaller share less than padded batches, padding included, is slower. On
# CUDA its attention is in many small pieces, and its layers are not compiled.
_LEAST_SAVED = {"cpu": 0.0, "cuda": 0.75}
# Parts of a stream for each lane, so that all are done at about the same time; and batches of each
# part, where there are enough, as what two parts share is computed twice.
_PARTS_A_LANE, _BATCHES_A_PART = 4, 16

OnBatch = Callable[[int, int], None] | None


@dataclass(frozen=True)
class _Pool:
    """Distinct sequences, which stand for some copies each, and who is told of them."""

    sequences: Sequence[TokenSequence]
    copies: Ints
    usage: Usage
    on_batch: OnBatch = None


class Engine:
    """Holds the weights and scores pools of sequences.

    Equal sequences are scored once. Prefixes that sequences share run once where that pays: the
    pool then goes through the model as a `TokenStream`.

    Attributes:
        token_budget: Tokens in one batch, padding included; shrinks when memory runs out.
        notes: What people should know: that prefixes are not shared, where the model forbids it,
            and that the CPU has no instructions for the type.
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
            threads: Threads on CPU; None: torch's setting. Each computes batches of its own.
            share: Compute what sequences share once.
            compile: Compile the model's layers on CUDA.
            trust_remote_code: Run Python code from the model's directory.

        Raises:
            SfRayError: No CUDA device, or a model whose logits are not those of its LM head.
        """
        if device == "cuda" and not torch.cuda.is_available():
            raise SfRayError("--device cuda: torch sees no CUDA device here; use --device cpu")
        threads = threads or torch.get_num_threads()
        self._lanes = BatchThreads(threads, MOST_THREADS if device == "cpu" else 1)
        if device == "cpu":
            torch.set_num_threads(threads)
        self.dtype = dtype
        self.notes: list[str] = []
        if device == "cpu" and dtype != "float32" and not is_native(dtype):
            self.notes.append(
                f"this CPU has no instructions for {dtype}: float32 is several times as fast"
            )
        self._device = torch.device(device)
        self._queries = QUERIES[device]
        self._share = share
        self._model = load_model(model_dir, self._device, trust_remote_code)
        self._decoder = self._model.get_decoder()
        self._own_attention = self._model.config._attn_implementation  # the fused one, mostly
        self._head = LMHead(self._model, dtype)
        self._check_head(model_dir)
        self._compiled = device == "cuda" and compile and self._compile()
        self.token_budget = token_budget or self._default_budget()
        if device == "cpu":
            fuse_elementwise(self._decoder)
            pack(self._decoder, dtype, self.token_budget)
        # The longest sequence that may go through a stream.
        self._stream_limit = self._check_stream() if share else 0

    def losses(
        self, sequences: Sequence[TokenSequence], on_batch: OnBatch = None
    ) -> NDArray[np.float64]:
        """Mean loss of each span of each sequence.

        The sequences are one batching pool: the result depends on nothing outside it.

        Args:
            sequences: [n]; sequences without a scored token are passed over.
            on_batch: Called after each batch with its number of sequences and of tokens, in the
                thread that computed it.

        Returns:
            [spans of all n, in order] nats per token; NaN for an empty span.

        Raises:
            EngineFailedError: The model cannot score one of them.
        """
        return self.begin(sequences, on_batch).result()

    def begin(
        self, sequences: Sequence[TokenSequence], on_batch: OnBatch = None
    ) -> Pending[NDArray[np.float64]]:
        """Begins with a pool; what it comes to, or raises, is `losses`.

        With the next pool begun before the result of this one is taken, the device has work while
        this one ends and that one is cut into batches. One thread begins all of them.
        """
        starts = span_starts(sequences)
        wanted = np.array([i for i, s in enumerate(sequences) if s.scored], dtype=np.int64)
        pool = [sequences[i] for i in wanted]
        usage = Usage(sum(len(s.ids) - 1 for s in pool))
        places = np.arange(len(pool))
        if self._share:
            first, places = distinct(pool)
            pool = [pool[i] for i in first]
            usage.tokens_saved = usage.tokens - sum(len(s.ids) - 1 for s in pool)
        copies = np.bincount(places, minlength=len(pool))
        means_of = self._begin(_Pool(pool, copies, usage, on_batch), self.dtype)

        def result() -> NDArray[np.float64]:
            means, first_of = means_of(), span_starts(pool)
            self._repair(pool, means, usage)
            losses = np.full(starts[-1], np.nan)
            losses[ranges((starts[i], starts[i + 1]) for i in wanted)] = means[
                ranges((first_of[i], first_of[i + 1]) for i in places)
            ]
            return losses

        return Pending(result, usage)

    def _repair(
        self, pool: Sequence[TokenSequence], means: NDArray[np.float64], usage: Usage
    ) -> None:
        """Computes in float32 what a smaller type cannot hold."""
        if self.dtype == "float32":
            return
        starts = span_starts(pool)
        counts = np.array([n for s in pool for n in s.lengths], dtype=np.int64)
        owner = np.repeat(np.arange(len(pool)), np.diff(starts))
        overflowed = np.unique(owner[~np.isfinite(means) & (counts > 0)])
        if not len(overflowed):
            return
        again = _Pool([pool[i] for i in overflowed], np.zeros_like(overflowed), usage)
        spans = ranges((starts[i], starts[i + 1]) for i in overflowed)
        means[spans] = self._begin(again, "float32")()

    def work(self, sequences: Sequence[TokenSequence]) -> Work:
        """What `losses` would compute for these sequences, if no memory runs out; no padding."""
        pool = [s for s in sequences if s.scored]
        if self._share:
            pool = [pool[int(i)] for i in distinct(pool)[0]]
        streamed, stream = self._shared(pool)
        work = Work.plain(pool[int(i)] for i in np.setdiff1d(np.arange(len(pool)), streamed))
        for _, part in self._parts(pool, streamed, stream) if stream else ():
            # A slot looks at all before it on its path.
            work += Work(len(part), len(part.slots), float((part.positions + 0.5).sum()))
        return work

    def _begin(self, pool: _Pool, dtype: str) -> Callable[[], NDArray[np.float64]]:
        """Begins with a pool; what is returned waits for the mean losses of its spans."""
        counts = np.array([n for s in pool.sequences for n in s.lengths], dtype=np.int64)
        streamed, stream = self._shared(pool.sequences)
        plain = np.setdiff1d(np.arange(len(pool.sequences)), streamed)
        if dtype == "float32":
            precision: AbstractContextManager[Any] = nullcontext()
        else:
            # One context for the whole pool: autocast then casts each weight once.
            precision = torch.autocast(self._device.type, getattr(torch, dtype))
        futures: list[Future[list[Part]]] = []
        with precision:
            if len(plain):
                futures += self._plain(pool, plain)
            if stream:
                futures += self._streams(pool, streamed, stream)

        def means_of() -> NDArray[np.float64]:
            with _engine_errors():
                sums = sum_spans(self._lanes.results(futures), len(counts))
            means: NDArray[np.float64] = np.full(len(counts), np.nan)
            np.divide(sums, counts, out=means, where=counts > 0)
            return means

        return means_of

    def _shared(self, pool: Sequence[TokenSequence]) -> tuple[Ints, PrefixTree | None]:
        """Which sequences of a pool go through a stream, and it; none where it is slower."""
        lengths = np.array([len(s.ids) for s in pool], dtype=np.int64)
        streamed = np.flatnonzero(lengths <= self._stream_limit)
        stream = PrefixTree.of([pool[int(i)] for i in streamed]) if len(streamed) else None
        if stream and not self._pays(stream, lengths[streamed] - 1):
            return streamed[:0], None
        return streamed, stream

    def _pays(self, stream: PrefixTree, fed: Ints) -> bool:
        """Whether a stream is faster than padded batches: `docs/adr/0007`."""
        padded = sum(
            len(batch) * int(fed[batch].max())
            for batch in TokenBudgetBatches(fed, self.token_budget)
        )
        return len(stream) < (1 - _LEAST_SAVED[self._device.type]) * padded

    def _plain(self, pool: _Pool, plain: Ints) -> Sequence[Future[list[Part]]]:
        """Some of a pool in padded batches, by the model's own attention."""
        self._attend_by(self._own_attention)
        starts = span_starts(pool.sequences)
        lengths = np.array([len(s.ids) for s in pool.sequences], dtype=np.int64)
        batches = TokenBudgetBatches(lengths[plain], self.token_budget)

        def score(batch: Ints) -> list[Part]:
            try:
                nll = self._batch([pool.sequences[i] for i in batch])
            except torch.OutOfMemoryError:
                if len(batch) == 1:
                    raise _too_long(lengths[batch[0]]) from None
                nll = None
            if nll is None:  # by now the failed batch has let go of its memory
                padded = len(batch) * int(lengths[batch].max())
                self._out_of_memory(min(padded // 2, self.token_budget), pool.usage)
                batches.token_budget = self.token_budget
                return [part for half in np.array_split(batch, 2) for part in score(half)]
            if pool.on_batch:
                pool.on_batch(int(pool.copies[batch].sum()), int((lengths[batch] - 1).sum()))
            return [Part.of(span_of_each(pool.sequences, batch, starts), nll)]

        return self._lanes.submit(score, (plain[batch] for batch in batches))

    @torch.no_grad()
    def _batch(self, sequences: list[TokenSequence]) -> torch.Tensor:
        """[scored tokens] losses of sequences, one after the other."""
        # Token t is predicted from the hidden state at t - 1, so the last token is never fed:
        #     fed      a0 a1 a2 a3      (padding on the right: causal attention hides it)
        #     predicts a1 a2 a3 a4
        fed = np.array([len(s.ids) - 1 for s in sequences])
        width = int(fed.max())
        columns = np.arange(width)
        ids = np.zeros((len(sequences), width), dtype=np.int64)
        ids[columns < fed[:, None]] = np.concatenate([s.ids[:-1] for s in sequences])
        predicting = np.concatenate([s.places - 1 + row * width for row, s in enumerate(sequences)])
        targets = np.concatenate([s.ids[s.places] for s in sequences]).astype(np.int64)
        hidden = self._decoder(input_ids=self._put(ids), use_cache=False).last_hidden_state
        return self._head.nll(hidden.flatten(0, 1)[self._put(predicting)], self._put(targets))

    def _streams(
        self, pool: _Pool, streamed: Ints, stream: PrefixTree
    ) -> Sequence[Future[list[Part]]]:
        """Some of a pool as a stream, in parts that lanes compute side by side.

        Args:
            pool: The pool.
            streamed: Its sequences that go through the stream.
            stream: All of it.
        """
        starts = span_starts(pool.sequences)
        parts = self._parts(pool.sequences, streamed, stream)

        def score(part: tuple[Ints, PrefixTree]) -> list[Part]:
            places, one = part
            of_all = ranges((starts[i], starts[i + 1]) for i in places)
            found = self._stream(one, pool, pool.copies[places])
            return [Part.of(of_all[spans], nll) for spans, nll in found]

        self._attend_by(ATTENTION_NAME)
        pool.usage.tokens_saved += sum(
            sum(len(pool.sequences[i].ids) - 1 for i in places) - len(one) for places, one in parts
        )
        return self._lanes.submit(score, parts)

    def _parts(
        self, pool: Sequence[TokenSequence], streamed: Ints, stream: PrefixTree
    ) -> list[tuple[Ints, PrefixTree]]:
        """The parts of a stream, each with the places in the pool of its sequences."""
        batches = -(-len(stream) // self.token_budget)
        lanes = self._lanes.count
        count = min(_PARTS_A_LANE * lanes, max(lanes, batches // _BATCHES_A_PART))
        count = min(count, batches)
        if lanes == 1 or count < 2:
            return [(streamed, stream)]
        cuts = np.searchsorted(stream.ends, len(stream) * np.arange(1, count) / count)
        return [
            (part, PrefixTree.of([pool[i] for i in part]))
            for part in np.split(streamed[stream.order], np.unique(cuts))
            if len(part)
        ]

    def _stream(
        self,
        stream: PrefixTree,
        pool: _Pool,
        copies: Ints,
        needs: Needs | None = None,
    ) -> Iterator[tuple[Ints, torch.Tensor]]:
        """Batches of a stream, one after the other; the spans of losses, and the losses.

        Args:
            stream: The stream.
            pool: What it is of.
            copies: How many sequences each of the stream's stands for.
            needs: Where to note what the model's attention needs.
        """
        done = np.concatenate([[0], np.cumsum(copies[stream.order])])
        before: TreeBatch | None = None
        needs = needs or Needs()
        start = 0
        while start < len(stream):
            stop = min(start + self.token_budget, len(stream))
            try:
                batch = TreeBatch(stream, start, stop, before, needs, self._put, self._queries)
                spans, nll = self._stream_batch(stream, batch)
            except torch.OutOfMemoryError:
                if stop - start == 1:
                    raise _too_long(int(stream.positions[start]) + 2) from None
                self._out_of_memory((stop - start) // 2, pool.usage)
                continue
            yield spans, nll
            if pool.on_batch:
                ended = np.searchsorted(stream.ends, [start, stop], side="right")
                pool.on_batch(int(done[ended[1]] - done[ended[0]]), stop - start)
            before, start = batch, stop

    @torch.no_grad()
    def _stream_batch(self, stream: PrefixTree, batch: TreeBatch) -> tuple[Ints, torch.Tensor]:
        fed = slice(batch.start, batch.stop)
        with plainly() if self._compiled else nullcontext():
            hidden = self._decoder(
                input_ids=self._put(stream.ids[fed])[None],
                position_ids=self._put(stream.positions[fed])[None],
                use_cache=False,
                stream=batch,
            ).last_hidden_state[0]
        first, last = np.searchsorted(stream.slots, [batch.start, batch.stop])
        states = hidden[self._put(stream.slots[first:last] - batch.start)]
        return stream.spans[first:last], self._head.nll(
            states, self._put(stream.targets[first:last])
        )

    def memory_bound(self, longest: int) -> int:
        """Bytes that scoring takes at most beside the loaded weights (`docs/performance.md`).

        Args:
            longest: Tokens of the longest sequence.
        """
        weights = sum(p.numel() for p in self._model.parameters())
        return scoring_bytes(
            self._model.config.get_text_config(),
            copies=self._head.weight_bytes if self.dtype == "float32" else 2 * weights,
            lanes=self._lanes.count,
            token_budget=self.token_budget,
            longest=longest,
        )

    def _default_budget(self) -> int:
        if self._device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self._device)
            return cuda_token_budget(self._model.config.get_text_config(), free)
        return cpu_token_budget(self._model.config.get_text_config(), self.dtype)

    def _put(self, array: Ints) -> torch.Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if self._device.type == "cpu":
            return tensor
        return tensor.pin_memory().to(self._device, non_blocking=True)

    def _attend_by(self, name: str) -> None:
        if self._model.config._attn_implementation != name:
            self._lanes.settle()  # they look it up
            self._model.set_attn_implementation(name)

    def _out_of_memory(self, token_budget: int, usage: Usage) -> None:
        self.token_budget = max(1, token_budget)
        usage.oom_splits += 1
        torch.cuda.empty_cache()

    @torch.no_grad()
    def _check_head(self, model_dir: Path) -> None:
        """Some architectures change logits after the LM head; refuse those we do not know."""
        self._attend_by(self._own_attention)
        ids = torch.arange(1, 9, device=self._device)[None]
        logits = self._model(input_ids=ids, use_cache=False).logits[0].float()
        expected = torch.nn.functional.cross_entropy(logits, ids[0], reduction="none")
        hidden = self._decoder(input_ids=ids, use_cache=False).last_hidden_state[0]
        if not torch.allclose(self._head.nll(hidden, ids[0]), expected, rtol=1e-3, atol=1e-3):
            raise SfRayError(
                f"model {model_dir}: {type(self._model).__name__} computes its logits in a way "
                "that sf_ray does not know; choose another model and report this one"
            )

    def _compile(self) -> bool:
        why_not = compile_layers(self._decoder, self.dtype, self._device)
        if why_not:
            self.notes.append(f"the model's layers are not compiled, and slower: {why_not}")
            return False
        self._head.compile()
        return True

    def _check_stream(self) -> int:
        """The longest sequence for which a stream gives what plain batches give; 0: none."""
        ids = np.arange(1, 33, dtype=np.int32)
        sequences = [
            TokenSequence.scored_from(np.concatenate(parts), 1)
            for parts in ([ids], [ids[:20], ids[:9]], [ids[:20], ids[3:9]], [ids[9:]], [ids[::-1]])
        ]
        pool = _Pool(sequences, np.ones(len(sequences), np.int64), Usage())
        needs = Needs()
        budget, self.token_budget = self.token_budget, 14  # several batches, cut anywhere
        try:
            plain = sum_spans(self._lanes.results(self._plain(pool, np.arange(len(sequences)))))
            self._attend_by(ATTENTION_NAME)
            found = self._stream(PrefixTree.of(sequences), pool, pool.copies, needs)
            shared = sum_spans([Part.of(*part) for part in found])
            reason = "its layers do not look at each token alone"
            if needs.unknown:
                reason = f"its attention uses {', '.join(sorted(needs.unknown))}"
            is_same = not needs.unknown and np.allclose(plain, shared, rtol=1e-4)
        except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
            is_same, reason = False, f"{type(error).__name__}: {error}"
        finally:
            self.token_budget = budget
        if not is_same:
            self.notes.append(
                f"prefixes that sequences share are computed for each of them: {reason}"
            )
            return 0
        # Only masks, which a stream does without, know of chunks.
        chunk = getattr(self._model.config.get_text_config(), "attention_chunk_size", None)
        windows = needs.windows | ({int(chunk)} if chunk else set())
        if windows:
            self.notes.append(
                f"in sequences of more than {min(windows)} tokens, which is as far as some of the "
                "model's layers look, shared prefixes are computed for each of them"
            )
        return min(windows, default=1 << 62)


@contextmanager
def _engine_errors() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, IndexError, ValueError) as error:
        line = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
        raise EngineFailedError(line, device_is_lost="CUDA error" in line) from error


def _too_long(tokens: int) -> EngineFailedError:
    return EngineFailedError(
        f"the device has too little memory for one sequence of {tokens} tokens: lower "
        "--max-length, or use a smaller model"
    )
