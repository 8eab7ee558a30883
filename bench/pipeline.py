"""The whole scoring job on Ray against the bare engine on the same units, in one run.

python bench/pipeline.py [--corpus DIR] [--rows 250] [--model demo] [--unit-rows 50] [--device cpu]

The job starts Ray and its actors, reads, encodes, scores and writes pieces. The bare engine has the
same token ids in memory and scores one unit after the other. Both use all cores of this machine.
Its speed drifts, so the two take turns of one unit, and all processes of the job are stopped while
it is the engine's turn.

With --device cuda (32,768 rows in units of 2,048; a smaller corpus is repeated) the job has one
actor with one GPU. A stopped process would keep the card's memory and leave work on it, so the two
run one after the other: the engine, the job, the engine again, which shows the drift; the engine
has warmed up, and begins each unit before the one before it is done, as the actor does. Beside the
job runs `nvidia-smi dmon`, where it is installed. --apart does the same on CPU, to try the script.
"""

import argparse
import multiprocessing
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from statistics import mean
from time import perf_counter, time

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from common import encode, load_rows, record

from sf_ray.commands import pipeline
from sf_ray.config.options import ScoreOptions
from sf_ray.corpus.formats import resolve_format
from sf_ray.corpus.planning import plan_corpus
from sf_ray.corpus.units import units_of
from sf_ray.encoding.encoded_table import sequences_of
from sf_ray.encoding.encoder import Encoder
from sf_ray.engine.engine import Engine
from sf_ray.engine.model_files import (
    context_window,
    load_tokenizer,
    resolve_dtype,
    resolve_model,
)
from sf_ray.engine.pending import one_ahead
from sf_ray.engine.sequences import TokenSequences
from sf_ray.storage.location import Location

Units = dict[str, pa.Table]  # encoded rows by the name of their piece


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", help="directory of Parquet shards; default: the demo's")
    parser.add_argument("--rows", type=int, help="default: 250; on CUDA 32,768")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--unit-rows", type=int, help="default: 50; on CUDA 2,048")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--apart", action="store_true", help="one after the other, as on CUDA")
    parser.add_argument("--figures", help="file to which figures are appended")
    options = parser.parse_args()
    on_cuda = options.device == "cuda"
    options.rows = options.rows or (32768 if on_cuda else 250)
    options.unit_rows = options.unit_rows or (2048 if on_cuda else 50)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "corpus").mkdir()
        table = load_rows(options.corpus, options.rows)
        pq.write_table(table, root / "corpus/0.parquet", row_group_size=options.unit_rows)
        if on_cuda or options.apart:
            apart(root, options)
        else:
            in_turns(root, options)


def in_turns(root: Path, options: argparse.Namespace) -> None:
    """Job and engine take turns of one unit; prints the ratios of their times."""
    engine, units = bare_engine(root / "corpus", options)
    engine_s = {}
    with Job(root, options) as job:
        for piece, unit in units.items():
            start = perf_counter()
            engine.losses(sequences_of(unit))
            engine_s[piece] = perf_counter() - start
            job.run(engine_s[piece])
        job.run()
    commits = job.commits()
    # From the first commit to the last, the one actor scores all units but the first. It has begun
    # the second before the first commit, but no more than one thread could do of it while another
    # finished the first.
    first = min(commits, key=commits.__getitem__)
    busy_s = max(commits.values()) - commits[first]
    bare_s = sum(engine_s.values())
    print(f"{options.rows} rows in {len(commits)} units, {options.model}, CPU")
    print(f"minutes of the bare engine: {bare_s / 60:.1f}")
    print(f"bare engine / whole job: {bare_s / job.seconds():.3f}")
    if busy_s:  # else all units were committed together
        ratio = (bare_s - engine_s[first]) / busy_s
        print(f"bare engine / job once its actors run: {ratio:.3f}")


def apart(root: Path, options: argparse.Namespace) -> None:
    """The engine, the job, and the engine again; prints the ratios of their times."""
    engine, units = bare_engine(root / "corpus", options)
    pools = [sequences_of(unit) for unit in units.values()]
    engine_s(engine, pools[:2])  # warms up
    before_s = engine_s(engine, pools)
    watch = Watch(root / "dmon.txt")
    with Job(root, options) as job:
        job.run()
    whole_s, utilisation = job.seconds(), watch.mean_utilisation()
    after_s = engine_s(engine, pools)
    bare_s = (before_s + after_s) / 2
    commits = sorted(job.commits().values())
    # Units that are committed together are scored together, so the first ones do not count.
    busy_s, busy = commits[-1] - commits[0], sum(commit > commits[0] for commit in commits)
    figures = {
        "bare engine, rows/s": options.rows / bare_s,
        "drift of the bare engine": after_s / before_s,
        "whole job, s": whole_s,
        "bare engine / whole job": bare_s / whole_s,
    }
    if busy_s:
        share = busy / len(commits)
        figures["bare engine / job once its actors run"] = bare_s * share / busy_s
    if utilisation is not None:
        figures["utilisation of the card, %"] = utilisation
    print(f"{options.rows} rows in {len(commits)} units, {options.model}, {options.device}")
    for name, value in figures.items():
        print(f"{name}: {value:.3g}")
    record(options.figures, {f"pipeline.{name}": value for name, value in figures.items()})


