"""Packed batches on CPU, where the definition of their attention stands in for a card's kernels."""

from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sf_ray.engine import loaded_model
from sf_ray.engine.engine import Engine
from sf_ray.engine.layers import lm_head, onednn
from sf_ray.engine.memory import KEYS_PER_TOKEN
from sf_ray.engine.packed_batches import packed_trees
from sf_ray.engine.pool import Pool
from sf_ray.engine.sequences import TokenSequence, TokenSequences
from sf_ray.errors import EngineFailedError
from tests.engine.conftest import EngineOf, limit_memory
from tests.support.decoders import CAUSAL_MODELS, causal_model
from tests.support.naive import mean_loss
from tests.support.sequences import family, random_sequences

ModelOf = Callable[[str], tuple[Any, Path]]


@pytest.fixture(scope="session")
def model_of(tmp_path_factory: pytest.TempPathFactory) -> ModelOf:
    """Name of an architecture -> a small random model, and its folder."""

    @cache
    def model_of(architecture: str) -> tuple[Any, Path]:
        model, folder = causal_model(architecture), tmp_path_factory.mktemp(architecture)
        model.save_pretrained(folder)
        return model, folder

    return model_of


def scored(sequences: list[TokenSequence]) -> list[TokenSequence]:
    return [s for s in sequences if s.scored]


def tokens(*lengths: int) -> list[TokenSequence]:
    """Sequences of these lengths that share nothing."""
    return [
        TokenSequence.scored_from(np.arange(i * 100, i * 100 + n, dtype=np.int32), 1)
        for i, n in enumerate(lengths)
    ]


@pytest.mark.parametrize("architecture", CAUSAL_MODELS)
def test_losses_are_those_of_each_sequence_alone(architecture: str, model_of: ModelOf) -> None:
    model, folder = model_of(architecture)
    pool = scored(family(3) + random_sequences(4))
    expected = np.array([mean_loss(model, s.ids.tolist(), s.first) for s in pool])
    for share, budgets in ((True, (50, 150, 10_000)), (False, (100,))):
        engine = Engine(folder, packed=True, share=share)
        assert (engine.notes, engine._packed_types) == ([], {"float32"})
        for seed, budget in enumerate(budgets):
            order = np.random.default_rng(seed).permutation(len(pool))
            shuffled = TokenSequences.of([pool[i] for i in order])
            engine.token_budget = budget
            pending = engine.begin(shuffled)
            losses = pending.result()
            np.testing.assert_allclose(losses, expected[order], rtol=1e-5)
            assert losses.tobytes() == engine.losses(shuffled).tobytes()
            assert (pending.usage.tokens_saved > 0) == share


@pytest.mark.parametrize(
    ("architecture", "dtype"),
    [("Llama", "float32"), ("Llama", "bfloat16"), ("Gemma3Text", "bfloat16")]
    + [
        pytest.param(name, "float32", marks=pytest.mark.release)
        for name in CAUSAL_MODELS
        if name != "Llama"
    ],
)
def test_one_graph_is_for_all_layers_of_a_kind_and_all_batches(
    architecture: str, dtype: str, model_of: ModelOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._dynamo.utils import counters

    # What CPU layers are replaced by is not made to be compiled.
    monkeypatch.setattr(onednn, "supports", lambda _: False)
    monkeypatch.setattr(loaded_model, "fuse_elementwise", lambda _: None)
    monkeypatch.setattr(lm_head.LMHead, "compile", lambda _: None)
    compiler = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda call, **others: compiler(call, backend="eager", **others)
    )
    torch._dynamo.reset()
    counters.clear()
    engine = Engine(model_of(architecture)[1], packed=True, dtype=dtype, token_budget=100)
    pools = [
        TokenSequences.of(pool)
        for pool in (family(3), random_sequences(5), tokens(2), tokens(5), family(4))
    ]
    expected = [engine.losses(pool) for pool in pools]
    engine._compile()
    assert engine._model.is_compiled
    kinds = len(set(getattr(engine._model.config, "layer_types", None) or ["full_attention"]))
    for pool, losses in zip(pools, expected, strict=True):
        tolerance = 1e-5 if dtype == "float32" else 2e-2
        np.testing.assert_allclose(engine.losses(pool), losses, rtol=tolerance, equal_nan=True)
        assert counters["stats"]["unique_graphs"] == kinds
    assert not counters["graph_break"]


LENGTHS = st.lists(st.integers(2, 30), min_size=1, max_size=20)


