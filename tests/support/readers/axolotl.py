"""Run by a Python that has Axolotl: what its loader makes of a configuration.

python axolotl.py CONFIG.yaml OUT.json
"""

import json
import sys
from importlib.metadata import version

sys.path.pop(0)  # this file is named as the library

from axolotl.cli.config import load_cfg
from axolotl.common.datasets import load_datasets
from axolotl.loaders import load_tokenizer

cfg = load_cfg(sys.argv[1])
tokenizer = load_tokenizer(cfg)
trained = [
    {
        "text": tokenizer.decode(row["input_ids"]),
        "learned": tokenizer.decode([label for label in row["labels"] if label >= 0]),
    }
    for row in load_datasets(cfg=cfg).train_dataset
]
with open(sys.argv[2], "w") as file:
    json.dump({"version": version("axolotl"), "trained": trained}, file)