def engine_s(engine: Engine, pools: Sequence[TokenSequences]) -> float:
    """Seconds in which the bare engine scores some units."""
    start = perf_counter()
    for _ in one_ahead(pools, engine.begin, lambda pending: pending.result(), lambda _: False):
        pass
    return perf_counter() - start


class Watch:
    """`nvidia-smi dmon` once a second, until the mean is asked for; nothing where it is missing."""

    def __init__(self, log: Path) -> None:
        self._log, self._process = log, None
        if shutil.which("nvidia-smi"):
            command = ["nvidia-smi", "dmon", "-s", "u", "-d", "1", "-f", str(log)]
            self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        else:
            print("nvidia-smi is not installed here: the use of the card is not watched")

    def mean_utilisation(self) -> float | None:
        """Mean share in % of the seconds in which a kernel ran, while any did."""
        if self._process is None:
            return None
        self._process.terminate()
        self._process.wait()
        # gpu sm mem enc dec ...; lines of names begin with #, an unknown value is -
        lines = [line.split() for line in self._log.read_text().splitlines()]
        busy = [
            int(line[1]) for line in lines if line[:1] != ["#"] and line[1:2] and line[1] != "-"
        ]
        busy = [percent for percent in busy if percent]
        return mean(busy) if busy else None


def bare_engine(corpus: Path, options: argparse.Namespace) -> tuple[Engine, Units]:
    """The engine, and the encoded rows of each unit."""
    resolved = resolve_model(options.model)
    encoder = Encoder(load_tokenizer(resolved), max_length_of(options.model))
    dtype = resolve_dtype("auto", options.device)
    threads = os.cpu_count() if options.device == "cpu" else None
    engine = Engine(resolved.path, device=options.device, dtype=dtype, threads=threads)
    shard = plan_corpus(Location(str(corpus))).shards[0]
    table = pq.read_table(corpus / "0.parquet")
    row_format = resolve_format(table.column_names)
    units: Units = {}
    for unit in units_of(shard.row_groups, options.unit_rows):
        rows = table.slice(unit.start, unit.stop - unit.start).to_pylist()
        examples = [row_format.render(row) for row in rows]
        units[shard.piece(unit)] = encode(encoder, examples)
    engine.losses(sequences_of(next(iter(units.values())).slice(0, 2)))  # first touch of weights
    return engine, units


def max_length_of(model: str) -> int:
    """1,024 tokens, or the model's window where that is less."""
    return min(1024, context_window(resolve_model(model)) or 1024)


class Job:
    """`sf-ray score` with a Ray of its own; all its processes are stopped outside of `run`."""

    def __init__(self, root: Path, given: argparse.Namespace) -> None:
        self._scores = root / "scores"
        options = ScoreOptions(
            input=str(root / "corpus"),
            scores=str(self._scores),
            model=given.model,
            max_length=max_length_of(given.model),
            unit_rows=given.unit_rows,
            device=given.device,
            ray_address="local",
        )
        spawn = multiprocessing.get_context("spawn")
        self._pipe, child_pipe = spawn.Pipe()
        self._process: SpawnProcess = spawn.Process(target=_score, args=(options, child_pipe))
        self._process.start()
        self._pipe.recv()  # the child's imports are done
        self._signal(signal.SIGSTOP)
        self._pipe.send("go")
        self._turns: list[tuple[float, float]] = []

    def __enter__(self) -> "Job":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.is_alive():  # an error in this process: do not leave the job stopped
            self._signal(signal.SIGCONT)
            self._process.terminate()
        self._process.join()

    def run(self, seconds: float | None = None) -> None:
        """Lets the job run for some seconds; without a number, to its end."""
        start = time()
        self._signal(signal.SIGCONT)
        if self._pipe.poll(seconds):
            self._turns.append((start, self._pipe.recv()))
        else:
            self._signal(signal.SIGSTOP)
            self._turns.append((start, time()))

    def seconds(self, until: float = float("inf")) -> float:
        """Seconds for which the job has run until a moment (`time.time()`), without its stops."""
        return sum(max(0, min(stop, until) - start) for start, stop in self._turns)

    def commits(self) -> dict[str, float]:
        """Name of a piece -> the seconds of the job's own time at which it was committed."""
        pieces = self._scores.rglob("*.parquet")
        return {path.name: self.seconds(path.stat().st_mtime) for path in pieces}

    def _signal(self, number: int) -> None:
        driver = psutil.Process(self._process.pid)
        for process in [driver, *driver.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)


def _score(options: ScoreOptions, pipe: Connection) -> None:
    pipe.send("ready")
    pipe.recv()
    pipeline.score(options)
    pipe.send(time())


if __name__ == "__main__":
    main()
