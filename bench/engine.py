"""The engine against the way of the paper's code and against plain batches, in one run.

python bench/engine.py [--corpus DIR] [--rows ROWS] [--first 0] [--system-prompt TOKENS]
                       [--model demo] [--device cpu] [--dtypes float32,bfloat16] [--repeat 3]

naive     the paper's way: one row at a time, two passes, full logits
batched   plain Hugging Face: file order, padded batches of 16, full logits and labels
float32   this engine; so too for each other type of --dtypes
alone     this engine in the first type, without shared prefixes

With --device cuda (types float16,bfloat16; 8,192 rows in units of 2,048) also

vllm      vLLM's log-probabilities of prompts, where vLLM is installed
float32   this engine, as the truth for `ifd`
padded    this engine in the first type, in padded batches, without shared prefixes
eager     this engine in the first type, without compilation
one-unit  this engine in the first type, all rows in one unit

The slow ways score the first rows only, once, and the lines say how many; so a run on a card ends
in under three minutes. --as-cuda does the same on CPU, to try the script.

FLOPs are those of plain scoring: every token of both passes once, scored positions through the LM
head, causal attention. The engine computes a shared prefix once, but it counts for each sequence;
so the shares can exceed 1.

of peak      FLOP/s, as a share of the rate of the model's fastest matrix product
of square    the same, as a share of the rate of a large square product
of products  the time that the model's matrix products take at their own rates, as a share of the
             time of the scorer

Rates are means of samples right before and right after each turn. The scorers take turns; times are
medians of --repeat.
"""

import argparse
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import pyarrow.compute as pc
import torch
from ceilings import SQUARE, rates_of, synchronize
from common import encode, load_examples, overlap_of_best, record, relative_difference, spearman
from scorers import CUDA_ROWS, CUDA_UNIT_ROWS, Scorer, Sequences, engine_of, scorers_of
from transformers import AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

from sf_ray.corpus.examples import Example, Message
from sf_ray.corpus.status import Status
from sf_ray.encoding.encoded_table import sequences_of
from sf_ray.encoding.encoder import Encoder
from sf_ray.engine.flops import ATTENTION, Work, cost_of
from sf_ray.engine.memory import keep_freed_memory
from sf_ray.engine.model_files import Model, load_tokenizer, resolve_model
from sf_ray.scoring.score_table import score_table


def main() -> None:
    options = options_of_command_line()
    keep_freed_memory()  # for all scorers alike
    disable_progress_bar()
    resolved = resolve_model(options.model)
    sequences = sequences_to_score(options, resolved)
    if options.memory_of:
        engine_of(options, resolved, dtype=options.memory_of).losses(sequences.pool)
        print_peak_memory()
        return
    model = AutoModelForCausalLM.from_pretrained(resolved.path, dtype=torch.float32)
    model = model.to(options.device).eval()
    scorers = scorers_of(options, resolved, model, sequences)
    measure(model, scorers, "cuda" if options.cuda else "cpu")
    print_table(options, scorers, sequences)
    if options.cuda:
        print_card_lines(options, scorers)
    for name, scorer in scorers.items():
        for note in scorer.engine.notes if scorer.engine else ():
            print(f"{name}: {note}")
    if not options.cuda:
        for name in options.dtypes.split(","):
            print(f"peak memory of a process with {name} alone: {memory_of(name)} MiB", flush=True)


