"""A model's weights on one device, checked and prepared when they are loaded.

Knows torch and transformers; no sequences, no batches of them.
"""

import platform
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sf_ray.engine.batch_threads import MOST_THREADS, BatchThreads
from sf_ray.engine.layers.compiled import compile_layers
from sf_ray.engine.layers.fused_ops import fuse_elementwise
from sf_ray.engine.layers.lm_head import LMHead
from sf_ray.engine.layers.packed_linear import pack_linear_layers
from sf_ray.engine.memory import cpu_token_budget, cuda_token_budget, scoring_bytes
from sf_ray.engine.pending import Usage
from sf_ray.errors import EngineFailedError, SfRayError


class LoadedModel:
    """A causal language model on one device, with the threads and the memory that it may use.

    Attributes:
        decoder: The model without its LM head: token ids -> hidden states.
        head: The LM head: hidden states -> losses.
        config: Configuration of the (text) model.
        device: Where the weights are.
        is_compiled: Whether the decoder's layers are compiled.
        batch_threads: Where batches are computed.
        token_budget: Tokens in one batch, padding included; shrinks when memory runs out.
        notes: What users should know about the model on this device.
    """

    def __init__(
        self,
        model_dir: Path,
        *,
        device: str,
        dtype: str,
        token_budget: int | None,
        threads: int | None,
        side_by_side: bool,
        trust_remote_code: bool,
    ) -> None:
        """
        The arguments are those of `Engine`, and:

        Args:
            side_by_side: Compute several batches at a time.

        Raises:
            SfRayError: No CUDA device, or a model whose logits are not those of its LM head.
        """
        if device == "cuda" and not torch.cuda.is_available():
            raise SfRayError("--device cuda: torch sees no CUDA device here; use --device cpu")
        threads = threads or torch.get_num_threads()
        self.batch_threads = BatchThreads(threads, MOST_THREADS if side_by_side else 1)
        if device == "cpu":
            torch.set_num_threads(threads)
        self.notes: list[str] = []
        if device == "cpu" and dtype != "float32" and not has_instructions(dtype):
            self.notes.append(
                f"this CPU has no instructions for {dtype}: float32 is several times as fast"
            )
        self.device = torch.device(device)
        self._dtype = dtype
        self._model = _load_weights(model_dir, self.device, trust_remote_code)
        self._own_attention = self._model.config._attn_implementation  # mostly a fused one
        self.decoder = self._model.get_decoder()
        self.head = LMHead(self._model, dtype)
        self.config = self._model.config.get_text_config()
        self.check_head(model_dir)
        self.is_compiled = False
        self.token_budget = token_budget or self._default_budget()
        if device == "cpu":
            fuse_elementwise(self.decoder)
            why_not = pack_linear_layers(self.decoder, dtype, self.token_budget)
            # Where the CPU lacks the instructions, that has been said.
            if why_not and not self.notes:
                self.notes.append(f"the model's linear layers stay plain, and slower: {why_not}")

    def autocast(self, dtype: str) -> AbstractContextManager[Any]:
        """A context in which matrix products are computed in a type, from float32 weights.

        Autocast casts each weight once for each context, so a whole pool should share one.
        """
        if dtype == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, getattr(torch, dtype))

    def attend_by(self, name: str | None = None) -> None:
        """Selects the attention of all layers.

        Args:
            name: A name that is registered with transformers; None: the one that the model was
                loaded with.
        """
        name = name or self._own_attention
        if self._model.config._attn_implementation != name:
            # Layers look the name up whenever they run.
            self.batch_threads.wait_until_idle()
            self._model.set_attn_implementation(name)

    def put(self, array: NDArray[np.integer]) -> torch.Tensor:
        """Brings numbers to the device, without waiting for the device."""
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if self.device.type == "cpu":
            return tensor
        return tensor.pin_memory().to(self.device, non_blocking=True)

    def shrink_budget(self, token_budget: int, usage: Usage) -> None:
        """Takes note that memory ran out.

        Args:
            token_budget: Tokens in one batch from now on.
            usage: Counts how often that happens.
        """
        self.token_budget = max(1, token_budget)
        usage.oom_splits += 1
        torch.cuda.empty_cache()

    def memory_bound(self, longest: int) -> int:
        """Bytes that scoring takes at most beside the loaded weights (`docs/performance.md`).

        Args:
            longest: Tokens of the longest sequence.
        """
        weights = sum(p.numel() for p in self._model.parameters())
        return scoring_bytes(
            self.config,
            # float32: the head's tiles stand beside its weight. Else all weights in 2 bytes each.
            copies=self.head.weight_bytes if self._dtype == "float32" else 2 * weights,
            batches=self.batch_threads.count,
            token_budget=self.token_budget,
            longest=longest,
        )

    @torch.no_grad()
    def check_head(self, model_dir: Path) -> None:
        """Compares the LM head's losses with those from the model's own logits.

        Some architectures scale, cap or otherwise change their logits after the LM head.

        Raises:
            SfRayError: The model does so in a way that `LMHead` does not know.
        """
        self.attend_by()
        ids = torch.arange(1, 9, device=self.device)[None]
        logits = self._model(input_ids=ids, use_cache=False).logits[0].float()
        expected = torch.nn.functional.cross_entropy(logits, ids[0], reduction="none")
        hidden = self.decoder(input_ids=ids, use_cache=False).last_hidden_state[0]
        if not torch.allclose(self.head.nll(hidden, ids[0]), expected, rtol=1e-3, atol=1e-3):
            raise SfRayError(
                f"model {model_dir}: {type(self._model).__name__} computes its logits in a way "
                "that sf_ray does not know; choose another model and report this one"
            )

    def compile(self, batch: Mapping[str, Any] | None) -> None:
        """Compiles the layers around the attention that is selected, and the head.

        Where that fails, or changes hidden states, the model stays as it is and a note says why.

        Args:
            batch: See `compile_layers`.
        """
        why_not = compile_layers(self.decoder, self._dtype, self.device, batch)
        if why_not:
            self.notes.append(f"the model's layers are not compiled, and slower: {why_not}")
            return
        self.head.compile()
        self.is_compiled = True

    def _default_budget(self) -> int:
        if self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            return cuda_token_budget(self.config, free)
        return cpu_token_budget(self.config, self._dtype)


