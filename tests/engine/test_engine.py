from pathlib import Path

import numpy as np
import pytest
import torch

from bench.support.corpora import make_rows
from sf_ray import Scorer, SfRayError
from sf_ray.engine import prefix_batches
from sf_ray.engine.engine import Engine
from sf_ray.engine.layers import lm_head
from sf_ray.engine.pending import Usage
from sf_ray.engine.sequences import TokenSequence, TokenSequences
from sf_ray.errors import EngineFailedError
from tests.engine.conftest import EngineOf, limit_memory
from tests.support.engines import load
from tests.support.naive import mean_loss, naive_aligned, naive_score
from tests.support.sequences import family, random_sequences

PAIRS = [
    (f"{row['instruction']}\n", str(row["output"]))
    for row in make_rows(40, seed=3)
    if row["instruction"] and row["output"]
] + [
    ("", "no prompt at all"),
    ("what\n", "a"),  # one token
    ("ends in space ", " begins with one"),
    ("what\n", "\n\nbegins with lines"),
    ("what is </s> this <s>\n", "special </s> text"),
    ("你好\n", "世界 😀 \u0301e"),
    ("how " * 30, "word " * 400),  # cut by the window
    ("how " * 400, "word"),  # no room for the answer
    ("what\n", "   "),
]


