"""Run by a Python that has TRL: what SFTTrainer learns of a dataset, or of a script that trains.

python read_trl.py DATASET MODEL OUT.json          a folder, as `trl sft --dataset_name` loads it
python read_trl.py SCRIPT OUT.json ARGUMENT ...    a script that makes an SFTTrainer
"""

import json
import runpy
import sys
from importlib.metadata import version
from pathlib import Path

# This file is named as the library, and the folder of a script comes first where modules are
# looked for.
sys.path.pop(0)

from datasets import load_dataset
from trl import SFTConfig, SFTTrainer


def seen(trainer: SFTTrainer) -> list[dict[str, str]]:
    tokenizer = trainer.processing_class
    batches = [trainer.data_collator([row]) for row in trainer.train_dataset]
    return [
        {
            "text": tokenizer.decode(batch["input_ids"][0]),
            "learned": tokenizer.decode(
                [label for label in batch["labels"][0].tolist() if label >= 0]
            ),
        }
        for batch in batches
    ]


if sys.argv[1].endswith(".py"):
    script, out, *arguments = sys.argv[1:]
    sys.argv = [script, *arguments]
    trainer = runpy.run_path(script, run_name="__main__")["trainer"]
else:
    folder, model, out = sys.argv[1:]
    trainer = SFTTrainer(
        model,
        train_dataset=load_dataset(folder, split="train"),
        args=SFTConfig(output_dir=f"{out}.d", max_length=4096, report_to="none", use_cpu=True),
    )
    trainer.train()
Path(out).write_text(json.dumps({"version": version("trl"), "trained": seen(trainer)}))
