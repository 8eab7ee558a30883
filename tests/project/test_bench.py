"""The benches of the engine still run, so that their figures can be measured again."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

BENCH = Path(__file__).parents[2] / "bench"


@pytest.mark.parametrize(
    ("command", "lines"),
    [
        (
            ["engine.py", "--rows=8", "--repeat=1", "--dtypes=float32", "--without=alone"],
            [r"naive +1\.00 ", r"batched +\d", r"float32 +\d", r"with float32 alone: \d+ MiB"],
        ),
        (["tuning.py", "--rows=8", "--repeat=1"], [r"default +1\.00x", r"4096 tokens a batch"]),
        (
            ["engine.py", "--as-cuda", "--rows=8", "--repeat=1", "--dtypes=float32"],
            [r"vllm", r"naive +1\.00 ", r"alone +\d", r"one-unit +\d", r"head TFLOP/s: \d"],
        ),
        pytest.param(
            ["pipeline.py", "--rows=8", "--unit-rows=2"],
            [r"in 4 units", r"whole job: 0\.\d+"],
            marks=pytest.mark.ray,
        ),
        pytest.param(
            ["feeding.py", "--rows=20", "--unit-rows=10", "--repeat=1", "--max-length=256"],
            [
                r"the engine without a model +\d",
                r"\nreading \d+ rows/s/core, actor [\d.]+ us/row\n$",
            ],
            marks=pytest.mark.ray,  # which it imports
        ),
        pytest.param(
            ["exact.py", "--rows=60", "--sample=8", "--fractions=0.05"],
            [
                r"up to 128 tokens, 2 sampled",
                r"best 5%: kept 3, 3 of them by --exact and \d by bfloat16",
            ],
            marks=pytest.mark.ray,
        ),
    ],
    ids=[
        "engine",
        "tuning",
        "engine on a card",
        "pipeline",
        "feeding",
        "exact",
    ],
)
def test_a_bench_prints_its_figures(command: list[str], lines: list[str], tiny_model: Path) -> None:
    name, *options = command
    done = subprocess.run(
        [sys.executable, BENCH / name, *options, f"--model={tiny_model}"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for line in lines:
        assert re.search(line, done.stdout), done.stdout


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
