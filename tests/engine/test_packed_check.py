"""Models and kernels that packed batches would get wrong are found when a model is loaded."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sf_ray.engine.attention import packed as packed_attention
from sf_ray.engine.attention.packed import Segments, States
from sf_ray.engine.engine import Engine
from sf_ray.engine.sequences import TokenSequences
from tests.engine.conftest import EngineOf
from tests.support.decoders import CAUSAL_MODELS, causal_model
from tests.support.naive import mean_loss
from tests.support.sequences import family

SMALL = {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2}
PADDED = "batches are padded (on usual corpora 15 to 28 % more tokens) and share no prefixes: "


@pytest.mark.parametrize(
    ("architecture", "settings", "why_not"),
    [
        ("Bloom", SMALL | {"n_head": 4}, "do not look at each token alone"),
        ("Mamba", SMALL, "do not look at each token alone"),
        ("Gemma2", CAUSAL_MODELS["Gemma2"] | {"attn_logit_softcapping": 50.0}, "uses softcap"),
        ("Llama", CAUSAL_MODELS["Llama"] | {"attention_chunk_size": 8}, "is in chunks"),
    ],
)
def test_models_that_cannot_be_packed_say_why_and_are_padded(
    tmp_path: Path, architecture: str, settings: dict[str, Any], why_not: str
) -> None:
    model = causal_model(architecture, settings)
    model.save_pretrained(tmp_path)
    pool = [s for s in family(3) if s.scored]
    engine = Engine(tmp_path, packed=True, token_budget=100)
    (note,) = [note for note in engine.notes if "linear layers stay plain" not in note]
    assert note.startswith(PADDED)
    assert note.endswith(why_not)
    expected = [mean_loss(model, s.ids.tolist(), s.first) for s in pool]
    np.testing.assert_allclose(engine.losses(TokenSequences.of(pool)), expected, rtol=1e-5)


@pytest.mark.parametrize("wrong", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_kernel_is_used_in_the_types_in_which_it_is_right(
    wrong: torch.dtype,
    dtype: str,
    tiny_model: Path,
    engine_of: EngineOf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attend = packed_attention._attend

    def kernel(states: States, segments: Segments, scale: float, window: int) -> torch.Tensor:
        is_wrong = states.query.dtype == wrong
        return attend(states, segments, scale * 3 if is_wrong else scale, window)

    monkeypatch.setattr(packed_attention, "_attend", kernel)
    engine = Engine(tiny_model, packed=True, dtype=dtype)
    right = {"float32", dtype} - {str(wrong).removeprefix("torch.")}
    assert engine._packed_types == right
    assert any(PADDED in note for note in engine.notes) == (dtype not in right)
    pool = TokenSequences.of(family(3))
    expected = engine_of(share=False, dtype=dtype).losses(pool)
    tolerance = 1e-4 if dtype == "float32" else 2e-2
    np.testing.assert_allclose(engine.losses(pool), expected, rtol=tolerance, equal_nan=True)


def test_a_kernel_that_fails_is_not_used(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def kernel(*_: Any) -> torch.Tensor:
        raise RuntimeError("FlashAttention only supports Ampere GPUs or newer.\nand more")

    monkeypatch.setattr(packed_attention, "_attend", kernel)
    engine = Engine(tiny_model, packed=True)
    assert engine.notes == [
        f"{PADDED}RuntimeError: FlashAttention only supports Ampere GPUs or newer."
    ]
