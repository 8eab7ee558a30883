"""Measurements in a process of their own: time, and memory and CPU of all its children too."""

import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

import psutil

RESULT = "result: "  # begins the line with which a measuring process reports


def measure_apart(script: str, *what: object, limit_s: float) -> dict[str, Any] | None:
    """Runs `script measure --measure *what`, which calls `report`; None if it takes too long.

    Raises:
        RuntimeError: The process failed, so there is no time to report.
    """
    command = [sys.executable, script, "measure", "--measure", *map(str, what)]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
        )
        try:
            out, _ = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
            process.wait()
            return None
        # Ray may print lines before and after the result.
        results = [line for line in out.splitlines() if line.startswith(RESULT)]
        if process.returncode or not results:
            log.seek(0)
            errors = log.read().decode(errors="replace")[-2000:]
            raise RuntimeError(f"{what[0]} failed, exit code {process.returncode}: {errors}\n{out}")
    result: dict[str, Any] = json.loads(results[-1].removeprefix(RESULT))
    return result


def report(result: dict[str, Any]) -> None:
    """Prints what this process has measured, where `measure_apart` reads it."""
    print(f"\n{RESULT}{json.dumps(result)}", flush=True)


class Watch:
    """What this process and its descendants take, less what they had taken at the start.

    Attributes:
        peak: Peak memory of all of them together, in bytes.
        largest_worker: Of one descendant, with what it had at the start.
        cpu_s: Seconds of CPU of all of them. On a busy machine they say more than wall time.
    """

    def __init__(self) -> None:
        self._processes = psutil.Process()
        self._cpu_s: dict[tuple[int, float], float] = {}
        self._before = self._now()
        self._cpu_before_s = sum(self._cpu_s.values())
        self.peak = self.largest_worker = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()
        self._now()
        self.cpu_s = sum(self._cpu_s.values()) - self._cpu_before_s

    def _watch(self) -> None:
        while not self._done.wait(0.3):
            now = self._now()
            total = sum(now.values()) - sum(self._before.values())
            self.peak = max(self.peak, total)
            workers = [size for pid, size in now.items() if pid != os.getpid()]
            self.largest_worker = max(self.largest_worker, *workers, 0)

    def _now(self) -> dict[int, int]:
        sizes = {}
        for process in [self._processes, *self._processes.children(recursive=True)]:
            try:
                with open(f"/proc/{process.pid}/smaps_rollup", encoding="ascii") as rollup:
                    line = next(line for line in rollup if line.startswith("Pss:"))
                sizes[process.pid] = int(line.split()[1]) * 1024
                times = process.cpu_times()
                # Kept for processes that end: the next look does not see them.
                self._cpu_s[process.pid, process.create_time()] = times.user + times.system
            except (OSError, StopIteration, psutil.Error):
                continue
        return sizes


def measured(call: Callable[[], object]) -> dict[str, Any]:
    with Watch() as watch:
        start = time.perf_counter()
        result = call()
        wall_s = time.perf_counter() - start
    driver = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "wall_s": wall_s,
        "cpu_s": watch.cpu_s,
        "peak": watch.peak,
        "largest_worker": watch.largest_worker,
        "driver": driver,
        "result": result,
    }
