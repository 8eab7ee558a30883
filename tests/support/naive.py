"""The scores by their definition: one row, one pass, full logits. The engine is compared to it."""

import math
from typing import Any, NamedTuple

import torch
from torch.nn.functional import cross_entropy


class NaiveScore(NamedTuple):
    loss_direct: float | None
    loss_conditioned: float | None
    ifd: float | None


def mean_loss(model: Any, ids: list[int], first: int) -> float | None:
    """Mean negative log-likelihood of ids[first:], None where nothing has a context."""
    first = max(first, 1)
    if len(ids) <= first:
        return None
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].float()
    return float(cross_entropy(logits[first - 1 : -1], torch.tensor(ids[first:])))


def naive_score(
    model: Any, tokenizer: Any, prompt: str, answer: str, max_length: int = 1024
) -> NaiveScore:
    """Reference alignment: the answer starts where the prompt alone ends, cut on the right."""
    start = len(tokenizer.encode(prompt))
    whole = tokenizer.encode(prompt + answer, truncation=True, max_length=max_length)
    limit = max_length - min(start, max_length) + 1
    alone = tokenizer.encode(answer, truncation=True, max_length=limit)
    conditioned = mean_loss(model, whole, start)
    direct = mean_loss(model, alone, 0)
    if not answer or conditioned is None or direct is None:
        return NaiveScore(direct, conditioned, None)
    return NaiveScore(direct, conditioned, math.exp(conditioned - direct))


def naive_chat(
    model: Any, tokenizer: Any, texts: list[str], answers: list[int], max_length: int = 1024
) -> tuple[list[NaiveScore], float]:
    """A chat by its definition: one pass for each turn, and means over the tokens of all turns.

    Args:
        model: A causal language model of transformers.
        tokenizer: Its tokenizer.
        texts: The messages, each with the separator behind it.
        answers: Indices of the messages that are answers; a newline behind an answer is not scored.
        max_length: The window in tokens.

    Returns:
        The scores of each answer, and the IFD of the chat.
    """
    turns, sums, tokens = [], [0.0, 0.0], [0, 0]
    for at in answers:
        before, answer = "".join(texts[:at]), texts[at].removesuffix("\n")
        turn = naive_score(model, tokenizer, before, answer, max_length)
        turns.append(turn)
        if turn.ifd is None:
            continue
        start = len(tokenizer.encode(before))
        counts = (
            len(tokenizer.encode(before + answer)[:max_length]) - start,
            len(tokenizer.encode(answer)[: max_length - start + 1]) - 1,
        )
        for i, (loss, count) in enumerate(
            zip((turn.loss_conditioned, turn.loss_direct), counts, strict=True)
        ):
            assert loss is not None
            sums[i] += loss * count
            tokens[i] += count
    return turns, math.exp(sums[0] / tokens[0] - sums[1] / tokens[1])


def naive_aligned(model: Any, tokenizer: Any, prompt: str, answer: str) -> float:
    """Aligned IFD: the same answer tokens, once behind the prompt and once behind the BOS alone."""
    start = len(tokenizer.encode(prompt))
    whole = tokenizer.encode(prompt + answer)
    bos = tokenizer.bos_token_id
    conditioned = mean_loss(model, whole, start)
    direct = mean_loss(model, [bos, *whole[start:]], 1)
    assert conditioned is not None
    assert direct is not None
    return math.exp(conditioned - direct)
