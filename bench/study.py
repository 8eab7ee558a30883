"""The study of docs/evidence.md, from scores to a verdict; goes on where it was.

    python bench/study.py --corpus DIR --student MODEL --work DIR [--held-out 199]
        [--arms ifd:3,random:6,length-matched:4,longest:2,ifd-low:2,all:1] [--report-by COLUMN]
        [--max-length 128] [--freeze-embeddings]

The filter is the demo model. On a cluster with GPUs each run has one.
Prints what `sf-ray study report` prints; times nothing.
"""

import argparse
from pathlib import Path

from sf_ray.cli import main as sf_ray

_ARMS = "ifd:3,random:6,length-matched:4,longest:2,ifd-low:2,all:1"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--student", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--keep-fraction", default="0.1")
    parser.add_argument("--held-out", default="199")
    parser.add_argument("--report-by")
    parser.add_argument("--max-length", default="128")
    parser.add_argument("--batch-tokens", default="1024")
    parser.add_argument("--epochs", default="1")
    parser.add_argument("--learning-rate", default="2e-5")
    parser.add_argument("--arms", default=_ARMS)
    parser.add_argument("--freeze-embeddings", action="store_true")
    asked = parser.parse_args()
    scores, study = str(asked.work / "scores"), str(asked.work / "study")
    score = ["score", asked.corpus, scores, "--model", "demo", "--max-length", asked.max_length]
    plan = ["study", "plan", asked.corpus, scores, study, "--student", asked.student]
    for name in (
        "keep_fraction", "held_out", "report_by", "batch_tokens", "epochs", "learning_rate", "arms",
    ):  # fmt: skip
        if (value := getattr(asked, name)) is not None:
            plan += ["--" + name.replace("_", "-"), value]
    if asked.freeze_embeddings:
        plan.append("--freeze-embeddings")
    return sf_ray(score) or sf_ray([*plan, "--train"])


if __name__ == "__main__":
    raise SystemExit(main())
