"""Run by a Python that has LLaMA-Factory: what its loader sees of a training configuration.

python read_llama_factory.py CONFIG.json OUT.json
"""

import json
import sys
from importlib.metadata import version

from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
from llamafactory.data.loader import _get_merged_dataset
from llamafactory.hparams import get_train_args
from llamafactory.model import load_tokenizer


def main(config: str, out: str) -> None:
    with open(config) as file:
        model_args, data_args, training_args, *_ = get_train_args(json.load(file))
    rows = _get_merged_dataset(data_args.dataset, model_args, data_args, training_args, "sft")
    loaded = load_tokenizer(model_args)
    tokenizer = loaded["tokenizer"]
    template = get_template_and_fix_tokenizer(tokenizer, data_args)
    module = get_dataset(template, model_args, data_args, training_args, stage="sft", **loaded)
    trained = [
        {
            "text": tokenizer.decode(row["input_ids"]),
            "learned": tokenizer.decode([label for label in row["labels"] if label >= 0]),
        }
        for row in module["train_dataset"]
    ]
    seen = {"version": version("llamafactory"), "rows": list(rows), "trained": trained}
    with open(out, "w") as file:
        json.dump(seen, file)


if __name__ == "__main__":  # its processes import this file
    main(*sys.argv[1:])