def options_of_command_line() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", help="directory of Parquet shards; default: the demo's")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--rows", type=int, help=f"default: 100; on CUDA {CUDA_ROWS}")
    parser.add_argument("--system-prompt", type=int, default=0, metavar="TOKENS")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--max-length", type=int, default=1024)
    parser.add_argument("--token-budget", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtypes", help="default: float32,bfloat16; on CUDA float16,bfloat16")
    parser.add_argument("--without", default="", help="scorers to leave out, e.g. naive,batched")
    parser.add_argument("--repeat", type=int, help="default: 3; on CUDA 2")
    parser.add_argument("--as-cuda", action="store_true", help="what runs on CUDA, on CPU")
    parser.add_argument("--figures", help="file to which figures are appended")
    parser.add_argument("--label", default="engine", help="first part of the figures' names")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.cuda = options.device == "cuda" or options.as_cuda
    options.rows = options.rows or (CUDA_ROWS if options.cuda else 100)
    default = "float16,bfloat16" if options.cuda else "float32,bfloat16"
    options.dtypes = options.dtypes or default
    options.repeat = options.repeat or (2 if options.cuda else 3)
    options.unit_rows = CUDA_UNIT_ROWS if options.cuda else options.rows
    return options


def sequences_to_score(options: argparse.Namespace, resolved: Model) -> Sequences:
    encoder = Encoder(load_tokenizer(resolved), options.max_length)
    encoded = encode(encoder, examples_of(options, resolved))
    encoded = encoded.filter(pc.equal(encoded["status"], Status.OK.value)).combine_chunks()
    return Sequences(encoded.num_rows, encoded, sequences_of(encoded))


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


def measure(model: torch.nn.Module, scorers: Mapping[str, Scorer], effort: str) -> None:
    """Fills in the figures of the scorers, which take turns; for the effort see `rates_of`."""
    cost, device = cost_of(model), model.device
    for turn in range(max(scorer.repeat for scorer in scorers.values())):
        for scorer in scorers.values():
            if turn >= scorer.repeat:
                continue
            flops = cost.flops_by_shape(Work.plain(scorer.sequences.pool))
            own = [torch.Size(shape) for shape in flops if shape != ATTENTION]
            shapes = [*own, SQUARE[device.type]]
            rates = rates_of(shapes, device, scorer.dtype, effort)
            before_bytes = reset_peak_bytes(device)
            start = perf_counter()
            losses = scorer.score()
            took_s = perf_counter() - start
            if device.type == "cuda":
                scorer.peak_bytes = torch.cuda.max_memory_allocated() - before_bytes
            for shape, more in rates_of(shapes, device, scorer.dtype, effort).items():
                rates[shape] += more
            rate = {shape: float(np.mean(samples)) for shape, samples in rates.items()}
            products_s = sum(flops[shape] / rate[shape] for shape in own)
            flops_per_s = sum(flops.values()) / took_s
            scorer.seconds.append(took_s)
            scorer.of_peak.append(flops_per_s / max(rate[shape] for shape in own))
            scorer.of_square.append(flops_per_s / rate[SQUARE[device.type]])
            scorer.of_products.append(products_s / took_s)
            table = score_table("", 0, scorer.sequences.encoded, losses)
            scorer.ifd = table["ifd"].to_numpy()


def reset_peak_bytes(device: torch.device) -> int:
    """Begins to look for the peak of a card's memory; returns the bytes that are in use."""
    if device.type != "cuda":
        return 0
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def print_table(
    options: argparse.Namespace, scorers: Mapping[str, Scorer], sequences: Sequences
) -> None:
    """A line for each scorer: speed against the first one, differences of IFD against the truth.

    The truth is `naive`; on CUDA, where that scores few rows, the engine in float32.
    """
    print(
        f"{sequences.rows} rows, {sequences.tokens} tokens, {options.model} on {options.device}, "
        f"{torch.get_num_threads()} threads, medians of {options.repeat}, in turns"
    )
    base = next(iter(scorers))
    truth = scorers.get("float32" if options.cuda else "naive", scorers[base]).ifd
    print(
        f"{'scorer':9} {'x ' + base:>9} {'rows':>6} {'rows/s':>8} {'tokens/s':>9} {'of peak':>8} "
        f"{'of square':>9} {'of products':>12} {'saved':>6}   "
        f"ifd: {'max':>8} {'median':>8} {'Spearman':>9} {'top 5':>6} {'10':>5} {'15 %':>5}"
    )
    for name, scorer in scorers.items():
        same = min(len(truth), len(scorer.ifd))
        ifd = scorer.ifd[:same], truth[:same]
        largest, middle = relative_difference(*ifd)
        best = [overlap_of_best(*ifd, share) for share in (0.05, 0.1, 0.15)]
        saved = f"{scorer.saved_share:6.0%}" if scorer.engine else f"{'':6}"
        tokens_per_s = scorer.sequences.tokens / median(scorer.seconds)
        print(
            f"{name:9} {scorer.rows_per_s / scorers[base].rows_per_s:9.2f} "
            f"{scorer.sequences.rows:6} {scorer.rows_per_s:8.2f} {tokens_per_s:9.0f} "
            f"{median(scorer.of_peak):8.2f} {median(scorer.of_square):9.2f} "
            f"{median(scorer.of_products):12.2f} {saved}        "
            f"{largest:8.1e} {middle:8.1e} {spearman(*ifd):9.5f} "
            f"{best[0]:6.2f} {best[1]:5.2f} {best[2]:5.2f}",
            flush=True,
        )
        figures = {
            "rows_per_s": scorer.rows_per_s,
            "of_square": median(scorer.of_square),
            "ifd.max": largest,
            "ifd.median": middle,
            **{f"best_{percent}": b for percent, b in zip((5, 10, 15), best, strict=True)},
        }
        record(options.figures, {f"{options.label}.{name}.{k}": v for k, v in figures.items()})


def print_card_lines(options: argparse.Namespace, scorers: Mapping[str, Scorer]) -> None:
    """What the lines of the table say together, and the LM head on its own."""
    first = options.dtypes.split(",")[0]
    whole = scorers[first]
    figures: dict[str, float] = {
        f"{first} / {other}": whole.rows_per_s / scorers[other].rows_per_s
        for other in scorers
        if other != first
    }
    if "alone" in scorers and whole.saved_share > 0.01:
        time_saved = 1 - scorers["alone"].rows_per_s / whole.rows_per_s
        figures["time saved / tokens saved"] = time_saved / whole.saved_share
    if {"alone", "padded"} <= scorers.keys():
        figures["alone / padded"] = scorers["alone"].rows_per_s / scorers["padded"].rows_per_s
        figures["fed by padded batches / tokens"] = scorers["padded"].padding
    figures["head TFLOP/s"] = head_flops_per_s(whole) / 1e12
    figures["seconds of 52,002 rows"] = 52_002 / whole.rows_per_s
    figures["peak MiB beside the weights"] = whole.peak_bytes / 2**20
    for name, value in figures.items():
        print(f"{name}: {value:.3g}")
    record(options.figures, {f"{options.label}.{name}": v for name, v in figures.items()})


def head_flops_per_s(scorer: Scorer) -> float:
    """FLOP/s of the LM head alone, on as many positions as a batch has at most."""
    model = scorer.engine._model  # by a private attribute: no user needs the head alone
    vocabulary, width = model.head._weight.shape
    positions = min(model.token_budget, 65536)
    states = torch.randn(positions, width, device=model.device)
    targets = torch.randint(vocabulary, (positions,), device=model.device)
    seconds = []
    for _ in range(4):
        with model.autocast(scorer.dtype):
            synchronize(model.device)
            start = perf_counter()
            model.head.nll(states, targets)
            synchronize(model.device)
            seconds.append(perf_counter() - start)
    return 2.0 * positions * vocabulary * width / min(seconds)


def memory_of(dtype: str) -> str:
    """Peak memory in MiB of a process with the engine of this dtype alone; "?" if it fails."""
    done = subprocess.run(
        [sys.executable, *sys.argv, "--memory-of", dtype], capture_output=True, text=True
    )
    return done.stdout.strip().splitlines()[-1] if done.returncode == 0 else "?"


def print_peak_memory() -> None:
    """Prints the peak of this process in MiB."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    print(f"{int(status.split('VmHWM:')[1].split()[0]) / 1024:.0f}")


if __name__ == "__main__":
    main()
