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
        pytest.param(
            ["pipeline.py", "--rows=8", "--unit-rows=2"],
            [r"in 4 units", r"whole job: 0\.\d+"],
            marks=pytest.mark.ray,
        ),
    ],
    ids=["engine", "tuning", "pipeline"],
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