def _load_weights(model_dir: Path, device: torch.device, trust_remote_code: bool) -> Any:
    """A causal language model with float32 weights, on a device.

    Raises:
        SfRayError: It cannot be loaded, or the device has too little memory for it.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    try:
        model = AutoModelForCausalLM.from_pretrained(
            model_dir,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
        )
        return model.to(device).eval()
    except torch.OutOfMemoryError as error:
        raise SfRayError(
            f"model {model_dir}: does not fit into the memory of {device} ({error}); use a smaller "
            "model, or fewer actors a GPU (--gpus-per-actor)"
        ) from error
    except Exception as error:  # its files may be anybody's, and raise anything
        raise SfRayError(f"model {model_dir}: cannot be loaded: {error}") from error


def has_instructions(dtype: str) -> bool:
    """Whether this CPU has instructions for a type of low precision; True where nobody says."""
    names = {"bfloat16": ("avx512_bf16", "amx_bf16"), "float16": ("avx512_fp16", "amx_fp16")}
    if platform.machine() != "x86_64" or not hasattr(torch.cpu, "get_capabilities"):
        return True
    return any(torch.cpu.get_capabilities()[name] for name in names[dtype])


@contextmanager
def engine_errors() -> Iterator[None]:
    """Turns what torch raises while it computes into `EngineFailedError`."""
    try:
        yield
    except (RuntimeError, IndexError, ValueError) as error:
        line = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
        raise EngineFailedError(line, device_is_lost="CUDA error" in line) from error


def too_long(tokens: int) -> EngineFailedError:
    """The error of a sequence that does not fit into memory even in a batch of its own."""
    return EngineFailedError(
        f"the device has too little memory for one sequence of {tokens} tokens: lower "
        "--max-length, or use a smaller model"
    )