@pytest.mark.parametrize("which", ["tiny_model", "tiny_bos_model"])
def test_scores_equal_the_definition(which: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(which)
    model, tokenizer = load(folder)
    scores = Scorer(str(folder), max_length=128).score(PAIRS)
    for pair, score in zip(PAIRS, scores, strict=True):
        naive = naive_score(model, tokenizer, *pair, max_length=128)
        assert (score.ifd is None) == (naive.ifd is None), pair
        if naive.ifd is not None:
            assert score.ifd == pytest.approx(naive.ifd, rel=1e-4), pair
            assert score.loss_direct == pytest.approx(naive.loss_direct, abs=1e-4)
    assert {s.status for s in scores} >= {"ok", "prompt_fills_window"}


@pytest.mark.parametrize("which", ["tiny_model", "tiny_bos_model"])
def test_aligned_scores_equal_their_definition(which: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(which)
    model, tokenizer = load(folder)
    pairs = [pair for pair in PAIRS if pair[0] and len(" ".join(pair)) < 500]
    scores = Scorer(str(folder), max_length=256, alignment="aligned").score(pairs)
    for pair, score in zip(pairs, scores, strict=True):
        assert score.ifd == pytest.approx(naive_aligned(model, tokenizer, *pair), rel=1e-4), pair


@pytest.mark.parametrize(
    ("budget", "count"),
    # One token at a time is slow: few sequences of that.
    [(1, 8), (50, 60), (333, 60), (100_000, 60)],
)
def test_the_batch_size_does_not_change_a_loss(
    tiny_model: Path, engine_of: EngineOf, budget: int, count: int
) -> None:
    sequences = TokenSequences.of(random_sequences(count))
    model, _ = load(tiny_model)
    losses = engine_of(token_budget=budget).losses(sequences)
    expected = [mean_loss(model, s.ids.tolist(), s.first) for s in sequences]
    assert any(value is None for value in expected)
    np.testing.assert_allclose(
        losses, [np.nan if v is None else v for v in expected], rtol=1e-4, equal_nan=True
    )


def test_scoring_again_gives_the_same_bits(tiny_model: Path, engine_of: EngineOf) -> None:
    sequences = TokenSequences.of(random_sequences(50))
    engine = engine_of()
    first = engine.losses(sequences)
    assert first.tobytes() == engine.losses(sequences).tobytes()
    assert first.tobytes() == Engine(tiny_model).losses(sequences).tobytes()


def test_nothing_to_score_needs_no_model_call(engine_of: EngineOf) -> None:
    engine = engine_of()
    assert len(engine.losses(TokenSequences.of([]))) == 0
    alone = TokenSequence.scored_from(np.array([5], np.int32), 1)
    assert np.isnan(engine.losses(TokenSequences.of([alone, alone]))).all()


def test_bfloat16_stays_near_float32(engine_of: EngineOf) -> None:
    sequences = TokenSequences.of(random_sequences(40))
    exact = engine_of().losses(sequences)
    rough = engine_of(dtype="bfloat16").losses(sequences)
    assert not np.array_equal(exact, rough, equal_nan=True)
    assert np.nanmedian(np.abs(rough / exact - 1)) < 0.02


def test_what_overflows_in_low_precision_is_scored_in_float32(
    engine_of: EngineOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequences = TokenSequences.of(random_sequences(20))
    exact = engine_of().losses(sequences)
    engine = engine_of(dtype="bfloat16")
    nll = lm_head.LMHead.nll

    def overflowing(
        self: lm_head.LMHead, states: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        result = nll(self, states, targets)
        return result * torch.inf if torch.is_autocast_enabled("cpu") else result

    monkeypatch.setattr(lm_head.LMHead, "nll", overflowing)
    np.testing.assert_allclose(engine.losses(sequences), exact, rtol=1e-6, equal_nan=True)


@pytest.mark.parametrize("share", [True, False])
def test_out_of_memory_halves_the_budget_and_loses_nothing(
    tiny_model: Path, engine_of: EngineOf, share: bool
) -> None:
    sequences = TokenSequences.of(random_sequences(40))
    exact = engine_of().losses(sequences)
    engine = Engine(tiny_model, token_budget=4000, share=share)
    limit_memory(engine, 700)
    pending = engine.begin(sequences)
    np.testing.assert_allclose(pending.result(), exact, rtol=1e-4, equal_nan=True)
    assert pending.usage.oom_splits > 0
    assert engine.token_budget <= 700
    pending = engine.begin(sequences)
    pending.result()
    assert pending.usage.oom_splits == 0  # remembered

    limit_memory(engine, 0)
    with pytest.raises(SfRayError, match="too little memory for one sequence of .* tokens"):
        engine.losses(sequences)


@pytest.mark.release
@pytest.mark.parametrize("threads", [2, 5, 11])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("share", [True, False])
def test_the_number_of_threads_does_not_change_a_loss(
    engine_of: EngineOf, threads: int, dtype: str, share: bool
) -> None:
    pool = TokenSequences.of(family(1) + family(2) + random_sequences(20))
    pending_alone = engine_of(token_budget=60, threads=1, dtype=dtype, share=share).begin(pool)
    expected = pending_alone.result()
    counted: list[tuple[int, int]] = []
    engine = engine_of(token_budget=60, threads=threads, dtype=dtype, share=share)
    pending = engine.begin(pool, lambda *batch: counted.append(batch))
    losses, usage = pending.result(), pending.usage
    tolerance = 1e-4 if dtype == "float32" else 1e-2
    np.testing.assert_allclose(losses, expected, rtol=tolerance, equal_nan=True)
    assert losses.tobytes() == engine.losses(pool).tobytes()
    sequences, tokens = np.sum(counted, axis=0)
    assert sequences == sum(bool(s.scored) for s in pool)
    assert tokens == usage.tokens - usage.tokens_saved
    assert usage.tokens_saved <= pending_alone.usage.tokens_saved


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_pools_that_overlap_have_the_bits_that_they_have_alone(
    engine_of: EngineOf, threads: int, dtype: str
) -> None:
    pools = [family(1) + family(2), random_sequences(30), random_sequences(1), [], family(4)]
    engine = engine_of(token_budget=60, threads=threads, dtype=dtype)
    alone = [engine.losses(pool) for pool in map(TokenSequences.of, pools)]
    pending = [engine.begin(pool) for pool in map(TokenSequences.of, pools)]
    for expected, overlapping in reversed(list(zip(alone, pending, strict=True))):
        assert overlapping.result().tobytes() == expected.tobytes()


def test_pools_by_prefix_trees_and_by_padded_batches_overlap(
    engine_of: EngineOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools = [family(1), family(2), family(3), family(4)]
    engine = engine_of(token_budget=60, threads=2)
    ways = iter([True, False, True, False] * 2)
    monkeypatch.setattr(prefix_batches, "_is_faster", lambda *_: next(ways))
    alone = [engine.losses(pool) for pool in map(TokenSequences.of, pools)]
    pending = [engine.begin(pool) for pool in map(TokenSequences.of, pools)]
    for expected, overlapping in zip(alone, pending, strict=True):
        assert overlapping.result().tobytes() == expected.tobytes()
    assert next(ways, None) is None


@pytest.mark.parametrize("threads", [1, 2])
def test_a_pool_that_fails_takes_no_other_with_it(engine_of: EngineOf, threads: int) -> None:
    unknown_token = TokenSequence.scored_from(np.array([1, 10**6, 2]), 1)
    good, bad = map(TokenSequences.of, (family(1), [*family(2), unknown_token]))
    engine = engine_of(token_budget=60, threads=threads)
    expected = engine.losses(good)
    before, failing, after = (engine.begin(pool) for pool in (good, bad, good))
    with pytest.raises(EngineFailedError, match="index out of range"):
        failing.result()
    assert before.result().tobytes() == after.result().tobytes() == expected.tobytes()


def test_equal_sequences_are_computed_once(engine_of: EngineOf) -> None:
    same = TokenSequence.scored_from(np.arange(10, dtype=np.int32), 2)
    counted: list[tuple[int, int]] = []
    pending = engine_of().begin(TokenSequences.of([same] * 5), lambda *batch: counted.append(batch))
    assert len(set(pending.result())) == 1
    assert counted == [(5, 9)]
    assert pending.usage == Usage(45, 36)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("float16", 1e-2)])
@pytest.mark.parametrize(
    ("packed", "share"),
    [(True, True), (True, False), (False, False)],
    ids=["packed, sharing", "packed", "padded"],
)
@pytest.mark.parametrize("compile", [True, False], ids=["compiled", "eager"])
def test_cuda_gives_the_scores_of_cpu(
    tiny_model: Path, dtype: str, tolerance: float, packed: bool, share: bool, compile: bool
) -> None:
    sequences, few_sequences = map(
        TokenSequences.of, (random_sequences(60) + family(0), random_sequences(9))
    )
    exact = Engine(tiny_model).losses(sequences)
    engine = Engine(
        tiny_model,
        device="cuda",
        dtype=dtype,
        compile=compile,
        packed=packed,
        share=share,
        token_budget=1000,
    )
    assert (engine._model.is_compiled, engine.notes) == (compile, [])
    assert engine._packed_types == ({dtype, "float32"} if packed else set())
    losses = engine.losses(sequences)
    np.testing.assert_allclose(losses, exact, rtol=tolerance, equal_nan=True)
    assert losses.tobytes() == engine.losses(sequences).tobytes()
    overlapping = [engine.begin(sequences), engine.begin(few_sequences), engine.begin(sequences)]
    again, few, and_again = (pending.result() for pending in overlapping)
    assert losses.tobytes() == again.tobytes() == and_again.tobytes()
    assert few.tobytes() == engine.losses(few_sequences).tobytes()


@pytest.mark.weights
def test_the_demo_model_gives_the_scores_of_the_definition() -> None:
    from sf_ray.engine.model_files import resolve_model

    model, tokenizer = load(resolve_model("demo").path)
    pairs = [
        ("Name the capital of France.\n", "The capital of France is Paris."),
        ("Translate to German.\nGood morning\n", "Guten Morgen"),
        ("Write a haiku about rain.\n", "Soft rain on the roof\nwhispers to the sleeping town\n"),
        ("Is this right?\n", "Yes"),
        ("多少?\n", "四十二 😀"),
    ]
    for (prompt, answer), score in zip(pairs, Scorer("demo").score(pairs), strict=True):
        naive = naive_score(model, tokenizer, prompt, answer)
        if naive.ifd is None:
            assert (score.status, score.ifd) == ("answer_too_short", None)
        else:
            assert score.ifd == pytest.approx(naive.ifd, rel=1e-4)
