"""What users would take instead of the engine: transformers one row at a time or in plain batches,
and vLLM. Each scores the first rows of a pool that has two sequences a row: conditioned, direct.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from sf_ray.engine.sequences import TokenSequences

# Of the card's memory, for vLLM's weights and cache: the other scorers are on the same card.
_VLLM_MEMORY = 0.3


def by_passes(
    model: torch.nn.Module, pool: TokenSequences, rows: int, batch_rows: int
) -> np.ndarray:
    """Losses [2 rows] in nats by transformers: all conditioned ones first, then all direct ones.

    With `batch_rows` 1 this is the way of the paper's code: full logits of one row at a time.
    """
    losses = np.empty(2 * rows)
    for one_pass in (np.arange(0, 2 * rows, 2), np.arange(1, 2 * rows, 2)):
        for batch in np.split(one_pass, range(batch_rows, rows, batch_rows)):
            losses[batch] = _batch_losses(model, pool.take(batch))
    return losses


@torch.no_grad()
def _batch_losses(model: torch.nn.Module, batch: TokenSequences) -> np.ndarray:
    """Losses [n] in nats of a padded batch, over full logits."""
    ids = torch.zeros(len(batch), int(batch.lengths.max()), dtype=torch.long)
    labels = torch.full_like(ids, -100)
    for row, s in enumerate(batch):
        ids[row, : len(s.ids)] = torch.tensor(s.ids)
        labels[row, s.first : len(s.ids)] = ids[row, s.first : len(s.ids)]
    labels = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=-100).to(model.device)
    logits = model(input_ids=ids.to(model.device)).logits.float()
    nll = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), reduction="none"
    )
    return (nll.view_as(labels).sum(1) / (labels >= 0).sum(1)).cpu().double().numpy()


def vllm_scorer(
    model_dir: Path, dtype: str, longest: int
) -> Callable[[TokenSequences, int], np.ndarray] | None:
    """A function of a pool and a number of rows -> losses [2 rows] in nats, by vLLM.

    vLLM gives the log-probability of each token of a prompt where one new token is generated.

    Returns:
        None where vLLM is not installed.
    """
    if importlib.util.find_spec("vllm") is None:
        return None
    from vllm import LLM, SamplingParams

    llm = LLM(
        model=str(model_dir),
        skip_tokenizer_init=True,
        dtype=dtype,
        max_model_len=longest + 1,  # and the token that is generated
        gpu_memory_utilization=_VLLM_MEMORY,
    )
    asked = SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False)

    def losses(pool: TokenSequences, rows: int) -> np.ndarray:
        sequences = list(pool.take(np.arange(2 * rows)))
        prompts = [{"prompt_token_ids": s.ids.tolist()} for s in sequences]
        outputs = llm.generate(prompts, asked, use_tqdm=False)
        means = np.empty(2 * rows)
        for i, (s, output) in enumerate(zip(sequences, outputs, strict=True)):
            tokens = zip(s.ids.tolist()[s.first :], output.prompt_logprobs[s.first :], strict=True)
            means[i] = -np.mean([logprobs[token].logprob for token, logprobs in tokens])
        return means

    return losses
