"""A causal language model on one device: token sequences -> mean losses.

Knows torch and transformers; no Ray, no text, no tables. Defined by the naive computation

    logits = model(ids[None]).logits[0].float()
    loss   = cross_entropy(logits[first - 1 : -1], ids[first:])

for one sequence at a time, which `tests/test_engine.py` holds it against.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from sf_ray.batching import TokenBudgetBatches
from sf_ray.encoding import TokenSequence
from sf_ray.errors import EngineFailedError, SfRayError

_TOKEN_BUDGET = {"cpu": 2048, "cuda": 65536}
# Float32 logits are [positions, vocabulary]: this many bytes of them exist at a time.
_LOGITS_BYTES = {"cpu": 1 << 26, "cuda": 1 << 30}


class Engine:
    """Holds the weights and scores pools of sequences.

    Attributes:
        token_budget: Padded tokens in one batch; shrinks when the device runs out of memory.
        oom_splits: How often it did.
    """

    def __init__(
        self,
        model_dir: Path,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        token_budget: int | None = None,
        threads: int | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        """
        Args:
            model_dir: Directory with config.json and safetensors weights.
            device: "cpu" or "cuda".
            dtype: "float32", or "float16" or "bfloat16" as autocast over float32 weights.
            token_budget: Padded tokens in one batch.
            threads: Threads on CPU; None leaves torch's setting.
            trust_remote_code: Run Python code from the model's directory.

        Raises:
            SfRayError: No CUDA device, or a model whose logits are not those of its LM head.
        """
        if device == "cuda" and not torch.cuda.is_available():
            raise SfRayError("--device cuda: torch sees no CUDA device here; use --device cpu")
        if threads is not None and device == "cpu":
            torch.set_num_threads(threads)
        self.dtype = dtype
        self.token_budget = token_budget or _TOKEN_BUDGET[device]
        self.oom_splits = 0
        self._device = torch.device(device)
        model = _load(model_dir, self._device, trust_remote_code)
        self._decoder = model.get_decoder()
        self._head = _head_of(model)
        self._check_head(model, model_dir)
        vocabulary = model.get_output_embeddings().weight.shape[0]
        self._head_chunk = max(1, _LOGITS_BYTES[device] // (4 * vocabulary))

    def losses(
        self,
        sequences: Sequence[TokenSequence],
        on_batch: Callable[[int, int], None] | None = None,
    ) -> NDArray[np.float64]:
        """Mean loss of each sequence over its scored tokens.

        The sequences are one batching pool: the result depends on nothing outside it.

        Args:
            sequences: [n]; sequences without a scored token are passed over.
            on_batch: Called after each batch with its number of sequences and of tokens.

        Returns:
            [n] nats per scored token; NaN where nothing is scored.

        Raises:
            EngineFailedError: The model cannot score one of them.
        """
        losses = np.full(len(sequences), np.nan)
        wanted = np.array([i for i, s in enumerate(sequences) if s.scored], dtype=np.int64)
        if self.dtype == "float32":
            precision: AbstractContextManager[Any] = nullcontext()
        else:
            # One context for the whole pool: autocast then casts each weight once.
            precision = torch.autocast(self._device.type, getattr(torch, self.dtype))
        with precision:
            losses[wanted] = self._pool([sequences[i] for i in wanted], on_batch)
        overflowed = wanted[~np.isfinite(losses[wanted])]
        if len(overflowed) and self.dtype != "float32":
            losses[overflowed] = self._pool([sequences[i] for i in overflowed], None)
        return losses

    def _pool(
        self, sequences: list[TokenSequence], on_batch: Callable[[int, int], None] | None
    ) -> NDArray[np.float64]:
        losses = np.empty(len(sequences))
        lengths = np.array([len(s.ids) for s in sequences], dtype=np.int64)
        batches = TokenBudgetBatches(lengths, self.token_budget)
        for batch in batches:
            try:
                losses[batch] = self._batch([sequences[i] for i in batch])
            except torch.OutOfMemoryError:
                if len(batch) == 1:
                    raise EngineFailedError(
                        f"the device has too little memory for one sequence of {lengths[batch[0]]} "
                        "tokens: lower --max-length, or use a smaller model"
                    ) from None
                batches.split(batch)
                self.token_budget = batches.token_budget
                self.oom_splits += 1
                torch.cuda.empty_cache()
                continue
            except (RuntimeError, IndexError, ValueError) as error:
                line = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
                raise EngineFailedError(line, device_is_lost="CUDA error" in line) from error
            if on_batch:
                on_batch(len(batch), int(lengths[batch].sum()))
        return losses

    @torch.no_grad()
    def _batch(self, sequences: list[TokenSequence]) -> NDArray[np.float64]:
        # Token t is predicted from the hidden state at t - 1, so the last token is never fed:
        #     fed      a0 a1 a2 a3      (padding on the right: causal attention hides it)
        #     predicts a1 a2 a3 a4
        width = max(len(s.ids) for s in sequences) - 1
        fed = np.zeros((len(sequences), width), dtype=np.int64)
        for row, s in enumerate(sequences):
            fed[row, : len(s.ids) - 1] = s.ids[:-1]
        counts = np.array([s.scored for s in sequences])
        flat = np.concatenate(
            [
                row * width + np.arange(s.first - 1, len(s.ids) - 1)
                for row, s in enumerate(sequences)
            ]
        )
        targets = np.concatenate([s.ids[s.first :] for s in sequences]).astype(np.int64)

        hidden = self._decoder(input_ids=self._put(fed), use_cache=False).last_hidden_state
        hidden = hidden.flatten(0, 1)[self._put(flat)]  # [scored tokens, hidden size]
        nll = torch.cat(
            [
                self._nll(states, wanted)
                for states, wanted in zip(
                    torch.split(hidden, self._head_chunk),
                    torch.split(self._put(targets), self._head_chunk),
                    strict=True,
                )
            ]
        )
        sums = torch.zeros(len(sequences), dtype=torch.float64, device=self._device)
        sums.index_add_(0, self._put(np.repeat(np.arange(len(sequences)), counts)), nll.double())
        means: NDArray[np.float64] = sums.cpu().numpy() / counts
        return means

    def _nll(self, states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """[n, hidden size], [n] -> [n] float32 negative log-likelihoods."""
        logits = self._head(states).float()
        picked = logits.gather(1, targets[:, None]).squeeze(1)
        return logits.logsumexp(1) - picked

    def _put(self, array: NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(array).to(self._device)

    @torch.no_grad()
    def _check_head(self, model: Any, model_dir: Path) -> None:
        """Some architectures change logits after the LM head; refuse those we do not know."""
        ids = torch.arange(1, 9, device=self._device)[None]
        expected = model(input_ids=ids, use_cache=False).logits
        got = self._head(self._decoder(input_ids=ids, use_cache=False).last_hidden_state)
        if got.shape != expected.shape or not torch.allclose(got, expected, rtol=1e-3, atol=1e-3):
            raise SfRayError(
                f"model {model_dir}: {type(model).__name__} computes its logits in a way that "
                "sf_ray does not know; choose another model and report this one"
            )


def _load(model_dir: Path, device: torch.device, trust_remote_code: bool) -> Any:
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    try:
        model = AutoModelForCausalLM.from_pretrained(
            model_dir,
            dtype=torch.float32,
            attn_implementation="sdpa",
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
        )
        return model.to(device).eval()
    except torch.OutOfMemoryError as error:
        raise SfRayError(
            f"model {model_dir}: does not fit into the memory of {device} ({error}); use a smaller "
            "model, or fewer actors a GPU (--gpus-per-actor)"
        ) from error
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise SfRayError(f"model {model_dir}: cannot be loaded: {error}") from error


def _head_of(model: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """Hidden states -> logits, with what the known architectures do after the projection."""
    config = model.config.get_text_config()
    projection = model.get_output_embeddings()
    scale = getattr(config, "logit_scale", None)  # Cohere
    divisor = getattr(config, "logits_scaling", None)  # Granite
    cap = getattr(config, "final_logit_softcapping", None)  # Gemma 2

    def head(states: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = projection(states)
        if scale:
            logits = logits * scale
        if divisor:
            logits = logits / divisor
        if cap:
            logits = cap * torch.tanh(logits / cap)
        return logits

    return head
