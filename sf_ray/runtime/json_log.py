"""Standard error as JSON lines, whoever writes to it.

Ray prints what workers say, its C++ parts write to the file descriptor, and libraries warn in their
own words. `begin_log` puts a small process between standard error and what it was: it turns each
line that is no JSON object into one. A process, as it still reads what a driver writes that crashes
or is killed. Knows nothing of runs.
"""

import atexit
import json
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sf_ray.runtime.log import LogSettings, json_line, new_run_id, use_log_settings

# No program ends a line so: processes may hold the pipe open after the driver lets go of it.
_END = b"\x04\n"
_END_S = 10.0
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# (ScoreUnits pid=12, ip=10.0.0.7) what it wrote
_FROM_WORKER = re.compile(
    r"\((?:(?P<worker>.+?) )?(?:pid=(?P<pid>\d+)|(?P<daemon>raylet|autoscaler[^),]*))"
    r"(?:, ip=(?P<ip>[^)]+))?\) (?P<text>.*)"
)
# [2026-11-26 04:35:14,396 E 3924 3924] core_worker.cc:2465: ...
_FROM_CPP = re.compile(r"\[\d{4}-\d\d-\d\d [\d:,.]+ (?P<letter>[DIWEFC]) \d+ \d+\] ")
# 2026-11-26 04:38:07,327<TAB>WARNING worker.py:85 -- ...
_FROM_PYTHON = re.compile(r"\d{4}-\d\d-\d\d [\d:,.]+\s+(?P<level>[A-Z]+) ")
_LEVELS = {
    "D": logging.DEBUG,
    "I": logging.INFO,
    "W": logging.WARNING,
    "E": logging.ERROR,
    "F": logging.CRITICAL,
    "C": logging.CRITICAL,
}


def as_json(line: str, run_id: str) -> str:
    """A line of standard error as a JSON object; one of `say` is one already.

    What a worker wrote gets the fields `worker`, `pid` and, from another node, `ip`.
    """
    line = _COLOURS.sub("", line)
    source: dict[str, Any] = {}
    if match := _FROM_WORKER.fullmatch(line):
        pid = match["pid"] and int(match["pid"])
        source = {"worker": match["worker"] or match["daemon"], "pid": pid, "ip": match["ip"]}
        source = {name: value for name, value in source.items() if value}
        line = match["text"]
    if found := _json_object(line):
        return json.dumps(found | source, ensure_ascii=False) if source else line
    return json_line(line, run_id, source, _level_of(line))


def _json_object(line: str) -> dict[str, Any] | None:
    if not line.startswith("{"):
        return None
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if found.keys() >= {"time", "level", "message", "run_id"} else None


def _level_of(line: str) -> int | None:
    """What a line says of its own level."""
    if match := _FROM_CPP.match(line):
        return _LEVELS[match["letter"]]
    if match := _FROM_PYTHON.match(line):
        return logging.getLevelNamesMapping().get(match["level"])
    return None


_open_log: "_JsonLog | None" = None


def begin_log(log_format: str) -> None:
    """This process speaks in this format, under a new run id, until this is called again.

    Args:
        log_format: "text", or "json": then each line on standard error is one JSON object.
    """
    global _open_log
    end_log()
    voice = use_log_settings(LogSettings(log_format, new_run_id()))
    if log_format == "json":
        # Read when Ray is imported: it would leave out lines that differ in numbers only.
        os.environ.setdefault("RAY_DEDUP_LOGS", "0")
        _open_log = _JsonLog(voice.run_id)
        # After Ray's own, which was registered later: its last words are lines too.
        atexit.register(end_log)


def end_log() -> None:
    """Standard error is again what it was, and all that was written to it has arrived there."""
    global _open_log
    if _open_log is not None:
        _open_log.close()
        atexit.unregister(end_log)
    _open_log = None


class _JsonLog:
    """Standard error (the file descriptor) goes through a process of ours."""

    def __init__(self, run_id: str) -> None:
        sys.stderr.flush()
        self._before = os.dup(2)
        package = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, run_id],
            stdin=subprocess.PIPE,
            stdout=self._before,
            env=os.environ | {"PYTHONPATH": path},
            start_new_session=True,  # what stops the driver shall not stop its last words
        )
        assert self._process.stdin is not None
        os.dup2(self._process.stdin.fileno(), 2)

    def close(self) -> None:
        sys.stderr.flush()
        assert self._process.stdin is not None
        os.dup2(self._before, 2)
        os.close(self._before)
        try:
            self._process.stdin.write(_END)
            self._process.stdin.close()
            self._process.wait(_END_S)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            print("note: the last lines of the log may be missing", file=sys.stderr)


def _lines() -> Iterator[str]:
    for raw in sys.stdin.buffer:
        # A bar that draws over itself writes several lines in one.
        yield from re.split(r"[\r\n]+", raw.removesuffix(_END).decode("utf-8", errors="replace"))
        if raw.endswith(_END):
            return


def main() -> None:
    """Standard input -> standard output, line by line, until it ends."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    run_id = sys.argv[1]
    for line in _lines():
        if line.strip():
            # At once, and whole: others may write there too.
            os.write(1, as_json(line, run_id).encode() + b"\n")


if __name__ == "__main__":
    main()
