"""Losses of single tokens, in every way that the engine computes a pool."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sf_ray.engine.engine import Engine
from sf_ray.engine.layers import lm_head
from sf_ray.engine.sequences import TokenSequence, TokenSequences
from tests.engine.conftest import EngineOf, limit_memory
from tests.support.engines import load
from tests.support.sequences import family, random_sequences

Arrays = NDArray[Any]
WAYS = [{"share": False}, {"share": True}, {"share": True, "token_budget": 60}, {"packed": True}]


def pool() -> TokenSequences:
    """Sequences that share prefixes, repeat each other, have several spans, or nothing to score."""
    chat = np.arange(2, 60, dtype=np.int32)
    several = TokenSequence(chat, ((3, 10), (10, 10), (20, 58)))
    alone = TokenSequence.scored_from(np.array([5], np.int32), 1)
    sequences = [*family(3), several, *random_sequences(12), alone, several, *family(3)[:5]]
    return TokenSequences.of(sequences)


def naive(model: torch.nn.Module, sequences: TokenSequences) -> Arrays:
    """By the definition: one sequence at a time, full logits."""
    losses = [np.empty(0, np.float32)]
    for sequence in sequences:
        with torch.no_grad():
            logits = model(torch.from_numpy(sequence.ids[None].astype(np.int64))).logits[0].float()
        targets = torch.from_numpy(sequence.ids.astype(np.int64))
        for first, stop in sequence.spans:
            losses.append(
                torch.nn.functional.cross_entropy(
                    logits[first - 1 : stop - 1], targets[first:stop], reduction="none"
                ).numpy()
            )
    return np.concatenate(losses)


def means_of(tokens: Arrays, sequences: TokenSequences) -> Arrays:
    parts = np.split(tokens.astype(np.float64), sequences.token_starts[1:-1])
    return np.array([part.mean() if len(part) else np.nan for part in parts])


@pytest.mark.parametrize("settings", WAYS, ids=str)
def test_each_token_has_the_loss_of_its_definition(
    settings: dict[str, object], engine_of: EngineOf, request: pytest.FixtureRequest
) -> None:
    model, _ = load(request.getfixturevalue("tiny_model"))
    sequences, engine = pool(), engine_of(**settings)
    losses = engine.begin_tokens(sequences).result()
    assert losses.tokens is not None
    np.testing.assert_allclose(losses.tokens, naive(model, sequences), rtol=1e-3, atol=1e-4)
    assert losses.means.tobytes() == engine.losses(sequences).tobytes()
    np.testing.assert_allclose(
        losses.means, means_of(losses.tokens, sequences), rtol=1e-12, equal_nan=True
    )


def test_tokens_keep_their_order_where_memory_runs_out(
    tiny_model: Path, engine_of: EngineOf
) -> None:
    sequences = pool()
    expected = engine_of().begin_tokens(sequences).result()
    for share in (True, False):
        engine = Engine(tiny_model, share=share)
        limit_memory(engine, 150)
        pending = engine.begin_tokens(sequences)
        losses = pending.result()
        assert pending.usage.oom_splits
        assert losses.tokens is not None
        np.testing.assert_allclose(losses.tokens, expected.tokens, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("packed", [False, True])
def test_tokens_that_overflow_in_low_precision_are_those_of_float32(
    packed: bool, engine_of: EngineOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequences = pool()
    exact = engine_of(packed=packed).begin_tokens(sequences).result()
    engine = engine_of(dtype="bfloat16", packed=packed)
    nll = lm_head.LMHead.nll

    def overflowing(
        self: lm_head.LMHead, states: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        result = nll(self, states, targets)
        return result * torch.inf if torch.is_autocast_enabled("cpu") else result

    monkeypatch.setattr(lm_head.LMHead, "nll", overflowing)
    repaired = engine.begin_tokens(sequences).result()
    assert repaired.tokens is not None
    np.testing.assert_allclose(repaired.tokens, exact.tokens, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(repaired.means, exact.means, rtol=1e-6, equal_nan=True)
