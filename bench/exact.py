"""`sf-ray run --exact` against float32 alone: the same rows, and for how much of the work.

python bench/exact.py [--corpus DIR] [--rows 999] [--model demo] [--dtype bfloat16] [--sample 256]
                      [--fractions 0.05,0.1,0.15,0.3]

The whole job runs, with Ray, once in float32 and once in the fast type for each fraction. On a CPU
without instructions for the fast type the selection is the same as elsewhere, and the time is not.
"""

import argparse
import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pyarrow.parquet as pq

from sf_ray.commands import pipeline
from sf_ray.commands.demo import write_corpus
from sf_ray.config.selection_options import RunOptions
from sf_ray.engine.model_files import context_window, resolve_model
from sf_ray.output.manifest import Manifest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", help="directory of Parquet shards; default: the demo's")
    parser.add_argument("--rows", type=int, default=999)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--sample", type=int, default=256)
    parser.add_argument("--fractions", default="0.05,0.1,0.15,0.3")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        rows = copy_rows(options.corpus, options.rows, root)
        shared: dict[str, Any] = {
            "input": str(root / "corpus"),
            "scores": str(root / "scores"),
            "model": options.model,
            "device": options.device,
            "ray_address": "local",
            "max_bad_fraction": 1.0,  # of a few rows of the demo's, many may be bad
            "max_length": min(1024, context_window(resolve_model(options.model)) or 1024),
        }
        fast = {"dtype": options.dtype, "exact": True, "exact_sample": options.sample}
        print(f"{rows} rows, {options.model}, {options.dtype} first, sample of {options.sample}")
        float32_s = fast_s = 0.0
        fractions = [float(fraction) for fraction in options.fractions.split(",")]
        for fraction in fractions:
            truth = run(root / f"float32-{fraction}", shared | {"dtype": "float32"}, fraction)
            exact = run(root / f"exact-{fraction}", shared | fast, fraction)
            if fraction == fractions[0]:  # later ones find the scores
                float32_s, fast_s = truth.wall_s["score"], exact.wall_s["score"]
                print_errors(exact)
            print_fraction(root, fraction, exact)
        print(f"time to score all rows, start of Ray's actors included: "
              f"{options.dtype} {fast_s / float32_s:.2f}x of float32")  # fmt: skip


def copy_rows(corpus: str | None, rows: int, root: Path) -> int:
    """Copies the first rows of a corpus; returns how many there are."""
    if corpus is None:
        write_corpus(root / "whole")
        corpus = str(root / "whole")
    table = ds.dataset(sorted(Path(corpus).rglob("*.parquet"))).head(rows)
    (root / "corpus").mkdir()
    pq.write_table(table, root / "corpus/0.parquet")
    return table.num_rows


def run(out: Path, options: dict[str, Any], fraction: float) -> Manifest:
    with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):
        pipeline.run(RunOptions(**options, output=str(out), keep_fraction=fraction))
    return Manifest.from_json((out / "manifest.json").read_bytes(), str(out))


def print_errors(manifest: Manifest) -> None:
    assert manifest.scores.exact
    for errors in manifest.scores.exact.errors:
        print(f"answers of up to {errors.most_answer_tokens or 'any number of'} tokens, "
              f"{errors.rows} sampled: error of IFD {errors.median_error:.1e} in the median, "
              f"{errors.largest_error:.1e} at most; band {errors.band:.1e}")  # fmt: skip


def print_fraction(root: Path, fraction: float, exact: Manifest) -> None:
    """Prints whether the same rows are kept, and how many would be without scoring any again."""
    scores, place = exact.scores, root / "scores"
    assert scores.exact
    wanted, plain = (kept(root / f"{name}-{fraction}") for name in ("float32", "exact"))
    by_fast = best(place / scores.scoring_id, len(wanted))
    again, rows = scores.exact.rescored_rows, exact.input.rows
    print(f"best {fraction:.0%}: kept {len(wanted)}, {len(wanted & plain)} of them by --exact and "
          f"{len(wanted & by_fast)} by {scores.identity.dtype} alone; {again} rows scored again "
          f"({again / rows:.1%}) in {scores.exact.rounds} rounds")  # fmt: skip


def kept(out: Path) -> set[str]:
    """The kept rows, by what they hold besides the score."""
    table = pq.read_table(out / "data/0.parquet").drop_columns("ifd")
    return {str(row) for row in table.to_pylist()}


def best(pieces: Path, count: int) -> set[str]:
    """The best rows by the scores of some pieces, in the same form."""
    scores = ds.dataset(sorted(pieces.glob("*.parquet"))).to_table(["row", "ifd"]).to_pylist()
    good = [score for score in scores if score["ifd"] is not None and score["ifd"] < 1]
    good.sort(key=lambda score: (-score["ifd"], score["row"]))
    table = pq.read_table(pieces.parents[1] / "corpus/0.parquet")
    return {str(row) for row in table.take([s["row"] for s in good[:count]]).to_pylist()}


if __name__ == "__main__":
    main()
