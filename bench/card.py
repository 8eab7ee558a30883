"""Everything that is to be measured on a card, by one command, with what was predicted beside it.

python bench/card.py --out FOLDER --alpaca DIR --t0 DIR [--model demo] [--only ceilings,alpaca,...]
                     [--seconds 840]
python bench/card.py --out FOLDER --tiny

Runs one bench after the other, each in a process and with a time limit of its own, so that one that
hangs or fails costs only itself. FOLDER gets what each printed (STEP.txt), every figure at once
(figures.jsonl), a profile, and at the end a table of figures and predictions (figures.txt). Run it
again with --only for what is missing: the table is made of all figures in FOLDER.

The most telling steps come first. Those up to `t0` need torch, transformers and pyarrow; what needs
Ray or pytest is skipped where that is not installed. Compile caches are shared between the steps.

--tiny tries every step on CPU in under three minutes, with a tiny model and made-up rows; its
figures mean nothing.
"""

import argparse
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from card_predictions import PREDICTIONS, Prediction
from support.corpora import make_rows, write_shards

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Step:
    """One bench.

    Attributes:
        name: Of the step, and of the file with what it prints.
        command: Arguments of Python. {out}, {model}, {alpaca} and {t0} are filled in.
        limit_s: Seconds after which it is ended.
        tiny: More arguments for a try on CPU.
        needs: Packages without which it is skipped.
    """

    name: str
    command: str
    limit_s: float
    tiny: str = ""
    needs: tuple[str, ...] = ()


