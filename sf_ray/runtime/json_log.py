"""Standard error as JSON lines, whatever writes to it.

Ray prints the lines of workers, its C++ parts write to the file descriptor, and libraries warn in
formats of their own. `begin_log` puts a small process between standard error and its target, which
turns every line that is not one of `say` into a JSON object. It is a process and not a thread, so
that the last lines of a driver that crashes or is killed still come through. Knows no Ray; it only
recognises the lines that Ray prints.
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
from typing import Any

from sf_ray.runtime.child_python import child_command, child_environment
from sf_ray.runtime.log import LogSettings, json_line, new_run_id, use_log_settings
from sf_ray.text.printable import printable_json
from sf_ray.text.redaction import redact

# A line that marks the end of the log. The end of the pipe does not, because other processes may
# hold the pipe open after the driver closes it. No program ends a line with this byte.
_END = b"\x04\n"
# How long to wait for the process to write the last lines.
_END_S = 10.0
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# (ScoreUnits pid=12, ip=10.0.0.7) text
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
    """Turns a line of standard error into a JSON object.

    A line of `say` is an object already and keeps its fields. A line that Ray printed for a worker
    gets the fields `worker`, `pid` and, from another node, `ip`.
    """
    line = _COLOURS.sub("", line)
    source: dict[str, Any] = {}
    if match := _FROM_WORKER.fullmatch(line):
        pid = match["pid"] and int(match["pid"])
        source = {"worker": match["worker"] or match["daemon"], "pid": pid, "ip": match["ip"]}
        source = {name: value for name, value in source.items() if value}
        line = match["text"]
    if record := _record_of_say(line):
        line = json.dumps(record | source, ensure_ascii=False) if source else line
        return printable_json(redact(line))
    return json_line(line, run_id, source, _level_of(line))


def _record_of_say(line: str) -> dict[str, Any] | None:
    """The object in a line that `say` wrote; None for other lines, also other JSON."""
    if not line.startswith("{"):
        return None
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if record.keys() >= {"time", "level", "message", "run_id"} else None


def _level_of(line: str) -> int | None:
    """The level that Ray's C++ or a Python logger wrote into a line; None where there is none."""
    if match := _FROM_CPP.match(line):
        return _LEVELS[match["letter"]]
    if match := _FROM_PYTHON.match(line):
        return logging.getLevelNamesMapping().get(match["level"])
    return None


_open_log: "_JsonLog | None" = None


def begin_log(log_format: str) -> None:
    """Starts the log of a run, with a new run id; ends the log before it.

    Args:
        log_format: "text", or "json" for one JSON object on each line of standard error.
    """
    global _open_log
    end_log()
    settings = use_log_settings(LogSettings(log_format, new_run_id()))
    if log_format == "json":
        # By default Ray leaves out lines that differ from others in numbers only. Ray reads this
        # when it is imported, which happens after this call.
        os.environ.setdefault("RAY_DEDUP_LOGS", "0")
        _open_log = _JsonLog(settings.run_id)
        # Exit handlers run in reverse order: Ray registers its handlers later, so that what they
        # print still goes through this log.
        atexit.register(end_log)


def end_log() -> None:
    """Writes out the rest of the log and restores standard error as it was before `begin_log`."""
    global _open_log
    if _open_log is not None:
        _open_log.close()
        atexit.unregister(end_log)
    _open_log = None


class _JsonLog:
    """Sends the file descriptor of standard error through a process that runs `main` below."""

    def __init__(self, run_id: str) -> None:
        sys.stderr.flush()
        self._before = os.dup(2)
        self._process = subprocess.Popen(
            child_command(__name__, run_id),
            stdin=subprocess.PIPE,
            stdout=self._before,
            env=child_environment(),
            # Outside the driver's process group, whose signals (Ctrl-C) would end it too early.
            start_new_session=True,
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
        # A progress bar writes several lines in one, each over the one before.
        yield from re.split(r"[\r\n]+", raw.removesuffix(_END).decode("utf-8", errors="replace"))
        if raw.endswith(_END):
            return


def main() -> None:
    """Turns lines of standard input into JSON on standard output, until the input ends."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    run_id = sys.argv[1]
    for line in _lines():
        if line.strip():
            # One unbuffered write for each line, because other processes may write there too.
            os.write(1, as_json(line, run_id).encode() + b"\n")


if __name__ == "__main__":
    main()
