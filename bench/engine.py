"""The engine against what the paper's code does and what one writes first, in one run.

python bench/engine.py [--corpus DIR] [--rows 100] [--first 0] [--system-prompt TOKENS]
                       [--model demo] [--device cpu] [--dtypes float32,bfloat16] [--repeat 3]

naive     one row at a time, two passes, full logits
batched   Hugging Face as it comes: file order, padded batches of 16, full logits and labels
float32   this engine, and in other types
alone     this engine in the first type, without sharing anything
eager     on CUDA: this engine in the first type, without compiling anything

FLOPs are those of plain scoring: every token of both passes once, scored positions through the LM
head, causal attention. Work that is shared counts as done, so shares can exceed 1.

of peak      FLOPs over time, against the fastest of the model's own matrix products
of products  the time that the model's matrix products need at the rate of each, over time

Rates are means of samples right before and right after. The scorers take turns; medians of
--repeat.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch
from common import load_examples, overlap_of_best, relative_difference
from transformers import AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

from sf_ray.corpus.examples import Example, Message
from sf_ray.corpus.status import Status
from sf_ray.encoding.encoded_table import encoded_table, sequences_of
from sf_ray.encoding.encoder import Encoder
from sf_ray.engine.batching import TokenBudgetBatches
from sf_ray.engine.engine import Engine
from sf_ray.engine.flops import ATTENTION, Work, cost_of
from sf_ray.engine.layers.onednn import laid_out, product, supports
from sf_ray.engine.memory import keep_freed_memory
from sf_ray.engine.model_files import Model, load_tokenizer, resolve_model
from sf_ray.engine.sequences import TokenSequence
from sf_ray.scoring.score_table import score_table

PEAK_TOKENS, PEAK_S = {"cpu": 1024, "cuda": 65536}, {"cpu": 0.1, "cuda": 0.02}
PEAK_ROUNDS = 4


def by_passes(model: torch.nn.Module, pool: list[TokenSequence], size: int) -> np.ndarray:
    """[2 rows] nats, conditioned and direct of each, by transformers: one pass after the other."""
    losses = np.empty(len(pool))
    for one in (slice(0, None, 2), slice(1, None, 2)):
        losses[one] = in_batches(model, pool[one], size)
    return losses


def in_batches(model: torch.nn.Module, pool: list[TokenSequence], size: int) -> np.ndarray:
    """[n] nats: padded batches in order, loss over full logits."""
    losses = []
    for first in range(0, len(pool), size):
        batch = pool[first : first + size]
        width = max(len(s.ids) for s in batch)
        ids = torch.zeros(len(batch), width, dtype=torch.long)
        labels = torch.full_like(ids, -100)
        for row, s in enumerate(batch):
            ids[row, : len(s.ids)] = torch.tensor(s.ids)
            labels[row, s.first : len(s.ids)] = ids[row, s.first : len(s.ids)]
        labels = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=-100).to(model.device)
        with torch.no_grad():
            logits = model(input_ids=ids.to(model.device)).logits.float()
        nll = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), reduction="none"
        )
        losses.append((nll.view_as(labels).sum(1) / (labels >= 0).sum(1)).cpu().double())
    return torch.cat(losses).numpy()


def rates_of(
    shapes: list[torch.Size], device: torch.device, dtype: str
) -> dict[torch.Size, list[float]]:
    """FLOP/s of matrix products of the model's own shapes, which take turns.

    On CPU each by PyTorch as it comes and with its weight laid out for oneDNN: the faster counts.
    """
    rates: dict[torch.Size, list[float]] = {shape: [] for shape in shapes}
    kinds = {"device": device, "dtype": getattr(torch, dtype)}
    tokens = {shape: min(PEAK_TOKENS[device.type], (1 << 32) // shape[0]) for shape in shapes}
    inputs = {shape: torch.randn(tokens[shape], shape[1], **kinds) for shape in shapes}
    products = {
        shape: products_with(torch.randn(shape, **kinds), tokens[shape]) for shape in shapes
    }
    for _ in range(PEAK_ROUNDS):
        for shape in shapes:
            flops, found = 2.0 * tokens[shape] * shape.numel(), []
            for multiply in products[shape]:
                multiply(inputs[shape])
                synchronize(device)
                start, done = perf_counter(), 0
                while perf_counter() - start < PEAK_S[device.type]:
                    multiply(inputs[shape])
                    synchronize(device)
                    done += 1
                found.append(done * flops / (perf_counter() - start))
            rates[shape].append(max(found))
    return rates


def products_with(weight: torch.Tensor, tokens: int) -> list[Callable[[torch.Tensor], object]]:
    """Ways to multiply so many tokens by a weight."""
    ways: list[Callable[[torch.Tensor], object]] = [
        partial(torch.nn.functional.linear, weight=weight)
    ]
    if weight.device.type == "cpu" and supports(weight.dtype):
        ways.append(partial(product, weight=laid_out(weight, tokens)))
    return ways


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def padding_of(lengths: np.ndarray, batches: Iterable[np.ndarray]) -> float:
    """Share of the fed tokens that are padding."""
    fed = sum(len(batch) * lengths[batch].max() for batch in batches)
    return 1 - lengths.sum() / fed


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    both = np.isfinite(a) & np.isfinite(b)
    ranks = [np.argsort(np.argsort(values[both])) for values in (a, b)]
    return float(np.corrcoef(*ranks)[0, 1])


def examples_of(options: argparse.Namespace, resolved: Model) -> list[Example]:
    examples = load_examples(options.corpus, options.first + options.rows)[options.first :]
    if options.system_prompt:
        tokenizer = load_tokenizer(resolved)
        words = "You are a careful assistant who answers in full sentences. " * 200
        system = tokenizer.decode(tokenizer.encode(words)[: options.system_prompt])
        examples = [
            Example((Message("system", system), *e.messages), separator=e.separator)
            for e in examples
        ]
    return examples


def memory_of(dtype: str) -> str:
    """Peak memory of a process that has this dtype's engine alone."""
    told = subprocess.run(
        [sys.executable, *sys.argv, "--memory-of", dtype], capture_output=True, text=True
    )
    return told.stdout.strip().splitlines()[-1] if told.returncode == 0 else "?"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", help="directory of Parquet shards; default: the demo's")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--system-prompt", type=int, default=0, metavar="TOKENS")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--max-length", type=int, default=1024)
    parser.add_argument("--token-budget", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--without", default="", help="scorers to leave out, e.g. naive,batched")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    keep_freed_memory()  # for all of them
    disable_progress_bar()

    resolved = resolve_model(options.model)
    encoder = Encoder(load_tokenizer(resolved), options.max_length)
    rows = encoder.encode(examples_of(options, resolved))
    rows = [row for row in rows if row.status is Status.OK]
    encoded = encoded_table(rows)
    pool = sequences_of(encoded)
    tokens = sum(len(s.ids) - 1 for s in pool)

    def engine(dtype: str, **others: bool) -> Engine:
        return Engine(
            resolved.path,
            device=options.device,
            dtype=dtype,
            token_budget=options.token_budget,
            **others,
        )

    if options.memory_of:
        engine(options.memory_of).losses(pool)
        if options.device == "cuda":
            print(f"{torch.cuda.max_memory_allocated() / 2**20:.0f}")
        else:
            status = Path("/proc/self/status").read_text(encoding="ascii")
            print(f"{int(status.split('VmHWM:')[1].split()[0]) / 1024:.0f}")
        return

    model = AutoModelForCausalLM.from_pretrained(resolved.path, dtype=torch.float32)
    model = model.to(options.device).eval()
    dtypes, without = options.dtypes.split(","), options.without.split(",")
    engines = {dtype: engine(dtype) for dtype in dtypes}
    if "alone" not in without:
        engines["alone"] = engine(dtypes[0], share=False)
    if options.device == "cuda" and "eager" not in without:
        engines["eager"] = engine(dtypes[0], compile=False)
    scorers: dict[str, Callable[[], np.ndarray]] = {
        "naive": lambda: by_passes(model, pool, 1),
        "batched": lambda: by_passes(model, pool, 16),
    }
    scorers |= {name: (lambda e=e: e.losses(pool)) for name, e in engines.items()}
    scorers = {name: call for name, call in scorers.items() if name not in without}
    times: dict[str, list[float]] = {name: [] for name in scorers}
    of_peak: dict[str, list[float]] = {name: [] for name in scorers}
    of_products: dict[str, list[float]] = {name: [] for name in scorers}
    ifd: dict[str, np.ndarray] = {}
    flops = cost_of(model).flops_by_shape(Work.plain(pool))
    shapes = [torch.Size(shape) for shape in flops if shape != ATTENTION]
    for name in scorers:  # first touch of the weights
        engines[name].losses(pool[:2]) if name in engines else None
    for _ in range(options.repeat):
        for name, call in scorers.items():
            dtype = engines[name].dtype if name in engines else "float32"
            rates = rates_of(shapes, model.device, dtype)
            start = perf_counter()
            losses = call()
            took = perf_counter() - start
            for shape, more in rates_of(shapes, model.device, dtype).items():
                rates[shape] += more
            rate = {shape: float(np.mean(each)) for shape, each in rates.items()}
            products_s = sum(flops[shape] / rate[shape] for shape in shapes)
            times[name].append(took)
            of_peak[name].append(sum(flops.values()) / max(rate.values()) / took)
            of_products[name].append(products_s / took)
            ifd[name] = score_table("", 0, encoded, losses)["ifd"].to_numpy()

    print(
        f"{len(rows)} rows, {tokens} tokens, {options.model} on {options.device}, "
        f"{torch.get_num_threads()} threads, medians of {options.repeat}, in turns"
    )
    lengths = np.array([len(s.ids) - 1 for s in pool])
    places = np.arange(len(rows))
    in_order = [
        2 * part + which for which in (0, 1) for part in np.split(places, range(16, len(rows), 16))
    ]
    padding = {"batched": padding_of(lengths, in_order)}
    for name in engines.keys() & {"alone"}:
        batches = TokenBudgetBatches(lengths, engines[name].token_budget)
        padding[name] = padding_of(lengths, batches)
    base, truth = next(iter(scorers)), ifd.get("naive", ifd[dtypes[0]])
    print(
        f"{'scorer':9} {'x ' + base:>8} {'rows/s':>8} {'tokens/s':>9} {'of peak':>8} "
        f"{'of products':>12} {'saved':>6} {'padding':>8}   "
        f"ifd: {'max':>8} {'median':>8} {'Spearman':>9} {'top 5':>6} {'10':>5} {'15 %':>5}"
    )
    for name in scorers:
        took = median(times[name])
        largest, middle = relative_difference(ifd[name], truth)
        best = [overlap_of_best(ifd[name], truth, share) for share in (0.05, 0.1, 0.15)]
        e = engines.get(name)
        saved = f"{1 - e.work(pool).tokens / tokens:6.0%}" if e else f"{'':6}"
        print(
            f"{name:9} {median(times[base]) / took:8.2f} {len(rows) / took:8.2f} "
            f"{tokens / took:9.0f} {median(of_peak[name]):8.2f} {median(of_products[name]):12.2f} "
            f"{saved} {padding.get(name, 0):8.0%}        "
            f"{largest:8.1e} {middle:8.1e} {spearman(ifd[name], truth):9.5f} "
            f"{best[0]:6.2f} {best[1]:5.2f} {best[2]:5.2f}",
            flush=True,
        )
    for name, e in engines.items():
        for note in e.notes:
            print(f"{name}: {note}")
    for name in engines.keys() & set(dtypes):
        print(f"peak memory of a process with {name} alone: {memory_of(name)} MiB", flush=True)


if __name__ == "__main__":
    main()
