"""The benches of the engine still run, so that their figures can be measured again."""

import json
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from sf_ray.commands import pipeline
from sf_ray.commands.setup import Specs
from tests.support.hash_scorer import HashEngineSpec

pytestmark = [pytest.mark.slow, pytest.mark.release]

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def bench_here(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Runs a bench in this process, which has imported torch already; returns what it prints."""
    monkeypatch.syspath_prepend(str(BENCH))
    # It would hold for all tests to come.
    monkeypatch.setattr("sf_ray.engine.memory.keep_freed_memory", lambda: None)

    def run(name: str, *options: str) -> str:
        command = [str(BENCH / name), *options, f"--model={tiny_model}"]
        monkeypatch.setattr(sys, "argv", command)
        threads = torch.get_num_threads()
        try:
            runpy.run_path(command[0], run_name="__main__")
        finally:
            torch.set_num_threads(threads)
        return capfd.readouterr().out

    return run


def has_lines(printed: str, lines: list[str]) -> None:
    for line in lines:
        assert re.search(line, printed), printed


@pytest.mark.parametrize(
    ("command", "lines"),
    [
        (
            ["engine.py", "--rows=8", "--repeat=1", "--dtypes=float32", "--without=alone"],
            [r"naive +1\.00 ", r"batched +\d", r"float32 +\d", r"with float32 alone: \d+ MiB"],
        ),
        (
            ["engine.py", "--as-cuda", "--rows=8", "--repeat=1", "--dtypes=float32"],
            [r"vllm", r"naive +1\.00 ", r"alone +\d", r"one-unit +\d", r"head TFLOP/s: \d"],
        ),
        (
            ["token_losses.py", "--rows=8", "--repeat=1"],
            [r"ratio +\d\.\d", r"beside +0\.", r"sidecar_bytes_a_row +\d"],
        ),
        pytest.param(
            ["feeding.py", "--rows=20", "--unit-rows=10", "--repeat=1", "--max-length=256"],
            [
                r"the engine without a model +\d",
                r"\nreading \d+ rows/s/core, actor [\d.]+ us/row\n$",
            ],
            marks=pytest.mark.ray,  # which it imports
        ),
    ],
    ids=["engine", "engine on a card", "token losses", "feeding"],
)
def test_a_bench_prints_its_figures(
    command: list[str], lines: list[str], bench_here: Callable[..., str]
) -> None:
    has_lines(bench_here(*command), lines)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_the_bench_of_exact_prints_its_figures(
    bench_here: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Losses are hashes, so that no actor loads torch.
    run = partial(pipeline.run, specs=Specs(engine=HashEngineSpec))
    monkeypatch.setattr(pipeline, "run", run)
    printed = bench_here("exact.py", "--rows=60", "--sample=8", "--fractions=0.05")
    same = r"best 5%: kept 3, 3 of them by --exact and \d by bfloat16"
    has_lines(printed, [r"up to \d+ tokens, 2 sampled", same])


def test_the_bench_of_lengths_prints_its_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    answers = ["so " * (row + 1) for row in range(40)]
    pq.write_table(pa.table({"output": answers}), tmp_path / "a.parquet")
    # The longer, the higher; and one row without a score.
    losses = [{"loss_direct": 1.0, "loss_conditioned": 0.4 + row / 100} for row in range(39)]
    rows = [*losses, {"loss_direct": None, "loss_conditioned": 1.0}]
    reference = tmp_path / "reference.jsonl"
    reference.write_text("\n".join(map(json.dumps, rows)))
    command = [str(BENCH / "length.py"), str(tmp_path), str(reference)]
    monkeypatch.setattr(sys, "argv", command)
    runpy.run_path(command[0], run_name="__main__")
    lines = [r"^39 rows .*characters: 1\.00\n", "10% by ifd: 100% are among the longest 10%"]
    has_lines(capfd.readouterr().out, lines)


@pytest.mark.parametrize(
    ("command", "lines"),
    [
        (["tuning.py", "--rows=8", "--repeat=1"], [r"default +1\.00x", r"4096 tokens a batch"]),
        pytest.param(
            ["pipeline.py", "--rows=8", "--unit-rows=4"],
            [r"in 2 units", r"whole job: 0\.\d+"],
            marks=pytest.mark.ray,
        ),
    ],
    ids=["tuning", "pipeline"],
)
def test_a_bench_of_several_processes_prints_its_figures(
    command: list[str], lines: list[str], tiny_model: Path
) -> None:
    name, *options = command
    done = subprocess.run(
        [sys.executable, BENCH / name, *options, f"--model={tiny_model}"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    has_lines(done.stdout, lines)


def test_a_card_is_measured_step_by_step_with_predictions_beside(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, BENCH / "card.py", "--tiny", "--out", tmp_path, "--only=launches"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "launches: exit status 0" in done.stdout
    assert re.search(r"launches\.equal bits again +1  1, wanted", done.stdout), done.stdout
    assert re.search(r"alpaca\.float16\.rows_per_s +-  3,680, estimated", done.stdout)
    assert (tmp_path / "figures.txt").read_text() in done.stdout
    assert "ms a batch" in (tmp_path / "launches.txt").read_text()
    assert (tmp_path / "profile.txt").exists()
