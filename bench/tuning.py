"""What the engine's defaults on CPU rest on, in one run: token budgets, lanes, processes.

python bench/tuning.py [--corpus DIR] [--rows 60] [--model demo] [--dtype float32] [--repeat 3]

Everything takes turns; medians of --repeat, as ratios to the default: one process in which each
core computes batches of its own, at the default token budget.
"""

import argparse
import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from statistics import median
from time import perf_counter

from common import load_examples

from sf_ray.corpus.status import Status
from sf_ray.encoding.encoder import Encoder
from sf_ray.engine.batch_threads import BatchThreads
from sf_ray.engine.engine import Engine
from sf_ray.engine.memory import keep_freed_memory
from sf_ray.engine.model_files import load_tokenizer, resolve_model

BUDGETS = (128, 256, 512, 1024, 2048, 4096)


def serve(model: str, dtype: str, threads: int, told: Connection) -> None:
    """Scores what it is told, as it is told, until it is told nothing."""
    keep_freed_memory()
    engine = Engine(resolve_model(model).path, dtype=dtype, threads=threads)
    told.send((engine._lanes.count, engine.token_budget))
    while (work := told.recv()) is not None:
        lanes, engine.token_budget, pool = work
        engine._lanes = BatchThreads(threads, lanes)  # no user has a reason to choose them
        engine.losses(pool)
        told.send(None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", help="directory of Parquet shards; default: the demo's")
    parser.add_argument("--rows", type=int, default=60)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()

    encoder = Encoder(load_tokenizer(resolve_model(options.model)), 1024)
    rows = encoder.encode(load_examples(options.corpus, options.rows))
    pool = [
        part for row in rows if row.status is Status.OK for part in (*row.direct, *row.conditioned)
    ]
    pool.sort(key=lambda s: len(s.ids))
    cores = os.cpu_count() or 1
    spawn = multiprocessing.get_context("spawn")
    whole, singles, processes = [], [], []
    for group, count in ((whole, 1), (singles, cores)):
        for _ in range(count):
            ours, theirs = spawn.Pipe()
            threads = cores // count
            arguments = (options.model, options.dtype, threads, theirs)
            process = spawn.Process(target=serve, args=arguments)
            process.start()
            processes.append(process)
            group.append(ours)
    (lanes, default), *_ = [told.recv() for told in whole + singles]

    def score(group: list[Connection], budget: int, side_by_side: int) -> None:
        for place, told in enumerate(group):  # every n-th by length: equal work
            told.send((side_by_side, budget, pool[place :: len(group)]))
        for told in group:
            told.recv()

    ways: dict[str, Callable[[], None]] = {
        "default": lambda: score(whole, default, lanes),
        "all cores on one batch": lambda: score(whole, default, 1),
        f"{cores} processes with one core": lambda: score(singles, default, 1),
    }
    for budget in BUDGETS:
        ways[f"{budget} tokens a batch"] = lambda budget=budget: score(whole, budget, lanes)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    score(whole, default, lanes), score(singles, default, 1)  # first touch of the weights
    for _ in range(options.repeat):
        for way, run in ways.items():
            start = perf_counter()
            run()
            seconds[way].append(perf_counter() - start)
    for told in whole + singles:
        told.send(None)
    for process in processes:
        process.join()
    print(
        f"{len(rows)} rows, {options.model}, {options.dtype}, {cores} cores; "
        f"default: {default} tokens a batch"
    )
    for way, each in seconds.items():
        print(f"{way:32} {median(seconds['default']) / median(each):5.2f}x")


if __name__ == "__main__":
    main()
