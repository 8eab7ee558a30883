from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sf_ray.engine.engine import Engine
from sf_ray.engine.fine_tuning import batches_of, fine_tune
from sf_ray.engine.recipe import Recipe
from sf_ray.engine.sequences import TokenSequence, TokenSequences
from sf_ray.errors import SfRayError
from sf_ray.runtime import libraries

RECIPE = Recipe(epochs=4, learning_rate=3e-3, batch_tokens=64)


def sequences() -> TokenSequences:
    """Twenty sequences whose answers follow from nothing but their own last tokens."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(20):
        start = int(rng.integers(10, 40))
        ids = [*rng.integers(10, 60, 4).tolist(), *range(start, start + 12)]
        made.append(TokenSequence.scored_from(ids, 5))
    return TokenSequences.of(made)


@given(
    st.lists(st.integers(1, 200), min_size=1, max_size=60), st.integers(1, 400), st.integers(1, 3)
)
def test_batches_have_about_equal_tokens_and_each_epoch_has_each_sequence_once(
    lengths: list[int], batch_tokens: int, epochs: int
) -> None:
    of = np.array(lengths)
    batches = batches_of(of, Recipe(epochs, 1e-3, batch_tokens), seed=3)
    steps = len(batches) // epochs
    assert len(batches) == steps * epochs
    for epoch in range(epochs):
        parts = batches[epoch * steps : epoch * steps + steps]
        assert sorted(np.concatenate(parts).tolist()) == list(range(len(lengths)))
        for part in parts:
            assert len(part)
            assert abs(of[part].sum() - of.sum() / steps) <= of.max()


def test_sets_of_as_many_tokens_take_as_many_steps() -> None:
    short, long = (np.full(800 // length, length) for length in (10, 40))
    assert len(batches_of(short, RECIPE, 0)) == len(batches_of(long, RECIPE, 0)) == 4 * 12


@pytest.mark.parametrize("rank", [0, 4])
def test_a_trained_model_has_a_lower_loss_and_is_the_same_for_the_same_seed(
    tiny_model: Path, tmp_path: Path, rank: int
) -> None:
    data = sequences()
    recipe = Recipe(RECIPE.epochs, RECIPE.learning_rate * (1 + 3 * bool(rank)), 64, lora_rank=rank)
    before = Engine(tiny_model).losses(data)
    losses = []
    for seed, out in ((1, "one"), (1, "again"), (2, "other")):
        steps = fine_tune(tiny_model, data, recipe, seed, "cpu", tmp_path / out)
        assert steps == 4 * round(320 / 64)
        # The trained model is a whole model, as any other is loaded.
        losses.append(Engine(tmp_path / out).losses(data))
    assert losses[0].mean() < before.mean() - 0.1
    np.testing.assert_array_equal(losses[0], losses[1])
    assert not np.array_equal(losses[0], losses[2])
    assert (tmp_path / "one/tokenizer.json").read_bytes() == (
        tiny_model / "tokenizer.json"
    ).read_bytes()


def test_frozen_embeddings_stay_as_they_are(tiny_model: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    frozen = Recipe(1, 1e-2, 64, freeze_embeddings=True)
    fine_tune(tiny_model, sequences(), frozen, 0, "cpu", tmp_path)
    before, after = (load_file(folder / "model.safetensors") for folder in (tiny_model, tmp_path))
    changed = {name for name in before if not before[name].equal(after[name])}
    assert changed
    assert not [name for name in changed if "embed" in name or "lm_head" in name]
    assert len(changed) > len(before) / 2


def test_only_the_answer_is_learned(tiny_model: Path, tmp_path: Path) -> None:
    # With labels on the prompt too, the losses would be others.
    whole = [TokenSequence.scored_from(sequence.ids, 1) for sequence in sequences()]
    trained = []
    for name, data in (("answer", sequences()), ("whole", TokenSequences.of(whole))):
        fine_tune(tiny_model, data, RECIPE, 0, "cpu", tmp_path / name)
        trained.append(Engine(tmp_path / name).losses(TokenSequences.of(whole)).mean())
    assert trained[1] < trained[0]


def test_what_cannot_be_trained_is_said(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = TokenSequences.of([TokenSequence.scored_from([1, 2, 3], 3)])
    with pytest.raises(SfRayError, match="no row has an answer to train on"):
        fine_tune(tiny_model, nothing, RECIPE, 0, "cpu", tmp_path)
    wild = Recipe(20, 1e30, 64)
    with pytest.raises(SfRayError, match="lower --learning-rate"):
        fine_tune(tiny_model, sequences(), wild, 0, "cpu", tmp_path)
    monkeypatch.setattr(libraries, "find_spec", lambda name: None)
    adapters = Recipe(1, 1e-3, 64, lora_rank=4)
    with pytest.raises(SfRayError, match=r"accelerate and peft, .* pip install 'sf_ray\[study\]'"):
        fine_tune(tiny_model, sequences(), adapters, 0, "cpu", tmp_path)
