"""The engine against the naive scorer: one row at a time, full logits, as the paper's code does.

python bench/engine.py [--corpus DIR] [--rows 100] [--model demo] [--device cpu] [--repeat 3]

Everything is measured in this one process, in turns; the figures that count are the ratios.
"""

import argparse

import numpy as np
import torch
from common import load_examples, median_s, overlap_of_best, relative_difference
from transformers import AutoModelForCausalLM

from sf_ray.encoding import EncodedRow, Encoder
from sf_ray.engine import Engine
from sf_ray.ifd import scores_of
from sf_ray.models import load_tokenizer, resolve_model


def naive_losses(model: torch.nn.Module, rows: list[EncodedRow]) -> np.ndarray:
    """[2 n] nats: two passes a row, loss by transformers from labels over full logits."""
    losses = []
    for kind in ("direct", "conditioned"):
        for row in rows:
            sequence = getattr(row, kind)
            ids = torch.from_numpy(sequence.ids.astype(np.int64))[None].to(model.device)
            labels = ids.clone()
            labels[0, : sequence.first] = -100
            with torch.no_grad():
                loss = model(input_ids=ids, labels=labels).loss.item()
            losses.append(loss if sequence.scored else np.nan)
    return np.array(losses)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", help="directory of Parquet shards; default: the demo's")
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--max-length", type=int, default=1024)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()

    resolved = resolve_model(options.model)
    encoder = Encoder(load_tokenizer(resolved), options.max_length)
    rows = encoder.encode(load_examples(options.corpus, options.rows))
    rows = [row for row in rows if row.direct.scored or row.conditioned.scored]
    sequences = [row.direct for row in rows] + [row.conditioned for row in rows]
    tokens = sum(len(sequence.ids) for sequence in sequences)

    naive = AutoModelForCausalLM.from_pretrained(resolved.path, dtype=torch.float32)
    naive = naive.to(options.device).eval()
    dtypes = options.dtypes.split(",")
    engines = {dtype: Engine(resolved.path, device=options.device, dtype=dtype) for dtype in dtypes}
    results: dict[str, np.ndarray] = {}

    def measured(name: str) -> object:
        losses = naive_losses(naive, rows) if name == "naive" else engines[name].losses(sequences)
        scores = scores_of([row.status for row in rows], losses[: len(rows)], losses[len(rows) :])
        results[name] = scores.ifd
        return None

    names = ["naive", *dtypes]
    times = median_s(options.repeat, {name: (lambda name=name: measured(name)) for name in names})
    print(
        f"{len(rows)} rows, {tokens} tokens, {options.model} on {options.device}, "
        f"{torch.get_num_threads()} threads, median of {options.repeat}"
    )
    print(f"{'scorer':10} {'x naive':>8} {'rows/s':>8} {'tokens/s':>9}   against naive float32:")
    print(f"{'':38} {'max':>9} {'median':>9} {'top 10 %':>9}")
    for name in names:
        largest, median = relative_difference(results[name], results["naive"])
        overlap = overlap_of_best(results[name], results["naive"], 0.1)
        print(
            f"{name:10} {times['naive'] / times[name]:8.2f} {len(rows) / times[name]:8.2f} "
            f"{tokens / times[name]:9.0f} {largest:9.1e} {median:9.1e} {overlap:9.2f}"
        )


if __name__ == "__main__":
    main()
