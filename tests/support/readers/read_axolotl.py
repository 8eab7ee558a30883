"""Run by a Python that has Axolotl: what its loader makes of a configuration.

python read_axolotl.py CONFIG.yaml OUT.json
"""

import json
import sys
from importlib.metadata import version

from axolotl.cli.config import load_cfg
from axolotl.common.datasets import load_datasets
from axolotl.loaders import load_tokenizer


def main(config: str, out: str) -> None:
    cfg = load_cfg(config)
    tokenizer = load_tokenizer(cfg)
    trained = [
        {
            "text": tokenizer.decode(row["input_ids"]),
            "learned": tokenizer.decode([label for label in row["labels"] if label >= 0]),
        }
        for row in load_datasets(cfg=cfg).train_dataset
    ]
    with open(out, "w") as file:
        json.dump({"version": version("axolotl"), "trained": trained}, file)


if __name__ == "__main__":  # its processes import this file
    main(*sys.argv[1:])