_FIGURES = "--model={model} --figures={out}/figures.jsonl"
_TINY = "--max-length=256 --device=cpu"
# In float32: CPUs without instructions for the small types take seconds for one product in them.
_TINY_ENGINE = f"{_TINY} --as-cuda --rows=24 --repeat=1 --dtypes=float32"
_TINY_SHARED = f"{_TINY_ENGINE} --without=naive,batched,padded,eager"
STEPS = (
    Step("ceilings", f"bench/ceilings.py {_FIGURES}", 60, "--device=cpu --dtype=float32"),
    Step(
        "launches",
        f"bench/launches.py {_FIGURES} --corpus={{alpaca}} --profile={{out}}/profile.txt",
        120,
        f"{_TINY} --rows=24 --dtype=float32",
    ),
    Step(
        "alpaca",
        f"bench/engine.py --device=cuda {_FIGURES} --corpus={{alpaca}} --label=alpaca",
        240,
        _TINY_ENGINE,
    ),
    Step(
        "t0",
        f"bench/engine.py --device=cuda {_FIGURES} --corpus={{t0}} --label=t0 "
        "--without=naive,batched,vllm,float32,bfloat16,padded,eager",
        120,
        _TINY_SHARED,
    ),
    Step(
        "system",
        f"bench/engine.py --device=cuda {_FIGURES} --corpus={{alpaca}} --label=system "
        "--system-prompt=300 --rows=4096 "
        "--without=naive,batched,vllm,float32,bfloat16,padded,eager,one-unit",
        120,
        f"{_TINY_SHARED} --system-prompt=30",
    ),
    Step(
        "tests",
        "-m pytest -m gpu -q -p no:cacheprovider tests/engine",
        240,
        needs=("pytest", "hypothesis"),
    ),
    Step(
        "pipeline",
        f"bench/pipeline.py --device=cuda {_FIGURES} --corpus={{alpaca}}",
        240,
        "--device=cpu --apart --rows=24 --unit-rows=8",
        needs=("ray", "psutil"),
    ),
    Step(
        "feeding-alpaca",
        f"bench/feeding.py {_FIGURES} --corpus={{alpaca}} --label=feeding-alpaca",
        90,
        "--rows=64 --unit-rows=32 --repeat=1 --max-length=256",
        needs=("ray",),
    ),
    Step(
        "feeding-t0",
        f"bench/feeding.py {_FIGURES} --corpus={{t0}} --label=feeding-t0",
        90,
        "--rows=64 --unit-rows=32 --repeat=1 --max-length=256",
        needs=("ray",),
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, metavar="FOLDER")
    parser.add_argument("--alpaca", metavar="DIR", help="Parquet shards of Alpaca")
    parser.add_argument("--t0", metavar="DIR", help="Parquet shards of a corpus that repeats much")
    parser.add_argument("--model", default="demo")
    names = ",".join(step.name for step in STEPS)
    parser.add_argument("--only", default=names, help=f"default: {names}")
    parser.add_argument("--seconds", type=float, default=840, help="in all")
    parser.add_argument("--tiny", action="store_true", help="a try on CPU")
    options = parser.parse_args()
    if not options.tiny and None in (options.alpaca, options.t0):
        parser.error("--alpaca and --t0 say where the corpora lie; or take --tiny")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no step outlives this process
    out = Path(options.out).absolute()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        places = places_of(options, out, Path(folder))
        end = monotonic() + options.seconds
        chosen = [step for step in STEPS if step.name in options.only.split(",")]
        failed = [step.name for step in chosen if not run(step, options.tiny, places, end)]
    text = table(out)
    (out / "figures.txt").write_text(text, encoding="utf-8")
    print(text)
    if failed:
        sys.exit(f"not done: {', '.join(failed)}")


def places_of(options: argparse.Namespace, out: Path, folder: Path) -> dict[str, str]:
    """What is filled into the commands; for a try, made here."""
    if not options.tiny:
        given = {"alpaca": options.alpaca, "t0": options.t0, "model": options.model}
        return {"out": str(out), **given}
    from support.models import make_model

    rows = [row for row in make_rows(80) if row["instruction"] and row["output"]]
    corpus = str(write_shards(folder / "corpus", rows))
    model = str(make_model(folder / "model"))
    return {"out": str(out), "alpaca": corpus, "t0": corpus, "model": model}


def run(step: Step, tiny: bool, places: dict[str, str], end: float) -> bool:
    """Runs a step, and says how it ended; what it prints goes to a file.

    Returns:
        Whether it was done, or needs what is not installed here.
    """
    missing = [package for package in step.needs if importlib.util.find_spec(package) is None]
    left_s = end - monotonic()
    if missing or left_s < 10:
        why = f"{', '.join(missing)} not installed" if missing else "no time left"
        print(f"{step.name}: skipped, {why}", flush=True)
        return bool(missing)
    command = [part.format(**places) for part in step.command.split()]
    command += step.tiny.split() if tiny else []
    # A try on CPU may share its cores with others.
    start, limit_s = monotonic(), min(step.limit_s * (3 if tiny else 1), left_s)
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    with Path(places["out"], f"{step.name}.txt").open("w", encoding="utf-8") as printed:
        process = subprocess.Popen(
            [sys.executable, *command],
            stdout=printed,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,
        )
        try:
            ended = f"exit status {process.wait(limit_s)}"
        except subprocess.TimeoutExpired:
            ended = f"stopped after {limit_s:.0f} s"
        finally:
            with suppress(ProcessLookupError):  # of those that are left: a lost Ray keeps the card
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    print(f"{step.name}: {ended}, {monotonic() - start:.0f} s", flush=True)
    return process.returncode == 0


def table(out: Path) -> str:
    """The last value of each figure in a folder, with what was predicted for its card."""
    file = out / "figures.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    figures = {line["name"]: line["value"] for line in map(json.loads, lines)}
    card = str(figures.pop("card", "no card"))
    predictions = {prediction.figure: prediction for prediction in PREDICTIONS}
    width = max(map(len, [*figures, *predictions, "figure"]))
    rows = [card, f"{'figure':{width}} {'measured':>12}  predicted"]
    for name in [*predictions, *(name for name in figures if name not in predictions)]:
        value = f"{figures[name]:12.4g}" if name in figures else f"{'-':>12}"
        predicted = _text(predictions[name], card) if name in predictions else ""
        rows.append(f"{name:{width}} {value}  {predicted}".rstrip())
    return "\n".join(rows) + "\n"


def _text(prediction: Prediction, card: str) -> str:
    """A prediction for people."""
    value = prediction.h200 if "H200" in card else prediction.h100
    return f"{value}, {prediction.how}"


if __name__ == "__main__":
    main()
