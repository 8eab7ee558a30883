"""Scores of `sf-ray score` against scores that the paper's own code gave.

python bench/reference.py SCORES REFERENCE.jsonl

REFERENCE has one JSON object for each row of the corpus, in the order of the corpus, with
loss_direct and loss_conditioned in nats (null where the paper's code gives no value).
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds
from common import relative_difference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scores", type=Path, help="folder of a score set")
    parser.add_argument("reference", type=Path, help="JSON Lines with the losses")
    options = parser.parse_args()
    table = ds.dataset(sorted(options.scores.rglob("*.parquet"))).to_table()
    table = table.sort_by([("shard", "ascending"), ("row", "ascending")])
    lines = options.reference.read_text(encoding="utf-8").splitlines()
    reference = [json.loads(line) for line in lines]
    ours = table["ifd"].to_numpy()[: len(reference)]
    losses = [
        [np.nan if row[name] is None else row[name] for row in reference]
        for name in ("loss_direct", "loss_conditioned")
    ]
    theirs = np.exp(np.array(losses[1]) - np.array(losses[0]))
    largest, median = relative_difference(ours, theirs)
    print(f"{len(reference)} rows, {np.isfinite(theirs).sum()} with a reference score")
    print(f"relative difference of ifd: largest {largest:.2e}, median {median:.2e}")
    disagree = int((np.isnan(ours) != np.isnan(theirs)).sum())
    print(f"rows where only one side has a score: {disagree}")


if __name__ == "__main__":
    main()
