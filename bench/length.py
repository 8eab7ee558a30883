"""How IFD goes with the length of the answer, on scores that are there already.

python bench/length.py CORPUS REFERENCE.jsonl

CORPUS is a local folder of Parquet shards with the column "output". REFERENCE has one JSON object
for each of its first rows, as for `bench/reference.py`.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds

from sf_ray.scoring.rank_correlation import rank_correlation

FRACTIONS = (0.05, 0.1, 0.2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path, help="folder of Parquet shards")
    parser.add_argument("reference", type=Path, help="JSON Lines with the losses")
    options = parser.parse_args()
    lines = options.reference.read_text(encoding="utf-8").splitlines()
    losses = [
        [np.nan if row[name] is None else row[name] for row in map(json.loads, lines)]
        for name in ("loss_direct", "loss_conditioned")
    ]
    ifd = np.exp(np.array(losses[1]) - np.array(losses[0]))
    shards = sorted(options.corpus.rglob("*.parquet"))
    answers = ds.dataset(shards).head(len(ifd), columns=["output"])["output"].to_pylist()
    characters = np.array([len(answer or "") for answer in answers], np.float64)
    scored = np.isfinite(ifd)
    rho = rank_correlation(ifd[scored], characters[scored])
    print(f"{scored.sum()} rows with a score; rank correlation of ifd with characters: {rho:.2f}")
    # The method keeps rows below 1.
    eligible = np.flatnonzero(scored & (ifd < 1))
    for fraction in FRACTIONS:
        count = int(len(ifd) * fraction)
        best = eligible[np.argsort(-ifd[eligible], kind="stable")[:count]]
        longest = eligible[np.argsort(-characters[eligible], kind="stable")[:count]]
        shared = len(np.intersect1d(best, longest)) / count
        print(f"best {fraction:.0%} by ifd: {shared:.0%} are among the longest {fraction:.0%}")


if __name__ == "__main__":
    main()
