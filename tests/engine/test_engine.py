import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from bench.support.corpora import make_rows
from sf_ray import Scorer, SfRayError
from sf_ray.engine import engine as engine_module
from sf_ray.engine.engine import Engine
from sf_ray.engine.layers import lm_head as heads
from sf_ray.engine.pending import Usage
from sf_ray.engine.sequences import TokenSequence
from sf_ray.engine.tree_attention import TreeBatch
from sf_ray.errors import EngineFailedError
from tests.support.engines import load
from tests.support.naive import mean_loss, naive_aligned, naive_score

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


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def random_sequences(count: int, seed: int = 0) -> list[TokenSequence]:
    rng = np.random.default_rng(seed)
    return [
        TokenSequence.scored_from(rng.integers(0, 300, length).astype(np.int32), int(first))
        for length, first in zip(
            rng.integers(2, 120, count), rng.integers(1, 60, count), strict=True
        )
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


@pytest.mark.parametrize("budget", [pytest.param(1, marks=pytest.mark.slow), 50, 333, 100_000])
def test_the_batch_size_does_not_change_a_loss(tiny_model: Path, budget: int) -> None:
    sequences = random_sequences(60)
    model, _ = load(tiny_model)
    losses = Engine(tiny_model, token_budget=budget).losses(sequences)
    expected = [mean_loss(model, s.ids.tolist(), s.first) for s in sequences]
    assert any(value is None for value in expected)
    np.testing.assert_allclose(
        losses, [np.nan if v is None else v for v in expected], rtol=1e-4, equal_nan=True
    )


def test_scoring_again_gives_the_same_bits(tiny_model: Path) -> None:
    sequences = random_sequences(50)
    engine = Engine(tiny_model)
    first = engine.losses(sequences)
    assert first.tobytes() == engine.losses(sequences).tobytes()
    assert first.tobytes() == Engine(tiny_model).losses(sequences).tobytes()


def test_the_tiles_of_the_head_do_not_change_a_loss(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequences = random_sequences(30)
    whole = Engine(tiny_model).losses(sequences)
    monkeypatch.setitem(heads._TILE_ROWS, "cpu", 7)
    monkeypatch.setitem(heads._TILE_BYTES, "cpu", 1)
    tiled = Engine(tiny_model).losses(sequences)
    np.testing.assert_allclose(tiled, whole, rtol=1e-5, equal_nan=True)


def test_nothing_to_score_needs_no_model_call(tiny_model: Path) -> None:
    engine = Engine(tiny_model)
    assert len(engine.losses([])) == 0
    alone = TokenSequence.scored_from(np.array([5], np.int32), 1)
    assert np.isnan(engine.losses([alone, alone])).all()


def test_bfloat16_stays_near_float32(tiny_model: Path) -> None:
    sequences = random_sequences(40)
    exact = Engine(tiny_model).losses(sequences)
    rough = Engine(tiny_model, dtype="bfloat16").losses(sequences)
    assert not np.array_equal(exact, rough, equal_nan=True)
    assert np.nanmedian(np.abs(rough / exact - 1)) < 0.02


def test_what_overflows_in_low_precision_is_scored_in_float32(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequences = random_sequences(20)
    exact = Engine(tiny_model).losses(sequences)
    engine = Engine(tiny_model, dtype="bfloat16")
    nll = heads.LMHead.nll

    def overflowing(
        self: heads.LMHead, states: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        result = nll(self, states, targets)
        return result * torch.inf if torch.is_autocast_enabled("cpu") else result

    monkeypatch.setattr(heads.LMHead, "nll", overflowing)
    np.testing.assert_allclose(engine.losses(sequences), exact, rtol=1e-6, equal_nan=True)


@pytest.mark.parametrize("share", [True, False])
def test_out_of_memory_halves_the_budget_and_loses_nothing(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, share: bool
) -> None:
    sequences = random_sequences(40)
    exact = Engine(tiny_model).losses(sequences)
    engine = Engine(tiny_model, token_budget=4000, share=share)
    decoder, most = engine._decoder, 700

    def small_device(input_ids: torch.Tensor, **others: Any) -> Any:
        if input_ids.numel() > most:
            raise torch.OutOfMemoryError("too large")
        return decoder(input_ids=input_ids, **others)

    engine._decoder = small_device
    pending = engine.begin(sequences)
    np.testing.assert_allclose(pending.result(), exact, rtol=1e-4, equal_nan=True)
    assert pending.usage.oom_splits > 0
    assert engine.token_budget <= 700
    pending = engine.begin(sequences)
    pending.result()
    assert pending.usage.oom_splits == 0  # remembered

    most = 0
    with pytest.raises(SfRayError, match="too little memory for one sequence of .* tokens"):
        engine.losses(sequences)


def family(seed: int) -> list[TokenSequence]:
    """Sequences that are equal, begin alike, or begin each other."""
    rng = np.random.default_rng(seed)
    pool = [rng.integers(0, 300, rng.integers(2, 40)).astype(np.int32)]
    for _ in range(int(rng.integers(1, 40))):
        known = pool[rng.integers(len(pool))]
        kept = known[: rng.integers(0, len(known) + 1)]
        pool.append(np.append(kept, rng.integers(0, 300, rng.integers(0, 30))).astype(np.int32))
    firsts = [rng.integers(1, max(len(ids), 2)) for ids in pool]
    return [
        TokenSequence.scored_from(ids, int(first)) for ids, first in zip(pool, firsts, strict=True)
    ]


@pytest.mark.parametrize(
    ("seed", "budget"),
    # A token at a time is slow: four families of that.
    [(seed, budget) for seed in range(12) for budget in (1, 13, 1000) if budget > 1 or seed < 4],
)
def test_sharing_does_not_change_a_loss(tiny_model: Path, seed: int, budget: int) -> None:
    pool = family(seed)
    engine = Engine(tiny_model, token_budget=budget, threads=1)
    assert engine.notes == []
    expected = Engine(tiny_model, share=False).losses(pool)
    pending = engine.begin(pool)
    found = pending.result()
    np.testing.assert_allclose(found, expected, rtol=1e-4, equal_nan=True)
    assert found.tobytes() == engine.losses(pool).tobytes()
    prefixes = {s.ids[:end].tobytes() for s in pool if s.scored for end in range(1, len(s.ids))}
    asked = sum(len(s.ids) - 1 for s in pool if s.scored)
    assert pending.usage == Usage(asked, asked - len(prefixes))


@pytest.mark.parametrize("threads", [2, 5, 11])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("share", [True, False])
def test_the_number_of_threads_does_not_change_a_loss(
    tiny_model: Path, threads: int, dtype: str, share: bool
) -> None:
    pool = family(1) + family(2) + random_sequences(20)
    alone = Engine(tiny_model, token_budget=60, threads=1, dtype=dtype, share=share)
    pending_alone = alone.begin(pool)
    expected = pending_alone.result()
    counted: list[tuple[int, int]] = []
    engine = Engine(tiny_model, token_budget=60, threads=threads, dtype=dtype, share=share)
    pending = engine.begin(pool, lambda *batch: counted.append(batch))
    found, usage = pending.result(), pending.usage
    tolerance = 1e-4 if dtype == "float32" else 1e-2
    np.testing.assert_allclose(found, expected, rtol=tolerance, equal_nan=True)
    assert found.tobytes() == engine.losses(pool).tobytes()
    sequences, tokens = np.sum(counted, axis=0)
    assert sequences == sum(bool(s.scored) for s in pool)
    assert tokens == usage.tokens - usage.tokens_saved
    assert usage.tokens_saved <= pending_alone.usage.tokens_saved


@pytest.mark.parametrize(
    ("threads", "budget", "shares"),
    [(2, 60, [1] * 2), (8, 60, [1] * 8), (12, 60, [2] * 6), (11, 60, [2] * 5), (11, 10**5, [11])],
)
def test_lanes_are_alike_and_leave_few_threads_idle(
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    threads: int,
    budget: int,
    shares: list[int],
) -> None:
    engine = Engine(tiny_model, token_budget=budget, threads=threads, share=False)
    pool = random_sequences(200)
    taken: dict[threading.Thread, int] = {}
    in_main, own = threading.main_thread(), torch.set_num_threads

    def set_num_threads(count: int) -> None:
        if threading.current_thread() is not in_main:
            taken[threading.current_thread()] = count
        own(count)

    monkeypatch.setattr(torch, "set_num_threads", set_num_threads)
    engine.losses(pool)
    assert set(taken.values()) == set(shares)
    assert len(taken) <= len(shares)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_pools_that_overlap_have_the_bits_that_they_have_alone(
    tiny_model: Path, threads: int, dtype: str
) -> None:
    pools = [family(1) + family(2), random_sequences(30), random_sequences(1), [], family(4)]
    engine = Engine(tiny_model, token_budget=60, threads=threads, dtype=dtype)
    alone = [engine.losses(pool) for pool in pools]
    pending = [engine.begin(pool) for pool in pools]
    for expected, one in reversed(list(zip(alone, pending, strict=True))):
        assert one.result().tobytes() == expected.tobytes()


def test_pools_by_streams_and_by_padded_batches_overlap(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools = [family(1), family(2), family(3), family(4)]
    engine = Engine(tiny_model, token_budget=60, threads=2)
    ways = iter([True, False, True, False] * 2)
    monkeypatch.setattr(engine, "_pays", lambda *_: next(ways))
    alone = [engine.losses(pool) for pool in pools]
    pending = [engine.begin(pool) for pool in pools]
    for expected, one in zip(alone, pending, strict=True):
        assert one.result().tobytes() == expected.tobytes()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_pool_that_fails_takes_no_other_with_it(tiny_model: Path, threads: int) -> None:
    good, bad = family(1), [*family(2), TokenSequence.scored_from(np.array([1, 10**6, 2]), 1)]
    engine = Engine(tiny_model, token_budget=60, threads=threads)
    expected = engine.losses(good)
    before, failing, after = (engine.begin(pool) for pool in (good, bad, good))
    with pytest.raises(EngineFailedError, match="index out of range"):
        failing.result()
    assert before.result().tobytes() == after.result().tobytes() == expected.tobytes()


def test_equal_sequences_are_computed_once(tiny_model: Path) -> None:
    engine = Engine(tiny_model)
    same = TokenSequence.scored_from(np.arange(10, dtype=np.int32), 2)
    counted: list[tuple[int, int]] = []
    pending = engine.begin([same] * 5, lambda *batch: counted.append(batch))
    assert len(set(pending.result())) == 1
    assert counted == [(5, 9)]
    assert pending.usage == Usage(45, 36)


def test_a_model_that_cannot_share_says_why_and_is_right(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = family(3)
    expected = Engine(tiny_model, share=False).losses(pool)
    attend = TreeBatch.attend

    def unmasked(self: TreeBatch, *arguments: Any) -> Any:
        return attend(self, *arguments) * 2

    monkeypatch.setattr(TreeBatch, "attend", unmasked)
    engine = Engine(tiny_model)
    (note,) = engine.notes
    assert "are computed for each of them: its layers do not look" in note
    np.testing.assert_allclose(engine.losses(pool), expected, rtol=1e-4, equal_nan=True)


COMMON = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
SHARES = None
WINDOW = "in sequences of more than 33 tokens"


@pytest.mark.parametrize(
    ("architecture", "settings", "note"),
    [
        ("Qwen3", COMMON, SHARES),
        ("GPT2", {"vocab_size": 300, "n_embd": 32, "n_layer": 2, "n_head": 4}, SHARES),
        ("GPTNeoX", COMMON, SHARES),
        ("Mistral", COMMON | {"sliding_window": 33}, WINDOW),
        ("Gemma3Text", COMMON | {"sliding_window": 33}, WINDOW),
        ("Mamba", {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2}, "for each of"),
        ("Bloom", {"vocab_size": 300, "hidden_size": 32, "n_layer": 2, "n_head": 4}, "for each of"),
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
    pool = [s for s in [*family(3), *random_sequences(20)] if s.scored]
    assert max(len(s.ids) for s in pool) > 50
    engine = Engine(tmp_path, token_budget=50)
    assert len(engine.notes) == (note is not None), engine.notes
    assert (note or "") in "".join(engine.notes)
    expected = [mean_loss(model, s.ids.tolist(), s.first) for s in pool]
    np.testing.assert_allclose(engine.losses(pool), expected, rtol=1e-4)


def test_a_model_whose_logits_are_not_its_heads_is_refused(tiny_model: Path) -> None:
    engine = Engine(tiny_model)
    nll = engine._head.nll
    engine._head.nll = lambda *states: nll(*states) * 2  # type: ignore[method-assign]
    with pytest.raises(SfRayError, match="LlamaForCausalLM computes its logits in a way"):
        engine._check_head(tiny_model)


# Prints by how many bytes each of four processes grew, and its engine's bound. What they import is
# theirs from the start: they are forks of one that has not computed anything.
GROWTH = """
import os
import sys
import numpy as np
from pathlib import Path
from sf_ray.sequences import TokenSequence
from sf_ray.engine import Engine
from sf_ray.memory import keep_freed_memory

def told(key):
    return int(Path("/proc/self/status").read_text().split(key)[1].split()[0]) << 10

def grow(dtype, budget):
    keep_freed_memory()
    engine = Engine(Path(sys.argv[1]), dtype=dtype, token_budget=budget)
    rng = np.random.default_rng(0)
    lengths = [*rng.integers(2, 1025, 20), 1024, 1024]
    pool = [TokenSequence.scored_from(rng.integers(0, 300, n).astype(np.int32), 1) for n in lengths]
    before = told("VmRSS:")
    engine.losses(pool)
    print(dtype, budget, told("VmHWM:") - before, engine.memory_bound(1024), flush=True)

for dtype in ("float32", "bfloat16"):
    for budget in (256, 4096):
        child = os.fork()
        if not child:
            grow(dtype, budget)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_stays_below_what_the_budget_promises(tmp_path: Path) -> None:
    config = LlamaConfig(
        vocab_size=8000,
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=2,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    command = [sys.executable, "-c", GROWTH, str(tmp_path)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines = [line.split() for line in told.splitlines()]
    assert [line[:2] for line in lines] == [
        [dtype, budget] for dtype in ("float32", "bfloat16") for budget in ("256", "4096")
    ]
    for dtype, budget, grown, bound in lines:
        assert 0 < int(grown) <= int(bound), (dtype, budget)


def test_a_type_without_instructions_is_told(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "is_native", lambda dtype: False)
    assert "no instructions for bfloat16" in Engine(tiny_model, dtype="bfloat16").notes[0]
    assert Engine(tiny_model).notes == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_a_device_is_a_clear_error(tiny_model: Path) -> None:
    with pytest.raises(SfRayError, match="--device cuda: torch sees no CUDA device"):
        Engine(tiny_model, device="cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("float16", 1e-2)])
@pytest.mark.parametrize("least_saved", [-1.0, 1.0], ids=["stream", "padded batches"])
@pytest.mark.parametrize("compile", [True, False], ids=["compiled", "as it is"])
def test_cuda_gives_the_scores_of_cpu(
    tiny_model: Path,
    dtype: str,
    tolerance: float,
    least_saved: float,
    compile: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(engine_module._LEAST_SAVED, "cuda", least_saved)
    sequences = random_sequences(60) + family(0)
    exact = Engine(tiny_model).losses(sequences)
    engine = Engine(tiny_model, device="cuda", dtype=dtype, compile=compile)
    assert (engine._compiled, engine.notes) == (compile, [])
    losses = engine.losses(sequences)
    np.testing.assert_allclose(losses, exact, rtol=tolerance, equal_nan=True)
    assert losses.tobytes() == engine.losses(sequences).tobytes()
    overlapping = [engine.begin(sequences), engine.begin(sequences[:9]), engine.begin(sequences)]
    again, few, and_again = (pending.result() for pending in overlapping)
    assert losses.tobytes() == again.tobytes() == and_again.tobytes()
    assert few.tobytes() == engine.losses(sequences[:9]).tobytes()


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
