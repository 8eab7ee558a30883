"""The estimates of `sf-ray plan` against the tokens and the time of the same job.

python bench/plan.py --corpus DIR [--rows 400] [--model demo] [--unit-rows 200] [--sample 200]
                     [--measure-s 60]

Plan and job run one after the other, as command lines. The estimate of tokens is compared with
encoding every row, that of the time with the job's stage `score`: from the start of the actors to
the last piece. Run it on a quiet machine, because the plan extrapolates from a measured minute.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pyarrow.parquet as pq
from common import encode, load_examples

from sf_ray.encoding.encoded_table import sequences_of
from sf_ray.encoding.encoder import Encoder
from sf_ray.engine.flops import Work
from sf_ray.engine.model_files import load_tokenizer, resolve_model

MAX_LENGTH = 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", required=True, help="directory of Parquet shards")
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--unit-rows", type=int, default=200)
    parser.add_argument("--sample", type=int, default=200)
    parser.add_argument("--measure-s", type=float, default=60)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        corpus, scores = f"{folder}/corpus", f"{folder}/scores"
        Path(corpus).mkdir()
        table = ds.dataset(sorted(Path(options.corpus).rglob("*.parquet"))).head(options.rows)
        pq.write_table(table, f"{corpus}/0.parquet")
        given = ["--model", options.model, "--unit-rows", str(options.unit_rows)]
        given += ["--max-length", str(MAX_LENGTH), "--ray-address", "local"]
        how = ["--sample", str(options.sample), "--measure-s", str(options.measure_s)]
        planned = json.loads(sf_ray("plan", corpus, *given, *how, "--json").stdout)
        job = sf_ray("score", corpus, scores, *given, "--log-format", "json")
        took_s = stage_s(job.stderr, "score")
        tokens = tokens_of(corpus, options.rows, options.model)
    speed = planned["speed"]
    print(
        f"{table.num_rows} rows in {planned['units']['all']} units, {options.model} on "
        f"{planned['scoring']['device']}; {planned['sample']['rows']} rows sampled, "
        f"{speed['measured_rows']} scored in {speed['measured_s']:.0f} s"
    )
    print(
        f"tokens saved: {speed['saved_in_units']:.0%} in units, "
        f"{speed['saved_in_measured_parts']:.0%} in what was scored"
    )
    for name, truth in (("tokens", tokens), ("time_s", took_s)):
        planned_range = planned[name]
        low, high = (planned_range[end] and planned_range[end] / truth for end in ("low", "high"))
        interval = "none" if low is None else f"{low:.2f} to {high:.2f}"
        ratio = planned_range["estimate"] / truth
        print(f"{name:7} estimate / measured: {ratio:.3f} (interval {interval})")


def sf_ray(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a command line; if it fails, ends this process with what it wrote to standard error."""
    command = [sys.executable, "-m", "sf_ray", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return done


def stage_s(log: str, stage: str) -> float:
    """Seconds of a stage, from a log of JSON lines."""
    lines: list[dict[str, Any]] = [json.loads(line) for line in log.splitlines()]
    done = f"{stage}: "  # lines of progress name their stage as well
    return next(
        line["seconds"]
        for line in lines
        if line.get("stage") == stage and line["message"].startswith(done) and "seconds" in line
    )


def tokens_of(corpus: str, rows: int, model: str) -> int:
    """Tokens of both passes over every row."""
    encoder = Encoder(load_tokenizer(resolve_model(model)), MAX_LENGTH)
    return Work.plain(sequences_of(encode(encoder, load_examples(corpus, rows)))).tokens


if __name__ == "__main__":
    main()
