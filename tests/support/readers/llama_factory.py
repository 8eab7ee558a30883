"""Run by a Python that has LLaMA-Factory: what its loader sees of a training configuration.

python llama_factory.py CONFIG.json OUT.json
"""

import json
import sys
from importlib.metadata import version

from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
from llamafactory.data.loader import _get_merged_dataset
from llamafactory.hparams import get_train_args
from llamafactory.model import load_tokenizer

with open(sys.argv[1]) as file:
    model_args, data_args, training_args, finetuning_args, _ = get_train_args(json.load(file))
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
with open(sys.argv[2], "w") as file:
    json.dump({"version": version("llamafactory"), "rows": list(rows), "trained": trained}, file)
