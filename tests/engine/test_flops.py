import shutil
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, MixtralConfig

from bench.support.corpora import make_rows
from sf_ray.corpus.examples import Example
from sf_ray.encoding.encoder import Encoder
from sf_ray.engine.flops import ATTENTION, Work, cost_of, cost_of_config
from sf_ray.engine.model_files import load_tokenizer, resolve_model
from sf_ray.engine.sequences import TokenSequence, TokenSequences
from sf_ray.errors import SfRayError
from tests.engine.conftest import EngineOf


def pool_of(model: Path, prompts: int = 30) -> list[TokenSequence]:
    """Sequences of a unit in which rows share a long prompt."""
    encoder = Encoder(load_tokenizer(resolve_model(str(model))), 256)
    rows = encoder.encode(
        [
            Example.pair("that was for on are with as his " * (8 * (i % 2)), str(row["output"]))
            for i, row in enumerate(make_rows(prompts, seed=5))
        ]
    )
    return [*chain(*(r.direct for r in rows)), *chain(*(r.conditioned for r in rows))]


def counted_from_weights(model: Any, pool: list[TokenSequence]) -> dict[object, float]:
    """The same count from the loaded weights of the layers, shape by shape."""
    fed = np.array([len(s.ids) - 1 for s in pool if s.scored], dtype=float)
    flops: dict[object, float] = {}
    for weight in model.get_decoder().layers.parameters():
        if weight.ndim == 2:
            shape = tuple(weight.shape)
            flops[shape] = flops.get(shape, 0) + 2 * weight.numel() * fed.sum()
    head = model.get_output_embeddings().weight
    flops[tuple(head.shape)] = 2 * head.numel() * sum(s.scored for s in pool)
    config = model.config
    flops[ATTENTION] = 2 * config.num_hidden_layers * config.hidden_size * (fed**2).sum()
    return flops


def test_a_configuration_alone_gives_the_flops_of_the_loaded_weights(
    tiny_model: Path, tmp_path: Path
) -> None:
    shutil.copy(tiny_model / "config.json", tmp_path)  # no weights there
    pool = pool_of(tiny_model)
    work = Work.plain(TokenSequences.of(pool))
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    expected = counted_from_weights(model, pool)
    assert cost_of(model).flops_by_shape(work) == pytest.approx(expected)
    assert cost_of_config(tmp_path).flops_by_shape(work) == pytest.approx(expected)
    assert cost_of_config(tmp_path).flops(work) == pytest.approx(sum(expected.values()))


def test_a_token_meets_some_experts_of_a_mixture() -> None:
    def cost(top: int) -> float:
        config = MixtralConfig(
            hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
            num_key_value_heads=4, vocab_size=100, num_local_experts=4, num_experts_per_tok=top,
        )  # fmt: skip
        with torch.device("meta"):
            return cost_of(AutoModelForCausalLM.from_config(config)).flops(Work(tokens=1))

    assert cost(2) - cost(1) == 2 * 3 * 32 * 64  # three matrices more


def test_a_folder_without_a_language_model_says_so(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "nothing that there is"}')
    with pytest.raises(SfRayError, match=r"its config\.json does not make a causal language model"):
        cost_of_config(tmp_path)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("is_shared", [True, False])
def test_the_engine_says_beforehand_what_it_computes(
    tiny_model: Path, engine_of: EngineOf, threads: int, is_shared: bool
) -> None:
    pool = pool_of(tiny_model)
    if is_shared:
        pool += pool[:4]
    else:  # each begins with another token
        pool = [
            TokenSequence.scored_from(np.append(np.int32(i), s.ids), 1)
            for i, s in enumerate(pool)
        ]  # fmt: skip
    engine = engine_of(threads=threads, token_budget=64)
    sequences = TokenSequences.of(pool)
    work = engine.work(sequences)
    pending = engine.begin(sequences)
    pending.result()
    plain = Work.plain(sequences)
    assert plain.tokens == pending.usage.tokens
    assert work.tokens == plain.tokens - pending.usage.tokens_saved
    if is_shared:
        assert work.tokens < 0.8 * plain.tokens
        assert (work.scored, work.pairs) < (plain.scored, plain.pairs)
    else:
        assert work == plain
