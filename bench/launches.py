"""How long a unit keeps the host of a card busy, and whether its scores have the same bits again.

python bench/launches.py [--corpus DIR] [--rows 2048] [--model demo] [--device cuda]
                         [--dtype float16] [--profile FILE] [--figures FILE]

The engine launches the batches of a unit one after the other and waits for none of them. So the
time until it has begun the unit is the host's, and the time until the result is there the card's,
where that is longer. On CPU there is nothing to launch, and both are the same.
"""

import argparse
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from common import encode, load_examples, record

from sf_ray.encoding.encoded_table import sequences_of
from sf_ray.encoding.encoder import Encoder
from sf_ray.engine.engine import Engine
from sf_ray.engine.model_files import load_tokenizer, resolve_model
from sf_ray.engine.sequences import TokenSequences

ROUNDS = 5
ALONE = 16  # sequences that are scored alone too


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", help="directory of Parquet shards; default: the demo's")
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--max-length", type=int, default=1024)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="float16")
    parser.add_argument("--profile", help="file for a table of the kernels' times")
    parser.add_argument("--figures", help="file to which figures are appended")
    options = parser.parse_args()
    resolved = resolve_model(options.model)
    encoder = Encoder(load_tokenizer(resolved), options.max_length)
    pool = sequences_of(encode(encoder, load_examples(options.corpus, options.rows)))
    start = perf_counter()
    engine = Engine(resolved.path, device=options.device, dtype=options.dtype)
    started_s = perf_counter() - start
    figures: dict[str, float] = {"start of the engine, s": started_s}
    figures |= launches(engine, pool)
    figures |= equal_bits(engine, pool)
    for name, value in figures.items():
        print(f"{name}: {value:.3g}")
    for note in engine.notes:
        print(f"note: {note}")
    record(options.figures, {f"launches.{name}": value for name, value in figures.items()})
    if options.profile:
        Path(options.profile).write_text(profile(engine, pool), encoding="utf-8")


def launches(engine: Engine, pool: TokenSequences) -> dict[str, float]:
    """Milliseconds of a batch, on the host and until its losses are there; medians."""
    batches = 0

    def count(sequences: int, tokens: int) -> None:
        nonlocal batches
        batches += 1

    engine.losses(pool, count)
    host_s, whole_s = [], []
    for _ in range(ROUNDS):
        start = perf_counter()
        pending = engine.begin(pool)
        host_s.append(perf_counter() - start)
        pending.result()
        whole_s.append(perf_counter() - start)
    host, whole = float(np.median(host_s)), float(np.median(whole_s))
    return {
        "batches of a unit": batches,
        "host, ms a batch": 1e3 * host / batches,
        "whole, ms a batch": 1e3 * whole / batches,
        "host / whole": host / whole,
    }


def equal_bits(engine: Engine, pool: TokenSequences) -> dict[str, float]:
    """Shares of the losses whose bits are the same again, backwards in the unit, and alone."""
    losses = engine.losses(pool)
    again = engine.losses(pool)
    places = np.arange(len(pool))[::-1]
    backwards = np.empty_like(losses)
    backwards[pool.spans_of(places)] = engine.losses(pool.take(places))
    chosen = np.flatnonzero(pool.scored)[:: max(1, len(pool) // ALONE)]
    alone = np.concatenate(
        [engine.losses(pool.take(chosen[i : i + 1])) for i in range(len(chosen))]
    )
    in_unit = losses[pool.spans_of(chosen)]
    return {
        "equal bits again": _equal(losses, again),
        "equal bits backwards": _equal(losses, backwards),
        "equal bits alone": _equal(in_unit, alone),
        "difference alone": float(np.nanmax(np.abs(alone / in_unit - 1))),
    }


def _equal(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.mean((one == other) | (np.isnan(one) & np.isnan(other))))


def profile(engine: Engine, pool: TokenSequences) -> str:
    """A table of what takes time on the device while a unit is scored."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    sort_by = "self_cpu_time_total"
    if torch.cuda.is_available():
        activities.append(torch.profiler.ProfilerActivity.CUDA)
        sort_by = "self_cuda_time_total"
    with torch.profiler.profile(activities=activities) as profiled:
        engine.losses(pool)
    return profiled.key_averages().table(sort_by=sort_by, row_limit=40, max_name_column_width=90)


if __name__ == "__main__":
    main()
