"""Damaged shards are read to their end or refused by name; no process dies of them."""

import os
import signal

import pytest

from bench.support.mutants import KINDS, run

# The other kinds of Parquet and Arrow differ from these by a codec or by the end of the file alone;
# `bench/mutants.py` has them all.
SAME_CODE = {
    "parquet-plain", "parquet-zstd", "parquet-lz4", "parquet-gzip", "parquet-brotli",
    "stream-zstd", "file",
}  # fmt: skip


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in SAME_CODE])
def test_mutants_are_read_or_refused_by_name(kind: str) -> None:
    ends = run(kind, 200, seed=0)
    assert ends.mutants == 200
    assert not ends.problems


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
