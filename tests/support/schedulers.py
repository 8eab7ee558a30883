"""The recipes of cluster/schedulers/, and the Pythons of the schedulers that they are for."""

import ast
import json
import os
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "cluster" / "schedulers"


def python_of(scheduler: str) -> str:
    """The Python that has a scheduler, e.g. SF_RAY_TEST_AIRFLOW; skips the test without one."""
    name = f"SF_RAY_TEST_{scheduler.upper()}"
    path = os.environ.get(name)
    if not path:
        pytest.skip(f"needs a Python with {scheduler}: set {name} to its path")
    return path


def answer_of(
    scheduler: str, *arguments: object, env: Mapping[str, str], timeout_s: float
) -> dict[str, Any]:
    """What `in_SCHEDULER.py` prints on its last line, run by the Python of the scheduler."""
    script = ROOT / "tests" / "support" / f"in_{scheduler}.py"
    done = subprocess.run(
        [python_of(scheduler), str(script), *map(str, arguments)],
        env=dict(env),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    told["printed"] = done.stdout + done.stderr
    return told


def run_of(recipe: str) -> str:
    """The constant RUN of a recipe in Python: a command line, or a script with one."""
    tree = ast.parse((RECIPES / recipe).read_text(encoding="utf-8"))
    (value,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id == "RUN"
    )
    text: str = ast.literal_eval(value)
    return text


def job_of(text: str) -> list[str]:
    """The words of the one job in a command line or a script."""
    (line,) = (line for line in text.replace("\\\n", " ").splitlines() if "/jobs/" in line)
    words = shlex.split(line)
    return words[words.index("python") :]
