"""What the driver says while it works: lines on standard error; results go to standard output.

As text, or as one JSON object a line: `begin_log` decides for this process, and the environment of
`worker_environment` for those that work for it. Knows no Ray; what others write to standard error
is the business of `log_lines`.
"""

import logging
import os
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from time import monotonic

from pythonjsonlogger.json import JsonFormatter

_FORMAT, _RUN_ID = "SF_RAY_LOG_FORMAT", "SF_RAY_RUN_ID"
# What text says of its own level, and JSON in a field.
_PREFIXES = {"note: ": logging.WARNING, "error: ": logging.ERROR}


@dataclass(frozen=True)
class LogSettings:
    """How this process speaks.

    Attributes:
        log_format: "text" or "json".
        run_id: Of the run that it belongs to.
    """

    log_format: str
    run_id: str


_settings: LogSettings | None = None


def log_settings() -> LogSettings:
    """How this process speaks; a process of Ray as the driver that it works for."""
    return _settings or use_log_settings(
        LogSettings(os.environ.get(_FORMAT, "text"), os.environ.get(_RUN_ID) or new_run_id())
    )


def use_log_settings(new: LogSettings) -> LogSettings:
    """Speaks like this from now on."""
    global _settings
    _settings = new
    return new


def new_run_id() -> str:
    """A name for a run: when it began, and a random part; names sort by time."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"


def run_id() -> str:
    """The name of this run: the same in its log lines, metrics and manifest."""
    return log_settings().run_id


def worker_environment() -> dict[str, str]:
    """Environment variables for the processes that work for this one."""
    if log_settings().log_format == "text":
        return {}
    return {_FORMAT: log_settings().log_format, _RUN_ID: run_id()}


def say(line: str, **fields: object) -> None:
    """One line, at once.

    Args:
        line: For people; where it begins with "note: " or "error: ", that is its level.
        fields: What the line is about, for machines: shard, unit, stage, rows, seconds, ...
    """
    if log_settings().log_format == "json":
        line = json_line(line, run_id(), fields)
    print(line, file=sys.stderr, flush=True)


def json_line(line: str, run: str, fields: Mapping[str, object], level: int | None = None) -> str:
    """A line of a log as a JSON object with `time`, `level`, `message`, `run_id` and the fields."""
    for prefix, its_level in _PREFIXES.items():
        if level is None and line.startswith(prefix):
            line, level = line.removeprefix(prefix), its_level
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    record = logging.getLogger("sf_ray").makeRecord(
        "sf_ray", level or logging.INFO, "", 0, line, (), None, extra={"time": now, **fields}
    )
    return _formatter(run).format(record)


@lru_cache(maxsize=1)
def _formatter(run: str) -> JsonFormatter:
    return JsonFormatter(
        ["time", "levelname", "message"],
        rename_fields={"levelname": "level"},
        static_fields={"run_id": run},
        json_ensure_ascii=False,
    )


def duration(seconds: float) -> str:
    """Seconds as a person says them: 42 s, 5 min 12 s, 3 h 20 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


@contextmanager
def timed(stage: str, wall_s: dict[str, float]) -> Iterator[None]:
    """Says how long a stage took, and adds it to `wall_s`."""
    start = monotonic()
    yield
    wall_s[stage] = monotonic() - start
    seconds = round(wall_s[stage], 3)
    say(f"{stage}: {duration(wall_s[stage])}", stage=stage, seconds=seconds)


WallTimes = dict[str, float]