@given(LENGTHS, st.integers(1, 40), st.booleans())
def test_batches_end_with_sequences_and_keep_the_budget(
    lengths: list[int], budget: int, share: bool
) -> None:
    pool, _, _ = Pool.of(TokenSequences.of(tokens(*lengths)), share)
    trees = list(packed_trees(SimpleNamespace(token_budget=budget), pool))  # type: ignore[arg-type]
    packed = np.concatenate([tree.sequences for tree in trees])
    assert sorted(packed.tolist()) == list(range(len(lengths)))
    for tree in trees:
        assert len(tree) == sum(lengths[i] - 1 for i in tree.sequences)
        assert len(tree) <= budget or len(tree.sequences) == 1
    for tree, after in pairwise(trees):
        assert len(tree) + lengths[after.sequences[0]] - 1 > budget  # no batch is cut too early


def test_a_batch_keeps_room_for_the_keys_that_it_gathers() -> None:
    prefix = np.arange(200, dtype=np.int32)
    pool, _, _ = Pool.of(
        TokenSequences.of([TokenSequence.scored_from([*prefix, 300 + i, 0], 1) for i in range(90)]),
        share=True,
    )
    trees = list(packed_trees(SimpleNamespace(token_budget=300), pool))  # type: ignore[arg-type]
    assert len(trees) > 1
    assert all(tree.path_starts[-1] <= 300 * KEYS_PER_TOKEN for tree in trees)


def test_usage_counts_what_was_fed(engine_of: EngineOf) -> None:
    pool = family(1) + family(2) + random_sequences(5)
    counted: list[tuple[int, int]] = []
    engine = engine_of(packed=True, token_budget=60)
    pending = engine.begin(TokenSequences.of(pool), lambda *batch: counted.append(batch))
    pending.result()
    assert len(counted) > 2
    sequences, fed = np.sum(counted, axis=0)
    assert sequences == len(scored(pool))
    assert fed == pending.usage.tokens - pending.usage.tokens_saved
    assert pending.usage.tokens == sum(len(s.ids) - 1 for s in scored(pool))
    assert engine.work(TokenSequences.of(pool)).tokens == fed


def test_little_in_common_is_not_shared(engine_of: EngineOf) -> None:
    alike = [TokenSequence.scored_from([1, 2, 3, 4 + i], 1) for i in range(2)]
    engine = engine_of(packed=True)
    for pool, saved in ((alike, 3), (alike + tokens(100), 0)):
        pending = engine.begin(TokenSequences.of(pool))
        pending.result()
        assert pending.usage.tokens_saved == saved


def test_out_of_memory_halves_a_batch_where_a_sequence_ends(
    tiny_model: Path, engine_of: EngineOf
) -> None:
    pool = TokenSequences.of(family(1) + random_sequences(40))
    exact = engine_of().losses(pool)
    engine = Engine(tiny_model, token_budget=4000, packed=True)
    limit_memory(engine, 300)
    counted: list[tuple[int, int]] = []
    pending = engine.begin(pool, lambda *batch: counted.append(batch))
    np.testing.assert_allclose(pending.result(), exact, rtol=1e-4, equal_nan=True)
    assert pending.usage.oom_splits > 0
    assert engine.token_budget <= 300
    sequences, fed = np.sum(counted, axis=0)
    assert sequences == np.count_nonzero(pool.scored)
    assert fed == pending.usage.tokens - pending.usage.tokens_saved
    pending = engine.begin(pool)
    pending.result()
    assert pending.usage.oom_splits == 0  # remembered

    limit_memory(engine, 10)
    with pytest.raises(EngineFailedError, match="too little memory for one sequence of .* tokens"):
        engine.losses(pool)


def test_what_overflows_is_packed_again_in_float32(
    engine_of: EngineOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = TokenSequences.of(family(1) + random_sequences(9))
    exact = engine_of(packed=True).losses(pool)
    engine = engine_of(packed=True, dtype="bfloat16")
    usage = engine.begin(pool)
    usage.result()
    nll = lm_head.LMHead.nll

    def overflowing(
        self: lm_head.LMHead, states: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        result = nll(self, states, targets)
        return result * torch.inf if torch.is_autocast_enabled("cpu") else result

    monkeypatch.setattr(lm_head.LMHead, "nll", overflowing)
    pending = engine.begin(pool)
    np.testing.assert_allclose(pending.result(), exact, rtol=1e-6, equal_nan=True)
    assert pending.usage == usage.usage
