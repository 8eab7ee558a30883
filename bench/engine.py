"""The engine against the way of the paper's code and against plain batches, in one run.

python bench/engine.py [--corpus DIR] [--rows 100] [--first 0] [--system-prompt TOKENS]
                       [--model demo] [--device cpu] [--dtypes float32,bfloat16] [--repeat 3]

naive     the paper's way: one row at a time, two passes, full logits
batched   plain Hugging Face: file order, padded batches of 16, full logits and labels
float32   this engine; so too for each other type of --dtypes
alone     this engine in the first type, without shared prefixes
eager     on CUDA: this engine in the first type, without compilation

FLOPs are those of plain scoring: every token of both passes once, scored positions through the LM
head, causal attention. The engine computes a shared prefix once, but it counts for each sequence;
so the two shares can exceed 1.

of peak      FLOP/s, as a share of the rate of the model's fastest matrix product
of products  the time that the model's matrix products take at their own rates, as a share of the
             time of the scorer

Rates are means of samples right before and right after each turn. The scorers take turns; times are
medians of --repeat.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import pyarrow as pa
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
from sf_ray.engine.layers import onednn
from sf_ray.engine.memory import keep_freed_memory
from sf_ray.engine.model_files import Model, load_tokenizer, resolve_model
from sf_ray.engine.sequences import TokenSequence
from sf_ray.scoring.score_table import score_table

PEAK_TOKENS, PEAK_S = {"cpu": 1024, "cuda": 65536}, {"cpu": 0.1, "cuda": 0.02}
PEAK_ROUNDS = 4


def by_passes(model: torch.nn.Module, pool: list[TokenSequence], size: int) -> np.ndarray:
    """Losses [2 rows] in nats by transformers: all conditioned ones first, then all direct ones."""
    losses = np.empty(len(pool))
    for one_pass in (slice(0, None, 2), slice(1, None, 2)):
        losses[one_pass] = in_batches(model, pool[one_pass], size)
    return losses


def in_batches(model: torch.nn.Module, pool: list[TokenSequence], size: int) -> np.ndarray:
    """Losses [n] in nats: padded batches in the given order, loss over full logits."""
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
    """FLOP/s of matrix products with the shapes of the model's weights; the shapes take turns.

    On CPU each product is measured with PyTorch's own layout of the weight and with oneDNN's; the
    faster one counts.
    """
    rates: dict[torch.Size, list[float]] = {shape: [] for shape in shapes}
    options = {"device": device, "dtype": getattr(torch, dtype)}
    tokens = {shape: min(PEAK_TOKENS[device.type], (1 << 32) // shape[0]) for shape in shapes}
    inputs = {shape: torch.randn(tokens[shape], shape[1], **options) for shape in shapes}
    products = {
        shape: products_with(torch.randn(shape, **options), tokens[shape]) for shape in shapes
    }
    for _ in range(PEAK_ROUNDS):
        for shape in shapes:
            flops, measured = 2.0 * tokens[shape] * shape.numel(), []
            for multiply in products[shape]:
                multiply(inputs[shape])
                synchronize(device)
                start, done = perf_counter(), 0
                while perf_counter() - start < PEAK_S[device.type]:
                    multiply(inputs[shape])
                    synchronize(device)
                    done += 1
                measured.append(done * flops / (perf_counter() - start))
            rates[shape].append(max(measured))
    return rates


def products_with(weight: torch.Tensor, tokens: int) -> list[Callable[[torch.Tensor], object]]:
    """Ways to multiply this number of tokens by a weight."""
    ways: list[Callable[[torch.Tensor], object]] = [
        partial(torch.nn.functional.linear, weight=weight)
    ]
    if weight.device.type == "cpu" and onednn.supports(weight.dtype):
        ways.append(partial(onednn.linear, weight=onednn.reorder_weight(weight, tokens)))
    return ways


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def padding_of(lengths: np.ndarray, batches: Iterable[np.ndarray]) -> float:
    """Share of padding in what the model is fed."""
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
    """Peak memory in MiB of a process with the engine of this dtype alone; "?" if it fails."""
    done = subprocess.run(
        [sys.executable, *sys.argv, "--memory-of", dtype], capture_output=True, text=True
    )
    return done.stdout.strip().splitlines()[-1] if done.returncode == 0 else "?"


@dataclass(frozen=True)
class Sequences:
    """What all scorers score.

    Attributes:
        rows: Number of rows that have a score.
        encoded: Their token ids.
        pool: Two sequences of each row: conditioned, then direct.
        tokens: In the whole pool, without the first of each sequence, which has no loss.
    """

    rows: int
    encoded: pa.Table
    pool: list[TokenSequence]
    tokens: int


@dataclass
class Figures:
    """What is measured of one scorer, in each of its turns; scores are those of the last."""

    seconds: list[float] = field(default_factory=list)
    of_peak: list[float] = field(default_factory=list)
    of_products: list[float] = field(default_factory=list)
    ifd: np.ndarray = field(default_factory=lambda: np.empty(0))


def main() -> None:
    options = options_of_command_line()
    keep_freed_memory()  # for all scorers alike
    disable_progress_bar()
    resolved = resolve_model(options.model)
    sequences = sequences_to_score(options, resolved)

    def engine(dtype: str, **others: bool) -> Engine:
        return Engine(
            resolved.path,
            device=options.device,
            dtype=dtype,
            token_budget=options.token_budget,
            **others,
        )

    if options.memory_of:
        engine(options.memory_of).losses(sequences.pool)
        print_peak_memory(options.device)
        return
    model = AutoModelForCausalLM.from_pretrained(resolved.path, dtype=torch.float32)
    model = model.to(options.device).eval()
    dtypes, without = options.dtypes.split(","), options.without.split(",")
    engines = {dtype: engine(dtype) for dtype in dtypes}
    if "alone" not in without:
        engines["alone"] = engine(dtypes[0], share=False)
    if options.device == "cuda" and "eager" not in without:
        engines["eager"] = engine(dtypes[0], compile=False)
    figures = measure(options, model, engines, sequences)
    print_table(options, engines, figures, sequences)
    for name, e in engines.items():
        for note in e.notes:
            print(f"{name}: {note}")
    for name in dtypes:
        print(f"peak memory of a process with {name} alone: {memory_of(name)} MiB", flush=True)


def options_of_command_line() -> argparse.Namespace:
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
    return parser.parse_args()


def sequences_to_score(options: argparse.Namespace, resolved: Model) -> Sequences:
    encoder = Encoder(load_tokenizer(resolved), options.max_length)
    rows = encoder.encode(examples_of(options, resolved))
    rows = [row for row in rows if row.status is Status.OK]
    encoded = encoded_table(rows)
    pool = sequences_of(encoded)
    return Sequences(len(rows), encoded, pool, sum(len(s.ids) - 1 for s in pool))


def print_peak_memory(device: str) -> None:
    """Prints the peak of this process, or of its GPU, in MiB."""
    if device == "cuda":
        print(f"{torch.cuda.max_memory_allocated() / 2**20:.0f}")
        return
    status = Path("/proc/self/status").read_text(encoding="ascii")
    print(f"{int(status.split('VmHWM:')[1].split()[0]) / 1024:.0f}")


def measure(
    options: argparse.Namespace,
    model: torch.nn.Module,
    engines: Mapping[str, Engine],
    sequences: Sequences,
) -> dict[str, Figures]:
    """The figures of each scorer by its name; they take turns."""
    pool = sequences.pool
    scorers: dict[str, Callable[[], np.ndarray]] = {
        "naive": lambda: by_passes(model, pool, 1),
        "batched": lambda: by_passes(model, pool, 16),
    }
    scorers |= {name: partial(engine.losses, pool) for name, engine in engines.items()}
    without = options.without.split(",")
    scorers = {name: call for name, call in scorers.items() if name not in without}
    flops = cost_of(model).flops_by_shape(Work.plain(pool))
    shapes = [torch.Size(shape) for shape in flops if shape != ATTENTION]
    figures = {name: Figures() for name in scorers}
    for name in scorers:
        if name in engines:  # first touch of the weights
            engines[name].losses(pool[:2])
    for _ in range(options.repeat):
        for name, call in scorers.items():
            dtype = engines[name].dtype if name in engines else "float32"
            rates = rates_of(shapes, model.device, dtype)
            start = perf_counter()
            losses = call()
            took_s = perf_counter() - start
            for shape, more in rates_of(shapes, model.device, dtype).items():
                rates[shape] += more
            rate = {shape: float(np.mean(samples)) for shape, samples in rates.items()}
            products_s = sum(flops[shape] / rate[shape] for shape in shapes)
            mine = figures[name]
            mine.seconds.append(took_s)
            mine.of_peak.append(sum(flops.values()) / max(rate.values()) / took_s)
            mine.of_products.append(products_s / took_s)
            mine.ifd = score_table("", 0, sequences.encoded, losses)["ifd"].to_numpy()
    return figures


def padding_by_scorer(engines: Mapping[str, Engine], sequences: Sequences) -> dict[str, float]:
    """Share of padding of the scorers that pad."""
    lengths = np.array([len(s.ids) - 1 for s in sequences.pool])
    places = np.arange(sequences.rows)
    in_file_order = [
        2 * part + which
        for which in (0, 1)
        for part in np.split(places, range(16, sequences.rows, 16))
    ]
    padding = {"batched": padding_of(lengths, in_file_order)}
    for name in engines.keys() & {"alone"}:
        batches = TokenBudgetBatches(lengths, engines[name].token_budget)
        padding[name] = padding_of(lengths, batches)
    return padding


def print_table(
    options: argparse.Namespace,
    engines: Mapping[str, Engine],
    figures: Mapping[str, Figures],
    sequences: Sequences,
) -> None:
    """A line for each scorer: speed against the first one, differences of IFD against `naive`."""
    rows, tokens = sequences.rows, sequences.tokens
    print(
        f"{rows} rows, {tokens} tokens, {options.model} on {options.device}, "
        f"{torch.get_num_threads()} threads, medians of {options.repeat}, in turns"
    )
    padding = padding_by_scorer(engines, sequences)
    base = next(iter(figures))
    truth = figures.get("naive", figures[next(iter(engines))]).ifd
    print(
        f"{'scorer':9} {'x ' + base:>8} {'rows/s':>8} {'tokens/s':>9} {'of peak':>8} "
        f"{'of products':>12} {'saved':>6} {'padding':>8}   "
        f"ifd: {'max':>8} {'median':>8} {'Spearman':>9} {'top 5':>6} {'10':>5} {'15 %':>5}"
    )
    for name, mine in figures.items():
        took_s = median(mine.seconds)
        largest, middle = relative_difference(mine.ifd, truth)
        best = [overlap_of_best(mine.ifd, truth, share) for share in (0.05, 0.1, 0.15)]
        e = engines.get(name)
        saved = f"{1 - e.work(sequences.pool).tokens / tokens:6.0%}" if e else f"{'':6}"
        print(
            f"{name:9} {median(figures[base].seconds) / took_s:8.2f} {rows / took_s:8.2f} "
            f"{tokens / took_s:9.0f} {median(mine.of_peak):8.2f} {median(mine.of_products):12.2f} "
            f"{saved} {padding.get(name, 0):8.0%}        "
            f"{largest:8.1e} {middle:8.1e} {spearman(mine.ifd, truth):9.5f} "
            f"{best[0]:6.2f} {best[1]:5.2f} {best[2]:5.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
