"""What the trainers of others need to train the arms of a study: a configuration a run, a script.

Does not know what is done with them.
"""

import yaml

from sf_ray.commands.study.record import Run, Study
from sf_ray.storage.files import put_bytes

# A model of the user's where the plan names none.
_STUDENT = "PUT-YOUR-MODEL-HERE"
# Rows of this many tokens are one step of about `batch_tokens`; trainers of others count rows.
_LEAST_BATCH = 1


def put_trainer_files(study: Study) -> None:
    """Writes STUDY/trainers: a YAML for LLaMA-Factory for each run, and one script for TRL."""
    folder = study.location.join("trainers")
    for run in study.record.runs:
        text = yaml.safe_dump(llama_factory(study, run), sort_keys=False, allow_unicode=True)
        put_bytes(folder.join(f"llama-factory/{run.name}.yaml"), text.encode())
    put_bytes(folder.join("train_trl.py"), _TRL.encode())


def batch_rows(study: Study, run: Run) -> int:
    """Rows of a step, so that every run takes about as many steps."""
    rows_a_token = run.rows / max(1, study.record.token_budget)
    wanted = study.record.training.batch_tokens * rows_a_token
    if run.arm == "all":  # as large as the steps of the others
        first = study.record.runs[0]
        wanted = study.record.training.batch_tokens * first.rows / study.record.token_budget
    return max(_LEAST_BATCH, round(wanted))


def llama_factory(study: Study, run: Run) -> dict[str, object]:
    """The configuration of one run: `llamafactory-cli train RUN.yaml`.

    The keys are those of LLaMA-Factory's example of supervised fine-tuning.
    """
    training = study.record.training
    how: dict[str, object] = {"finetuning_type": "full"}
    if training.lora_rank:
        how = {
            "finetuning_type": "lora",
            "lora_rank": training.lora_rank,
            "lora_alpha": 2 * training.lora_rank,
            "lora_target": "all",
        }
    rendering = study.record.rendering
    # Without a name LLaMA-Factory takes the chat template of the model itself.
    template = {"template": "empty"} if rendering.template == "plain" else {}
    return {
        "model_name_or_path": training.student or _STUDENT,
        "stage": "sft",
        "do_train": True,
        **how,
        "dataset_dir": study.uri(f"{run.data}/export/llama-factory"),
        "dataset": "sf_ray",
        **template,
        "mask_history": rendering.turns == "last",  # else every answer of a chat is learned
        "cutoff_len": rendering.max_length,
        "per_device_train_batch_size": batch_rows(study, run),
        "num_train_epochs": training.epochs,
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": "linear",
        "warmup_ratio": 0.1,
        "seed": run.seed,
        "output_dir": study.uri(study.model(run)),
        "report_to": "none",
    }


_TRL = '''\
"""Trains one run of this study with TRL: python train_trl.py STUDY RUN [MODEL].

Rows become tokens as in `sf-ray study train`, one sequence each, of which the answers are learned.
"""

import json
import sys
from pathlib import Path

import torch
from datasets import load_dataset
from transformers import AutoTokenizer
from trl import SFTConfig, SFTTrainer

study, name = Path(sys.argv[1]), sys.argv[2]
plan = json.loads((study / "study.json").read_text())
run = next(run for run in plan["runs"] if run["name"] == name)
training, rendering = plan["training"], plan["rendering"]
model = sys.argv[3] if len(sys.argv) > 3 else training["student"]
tokenizer = AutoTokenizer.from_pretrained(model)
is_plain = rendering["template"] == "plain"
if rendering["template"] not in ("plain", "chat"):
    tokenizer.chat_template = Path(rendering["template"]).read_text()
ROLES = {"human": "user", "observation": "tool", "gpt": "assistant", "function_call": "assistant"}


def message(turn):
    """A turn as chat templates take it."""
    if turn["from"] != "function_call":
        return {"role": ROLES[turn["from"]], "content": turn["value"]}
    calls = json.loads(turn["value"])
    calls = calls if isinstance(calls, list) else [calls]
    calls = [{"type": "function", "function": call} for call in calls]
    return {"role": "assistant", "content": "", "tool_calls": calls}


def text_of(messages, tools, is_prompt):
    if not is_plain:
        return tokenizer.apply_chat_template(
            messages,
            tools=json.loads(tools) if tools else None,
            tokenize=False,
            add_generation_prompt=is_prompt,
        )
    texts = [tools] if tools else []
    for one in messages:
        calls = [json.dumps(c["function"], ensure_ascii=False) for c in one.get("tool_calls", ())]
        texts.append("\\n".join(calls or [one["content"]]))
    return "".join(text + "\\n" for text in texts[:-1]) + texts[-1] + "\\n" * is_prompt


def tokens(row):
    """The whole row as ids, and which of them are learned."""
    messages = [message(turn) for turn in row["conversations"]]
    if row["system"]:
        messages.insert(0, {"role": "system", "content": row["system"]})
    answers = [at for at, one in enumerate(messages) if one["role"] == "assistant"]

    def ids(stop, is_prompt):
        text = text_of(messages[:stop], row["tools"], is_prompt)
        # The text of a chat template has the tokens that begin a text already.
        return tokenizer(text, add_special_tokens=is_plain)["input_ids"]

    whole = ids(len(messages), False)
    mask = [0] * len(whole)
    for at in answers if rendering["turns"] == "all" else answers[-1:]:
        start, stop = len(ids(at, True)), min(len(ids(at + 1, False)), len(whole))
        mask[start:stop] = [1] * max(0, stop - start)
    return {"input_ids": whole, "completion_mask": mask}


files = str(study / run["data"] / "export/llama-factory/data/*.jsonl")
rows = load_dataset("json", data_files=files, split="train")
rows = rows.map(tokens, remove_columns=rows.column_names)
lora = None
if training["lora_rank"]:
    from peft import LoraConfig

    rank = training["lora_rank"]
    lora = LoraConfig(
        task_type="CAUSAL_LM", r=rank, lora_alpha=2 * rank, target_modules="all-linear"
    )
trainer = SFTTrainer(
    model=model,
    processing_class=tokenizer,
    train_dataset=rows,
    peft_config=lora,
    args=SFTConfig(
        output_dir=str(study / "models" / plan["study_id"] / name),
        num_train_epochs=training["epochs"],
        learning_rate=training["learning_rate"],
        max_length=rendering["max_length"],
        completion_only_loss=True,
        seed=run["seed"],
        save_strategy="no",
        report_to="none",
        use_cpu=not torch.accelerator.is_available(),
    ),
)
trainer.train()
trainer.save_model()
'''
