"""Damaged shards are read to their end or refused by name; no process dies of them."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench.support.mutants import KINDS, run

# The other kinds of Parquet and Arrow differ from these by a codec or by the end of the file alone;
# `bench/mutants.py` has them all.
SAME_CODE = {
    "parquet-plain", "parquet-zstd", "parquet-lz4", "parquet-gzip", "parquet-brotli",
    "stream-zstd", "file",
}  # fmt: skip


@pytest.mark.slow
def test_mutants_are_read_or_refused_by_name() -> None:
    kinds = [kind for kind in KINDS if kind not in SAME_CODE]
    chosen = [word for kind in kinds for word in ("--kind", kind)]
    # A process of its own: a child of this one could wait for a thread that it does not have.
    done = subprocess.run(
        [sys.executable, "bench/mutants.py", "--mutants", "200", "--seed", "0", *chosen],
        cwd=Path(__file__).parents[3], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.partition(" in ")[0] for line in done.stdout.splitlines()] == [
        f"{kind}: 200 mutants" for kind in kinds
    ]


@pytest.mark.parametrize("end", ["signal", "exception", "memory"])
def test_a_mutant_that_ends_otherwise_is_counted(monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    """What the test above relies on."""

    def bad_use(_path: object) -> None:
        if end == "signal":
            os.kill(os.getpid(), signal.SIGSEGV)
        if end == "exception":
            raise KeyError("x")
        bytearray(b"x") * (100 << 20)

    monkeypatch.setattr("bench.support.mutants.use", bad_use)
    monkeypatch.setattr("bench.support.mutants.MOST_BYTES", 64 << 20)
    ends = run("jsonl", 2, seed=0)
    way = {"signal": "signal 11", "exception": "KeyError: \"'x'\"", "memory": " MiB"}[end]
    assert sum(ends.problems.values()) == 2
    assert all(found.endswith(way) for found in ends.problems)
