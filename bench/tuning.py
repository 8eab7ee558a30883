"""Reasons for the engine's defaults on CPU: token budgets, batch threads, processes.

python bench/tuning.py [--corpus DIR] [--rows 60] [--model demo] [--dtype float32] [--repeat 3]

The default is one process in which each core computes batches of its own, at the default token
budget. All settings take turns; the figures are medians of --repeat, as ratios to the default.
"""

import argparse
import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from statistics import median
from time import perf_counter

import numpy as np
from common import encode, load_examples

from sf_ray.encoding.encoded_table import sequences_of
from sf_ray.encoding.encoder import Encoder
from sf_ray.engine.batch_threads import BatchThreads
from sf_ray.engine.engine import Engine
from sf_ray.engine.memory import keep_freed_memory
from sf_ray.engine.model_files import load_tokenizer, resolve_model

BUDGETS = (128, 256, 512, 1024, 2048, 4096)


def serve(model: str, dtype: str, threads: int, requests: Connection) -> None:
    """Scores sequences on request, in a process of its own, until the request is None."""
    keep_freed_memory()
    engine = Engine(resolve_model(model).path, dtype=dtype, threads=threads)
    requests.send((engine._model.batch_threads.count, engine.token_budget))
    while (request := requests.recv()) is not None:
        batch_threads, engine.token_budget, pool = request
        # By the private attribute, because no user has a reason to choose their number.
        engine._model.batch_threads = BatchThreads(threads, batch_threads)
        engine.losses(pool)
        requests.send(None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", help="directory of Parquet shards; default: the demo's")
    parser.add_argument("--rows", type=int, default=60)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()

    encoder = Encoder(load_tokenizer(resolve_model(options.model)), 1024)
    examples = load_examples(options.corpus, options.rows)
    pool = sequences_of(encode(encoder, examples))
    by_length = np.argsort(pool.lengths, kind="stable")
    cores = os.cpu_count() or 1
    spawn = multiprocessing.get_context("spawn")
    whole, singles, processes = [], [], []
    for group, count in ((whole, 1), (singles, cores)):
        for _ in range(count):
            pipe, child_pipe = spawn.Pipe()
            arguments = (options.model, options.dtype, cores // count, child_pipe)
            process = spawn.Process(target=serve, args=arguments)
            process.start()
            processes.append(process)
            group.append(pipe)
    (batch_threads, default), *_ = [pipe.recv() for pipe in whole + singles]

    def score(group: list[Connection], budget: int, side_by_side: int) -> None:
        # Sorted by length, every n-th sequence gives each process the same work.
        for place, pipe in enumerate(group):
            part = pool.take(by_length[place :: len(group)])
            pipe.send((side_by_side, budget, part))
        for pipe in group:
            pipe.recv()

    ways: dict[str, Callable[[], None]] = {
        "default": lambda: score(whole, default, batch_threads),
        "all cores on one batch": lambda: score(whole, default, 1),
        f"{cores} processes with one core": lambda: score(singles, default, 1),
    }
    for budget in BUDGETS:
        ways[f"{budget} tokens a batch"] = lambda budget=budget: score(whole, budget, batch_threads)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for warm_up in ("default", f"{cores} processes with one core"):  # touches all weights
        ways[warm_up]()
    for _ in range(options.repeat):
        for way, run in ways.items():
            start = perf_counter()
            run()
            seconds[way].append(perf_counter() - start)
    for pipe in whole + singles:
        pipe.send(None)
    for process in processes:
        process.join()
    print(
        f"{len(examples)} rows, {options.model}, {options.dtype}, {cores} cores; "
        f"default: {default} tokens a batch"
    )
    for way, times in seconds.items():
        print(f"{way:32} {median(seconds['default']) / median(times):5.2f}x")


if __name__ == "__main__":
    main()
