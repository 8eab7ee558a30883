from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from sf_ray.engine.attention.tree import TreeBatch
from sf_ray.engine.engine import Engine
from sf_ray.engine.pending import Usage
from sf_ray.engine.sequences import TokenSequences
from tests.engine.conftest import EngineOf
from tests.support.decoders import COMMON
from tests.support.naive import mean_loss
from tests.support.sequences import family, random_sequences


@pytest.mark.parametrize(
    ("seed", "budget"),
    # One token at a time is slow: four small families of that.
    [(seed, budget) for seed in range(12) for budget in (1, 13, 1000) if budget > 1 or seed < 4],
)
def test_sharing_does_not_change_a_loss(engine_of: EngineOf, seed: int, budget: int) -> None:
    pool = TokenSequences.of(family(seed, most=40 if budget > 1 else 10))
    engine = engine_of(token_budget=budget, threads=1)
    assert engine.notes == []
    expected = engine_of(share=False).losses(pool)
    pending = engine.begin(pool)
    losses = pending.result()
    np.testing.assert_allclose(losses, expected, rtol=1e-4, equal_nan=True)
    assert losses.tobytes() == engine.losses(pool).tobytes()
    prefixes = {s.ids[:end].tobytes() for s in pool if s.scored for end in range(1, len(s.ids))}
    asked = sum(len(s.ids) - 1 for s in pool if s.scored)
    assert len(prefixes) < asked  # some are shared
    assert pending.usage == Usage(asked, asked - len(prefixes))


def test_a_model_that_cannot_share_says_why_and_is_right(
    tiny_model: Path, engine_of: EngineOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = TokenSequences.of(family(3))
    expected = engine_of(share=False).losses(pool)
    attend = TreeBatch.attend

    def twice(self: TreeBatch, *arguments: Any) -> Any:
        return attend(self, *arguments) * 2

    monkeypatch.setattr(TreeBatch, "attend", twice)
    engine = Engine(tiny_model)
    (note,) = engine.notes
    assert "are computed anew for each sequence: the model's layers do not look" in note
    np.testing.assert_allclose(engine.losses(pool), expected, rtol=1e-4, equal_nan=True)


SHARES = None
WINDOW = "sequences of more than 33 tokens do not share"
NO_SHARING = "anew for each sequence"


@pytest.mark.parametrize(
    ("architecture", "settings", "note"),
    [
        ("Qwen3", COMMON, SHARES),
        ("GPT2", {"vocab_size": 300, "n_embd": 32, "n_layer": 2, "n_head": 4}, SHARES),
        ("GPTNeoX", COMMON, SHARES),
        ("Mistral", COMMON | {"sliding_window": 33}, WINDOW),
        ("Gemma3Text", COMMON | {"sliding_window": 33}, WINDOW),
        ("Mamba", {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2}, NO_SHARING),
        ("Bloom", {"vocab_size": 300, "hidden_size": 32, "n_layer": 2, "n_head": 4}, NO_SHARING),
    ],
)
def test_architectures_that_share_and_that_do_not_give_the_same_losses(
    tmp_path: Path, architecture: str, settings: dict[str, Any], note: str | None
) -> None:
    import transformers

    torch.manual_seed(0)
    # Large weights, so that what a token sees shows in its loss.
    config = getattr(transformers, f"{architecture}Config")(**settings, initializer_range=0.3)
    model = AutoModelForCausalLM.from_config(config).eval()
    model.save_pretrained(tmp_path)
    pool = TokenSequences.of([s for s in family(3) + random_sequences(20) if s.scored])
    assert max(len(s.ids) for s in pool) > 50
    engine = Engine(tmp_path, token_budget=50)
    # Layers that stay plain have a note of their own.
    notes = [text for text in engine.notes if "linear layers" not in text]
    assert len(notes) == (note is not None), notes
    assert (note or "") in "".join(notes)
    expected = [mean_loss(model, s.ids.tolist(), s.first) for s in pool]
    np.testing.assert_allclose(engine.losses(pool), expected, rtol=1e-4)
