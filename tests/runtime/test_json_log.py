import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sf_ray.runtime.json_log import as_json, begin_log
from sf_ray.runtime.log import json_line
from tests.support.waiting import HANG_S

OURS = json_line("note: hot", "r1", {"shard": "a"})
TIMES = "2026-11-26 04:38:07,327"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("what a library prints", {"message": "what a library prints", "level": "INFO"}),
        (
            "\x1b[36m(MapWorker(Score) pid=12, ip=10.0.0.7)\x1b[0m a (pid=3) b",
            {
                "message": "a (pid=3) b",
                "worker": "MapWorker(Score)",
                "pid": 12,
                "ip": "10.0.0.7",
            },
        ),
        ("(pid=12) hello", {"message": "hello", "pid": 12}),
        ("(raylet, ip=10.0.0.7) lost", {"message": "lost", "worker": "raylet", "ip": "10.0.0.7"}),
        ("(autoscaler +3s) adding", {"message": "adding", "worker": "autoscaler +3s"}),
        ("(raylet is what it is)", {"message": "(raylet is what it is)"}),
        (
            f"[{TIMES} E 3924 3924] core_worker.cc:2465: bad",
            {"level": "ERROR", "message": f"[{TIMES} E 3924 3924] core_worker.cc:2465: bad"},
        ),
        (f"{TIMES}\tWARNING worker.py:85 -- old", {"level": "WARNING"}),
        (f"{TIMES}\tLOUD worker.py:85 -- old", {"level": "INFO"}),
        ('{"message": "not of ours"}', {"message": '{"message": "not of ours"}'}),
        ("{half", {"message": "{half"}),
        ("note: as text", {"message": "as text", "level": "WARNING"}),
    ],
)
def test_a_line_of_somebody_else_becomes_an_object(line: str, expected: dict[str, str]) -> None:
    said = json.loads(as_json(line, "r1"))
    assert said.items() >= ({"run_id": "r1"} | expected).items()
    assert "time" in said


def test_our_own_lines_stay_and_workers_are_named() -> None:
    assert as_json(OURS, "another") == OURS
    said = json.loads(as_json(f"(ScoreUnits pid=12) {OURS}", "another"))
    assert said == json.loads(OURS) | {"worker": "ScoreUnits", "pid": 12}


def test_a_line_of_a_library_has_no_secret_and_no_control_of_a_terminal() -> None:
    forged = "\x9b2J\u202e https://u:canary@host/a?sig=canary"
    for line in (forged, json.dumps(json.loads(OURS) | {"x": forged}), "{" * 100_000):
        said = as_json(line, "r1")
        json.loads(said)
        assert "canary" not in said
        assert not {"\x9b", "\u202e"} & {*said}


@given(st.text(st.characters(exclude_characters="\r\n\x1b"), min_size=1))
@settings(max_examples=200)
def test_no_text_is_lost(line: str) -> None:
    said = json.loads(as_json(f"> {line}", "r1"))
    assert said["message"] == f"> {line}"


def messages_of(code: str) -> list[str]:
    """What a process says that runs this code with a log of JSON lines."""
    code = (
        "import os, subprocess, sys; from sf_ray.runtime.json_log import *; begin_log('json')\n"
        + code
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=HANG_S, check=False
    )
    return [json.loads(line)["message"] for line in done.stderr.splitlines()]


def test_whatever_writes_to_standard_error_becomes_lines() -> None:
    said = messages_of(
        "os.write(2, b'from below\\rand over itself\\n')\n"
        "from sf_ray.runtime.log import say; say('ours')\n"
        "import warnings; warnings.warn('of a library')\n"
        "print('no end of line', end='', file=sys.stderr)"
    )
    warning = "<string>:4: UserWarning: of a library"
    assert said == ["from below", "and over itself", "ours", warning, "no end of line"]


def test_a_process_that_outlives_the_log_does_not_hold_it_up() -> None:
    said = messages_of(
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(50)'])\n"
        "print('one', file=sys.stderr); end_log(); child.kill(); child.wait()\n"
        "begin_log('json'); print('two', file=sys.stderr)"
    )
    assert said == ["one", "two"]


def test_the_last_words_of_a_process_that_crashes_are_lines() -> None:
    said = messages_of("os.write(2, b'x' * 200_000 + b'\\nlast words\\n'); os.abort()")
    assert said == ["x" * 200_000, "last words"]


def test_an_error_is_an_object_too(
    sf_ray_cli: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("RAY_DEDUP_LOGS", "0")  # or it would be set from here on
    missing = tmp_path / "missing"
    code, _, err = sf_ray_cli("score", missing, tmp_path / "s", "--model=m", "--log-format=json")
    begin_log("text")
    last = json.loads(err.splitlines()[-1])
    assert code == last["exit_code"] == 1
    assert last["level"] == "ERROR"
    assert str(missing) in last["message"]


def test_the_log_runs_nothing_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json", "logging", "signal", "sf_ray"):
        (tmp_path / f"{name}.py").write_text("open('ran', 'w').close()\nraise SystemExit(9)\n")
    root = Path(__file__).parents[2]
    code = (
        f"import sys; sys.path.insert(0, {str(root)!r})\n"
        "from sf_ray.runtime.json_log import begin_log, end_log\n"
        "begin_log('json'); print('hello', file=sys.stderr); end_log()"
    )
    monkeypatch.setenv("PYTHONPATH", ":")  # an empty entry is the working directory too
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    command = [sys.executable, "-I", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert json.loads(done.stderr)["message"] == "hello"
    assert not (tmp_path / "ran").exists()
