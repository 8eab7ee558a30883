"""The whole scoring job on Ray against the bare engine on the same units, in one run.

python bench/pipeline.py [--corpus DIR] [--rows 250] [--model demo] [--unit-rows 50]

The job starts Ray and its actors, reads, encodes, scores and writes pieces. The bare engine has the
same token ids in memory and scores one unit after the other. Both use all cores of this machine.
Its speed drifts, so the two take turns of one unit, and all processes of the job are stopped while
it is the engine's turn.
"""

import argparse
import multiprocessing
import os
import signal
import tempfile
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from time import perf_counter, time

import psutil
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from sf_ray.commands import pipeline
from sf_ray.commands.demo import write_corpus
from sf_ray.config.options import ScoreOptions
from sf_ray.corpus.formats import resolve_format
from sf_ray.corpus.planning import plan_corpus
from sf_ray.corpus.units import units_of
from sf_ray.encoding.encoded_table import encoded_table, sequences_of
from sf_ray.encoding.encoder import Encoder
from sf_ray.engine.engine import Engine
from sf_ray.engine.model_files import context_window, load_tokenizer, resolve_model
from sf_ray.storage.location import Location

Units = dict[str, pa.Table]  # encoded rows by the name of their piece


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", help="directory of Parquet shards; default: the demo's")
    parser.add_argument("--rows", type=int, default=250)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--unit-rows", type=int, default=50)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if options.corpus is None:
            write_corpus(root / "whole")
            options.corpus = str(root / "whole")
        table = ds.dataset(sorted(Path(options.corpus).rglob("*.parquet"))).head(options.rows)
        (root / "corpus").mkdir()
        pq.write_table(table, root / "corpus/0.parquet")

        engine, units = bare_engine(root / "corpus", options.model, options.unit_rows)
        engine_s = {}
        with Job(root, options.model, options.unit_rows) as job:
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
    print(f"{table.num_rows} rows in {len(commits)} units, {options.model}, CPU")
    print(f"minutes of the bare engine: {bare_s / 60:.1f}")
    print(f"bare engine / whole job: {bare_s / job.seconds():.3f}")
    if busy_s:  # else all units were committed together
        ratio = (bare_s - engine_s[first]) / busy_s
        print(f"bare engine / job once its actors run: {ratio:.3f}")


def bare_engine(corpus: Path, model: str, unit_rows: int) -> tuple[Engine, Units]:
    """The engine, and the encoded rows of each unit."""
    resolved = resolve_model(model)
    encoder = Encoder(load_tokenizer(resolved), max_length_of(model))
    engine = Engine(resolved.path, threads=os.cpu_count())
    shard = plan_corpus(Location(str(corpus))).shards[0]
    table = pq.read_table(corpus / "0.parquet")
    row_format = resolve_format(table.column_names)
    units: Units = {}
    for unit in units_of(shard.row_groups, unit_rows):
        rows = table.slice(unit.start, unit.stop - unit.start).to_pylist()
        examples = [row_format.render(row) for row in rows]
        units[shard.piece(unit)] = encoded_table(encoder.encode(examples))
    engine.losses(sequences_of(next(iter(units.values())))[:4])  # first touch of the weights
    return engine, units


def max_length_of(model: str) -> int:
    """1,024 tokens, or the model's window where that is less."""
    return min(1024, context_window(resolve_model(model)) or 1024)


class Job:
    """`sf-ray score` with a Ray of its own; all its processes are stopped outside of `run`."""

    def __init__(self, root: Path, model: str, unit_rows: int) -> None:
        self._scores = root / "scores"
        options = ScoreOptions(
            input=str(root / "corpus"),
            scores=str(self._scores),
            model=model,
            max_length=max_length_of(model),
            unit_rows=unit_rows,
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
