"""Log lines on standard error, as text or as one JSON object a line.

Results of a command go to standard output instead. `json_log.begin_log` sets the format for this
process, and the variables of `worker_environment` set it for Ray's workers. Knows no Ray. Lines
that libraries write to standard error are the business of `json_log`.
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

from sf_ray.text.printable import printable_json, printable_lines
from sf_ray.text.redaction import redact

# Seconds that each stage of a command took, by the name of the stage.
WallTimes = dict[str, float]

# Environment variables of workers.
_FORMAT, _RUN_ID = "SF_RAY_LOG_FORMAT", "SF_RAY_RUN_ID"
# Prefix of a line -> the level that a JSON line has in its place.
_PREFIXES = {"note: ": logging.WARNING, "error: ": logging.ERROR}


@dataclass(frozen=True)
class LogSettings:
    """Format of this process's log lines, and the run that they belong to.

    Attributes:
        log_format: "text" or "json".
        run_id: Name of the run.
    """

    log_format: str
    run_id: str


_settings: LogSettings | None = None


def log_settings() -> LogSettings:
    """The settings of this process; in a worker of Ray those of its driver."""
    return _settings or use_log_settings(
        LogSettings(os.environ.get(_FORMAT, "text"), os.environ.get(_RUN_ID) or new_run_id())
    )


def use_log_settings(new: LogSettings) -> LogSettings:
    """Sets the settings of this process; returns them."""
    global _settings
    _settings = new
    return new


def new_run_id() -> str:
    """A new name for a run: the time (UTC), then six random hex digits; names sort by time."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"


def run_id() -> str:
    """The name of this run: the same in its log lines, metrics and manifest."""
    return log_settings().run_id


def worker_environment() -> dict[str, str]:
    """Environment variables that give Ray's workers the settings of this process.

    Empty for text, the default of a worker: with variables, Ray has to start other processes than
    the ones that it keeps ready.
    """
    if log_settings().log_format == "text":
        return {}
    return {_FORMAT: log_settings().log_format, _RUN_ID: run_id()}


def say(line: str, **fields: object) -> None:
    """Writes a log line to standard error at once, without secrets and control characters.

    Args:
        line: Text for people. A line that begins with "note: " is a warning in JSON, one that
            begins with "error: " an error.
        fields: What the line is about, for JSON only: shard, unit, stage, rows, seconds, ...
    """
    if log_settings().log_format == "json":
        line = json_line(line, run_id(), fields)
    else:
        # Indented: only the first line of what is said can look like a line of ours.
        line = printable_lines(redact(line), indent="  ")
    print(line, file=sys.stderr, flush=True)


def json_line(line: str, run: str, fields: Mapping[str, object], level: int | None = None) -> str:
    """A log line as a JSON object with `time`, `level`, `message`, `run_id` and the fields.

    Args:
        line: Text of the line.
        run: Name of the run.
        fields: Further fields of the object.
        level: A level of `logging`. Default: by the prefix of the line, which is removed.
    """
    for prefix, prefix_level in _PREFIXES.items():
        if level is None and line.startswith(prefix):
            line, level = line.removeprefix(prefix), prefix_level
    line = redact(line)
    fields = {name: redact(v) if isinstance(v, str) else v for name, v in fields.items()}
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    record = logging.getLogger("sf_ray").makeRecord(
        "sf_ray", level or logging.INFO, "", 0, line, (), None, extra={"time": now, **fields}
    )
    return printable_json(_formatter(run).format(record))


@lru_cache(maxsize=1)
def _formatter(run: str) -> JsonFormatter:
    return JsonFormatter(
        ["time", "levelname", "message"],
        rename_fields={"levelname": "level"},
        static_fields={"run_id": run},
        json_ensure_ascii=False,
    )


def duration(seconds: float) -> str:
    """Formats seconds for people: 42 s, 5 min 12 s, 3 h 20 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


@contextmanager
def timed(stage: str, wall_s: WallTimes) -> Iterator[None]:
    """Measures a stage: says how long it took and stores that in `wall_s`."""
    start = monotonic()
    yield
    wall_s[stage] = monotonic() - start
    seconds = round(wall_s[stage], 3)
    say(f"{stage}: {duration(wall_s[stage])}", stage=stage, seconds=seconds)
