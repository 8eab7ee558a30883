"""Fine-tunes a causal language model on token sequences, with the trainer of transformers.

For studies: models that are trained on different rows, and in nothing else differently. Knows torch
and transformers; no Ray, no text, no tables, no files but the model's.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sf_ray.engine.recipe import Recipe
from sf_ray.engine.sequences import TokenSequences
from sf_ray.errors import SfRayError
from sf_ray.runtime.libraries import require

Ints = NDArray[np.int64]

# What the loss of transformers leaves out.
_NO_LABEL = -100
# Of the steps, those in which the learning rate rises; afterwards it falls in a line to 0.
_WARMUP = 0.1


def batches_of(lengths: Ints, recipe: Recipe, seed: int) -> list[Ints]:
    """Cuts sequences into batches of about equal tokens, anew in each epoch.

    Equal tokens and not equal rows: sets of sequences with as many tokens then take as many steps,
    each of which learns from as many tokens, however long the single sequences are.

    Args:
        lengths: [n] tokens of each sequence.
        recipe: Epochs, and tokens of a batch.
        seed: Of the order.

    Returns:
        The indices of each batch, at least one, batch after batch.
    """
    total = int(lengths.sum())
    # No batch is empty: of sequences that are no longer than a batch, one has its middle in it.
    steps = max(1, min(round(total / recipe.batch_tokens), total // int(lengths.max())))
    rng = np.random.default_rng(seed)
    batches = []
    for _ in range(recipe.epochs):
        order = rng.permutation(len(lengths))
        middles = np.cumsum(lengths[order]) - lengths[order] / 2
        step = (middles * steps / total).astype(np.int64)
        batches += np.split(order, np.searchsorted(step, np.arange(1, steps)))
    return batches


def fine_tune(
    model_dir: Path,
    sequences: TokenSequences,
    recipe: Recipe,
    seed: int,
    device: str,
    out: Path,
    threads: int | None = None,
) -> int:
    """Trains a model on the scored tokens of sequences: every other token is only context.

    Args:
        model_dir: Directory with config.json and safetensors weights.
        sequences: What the model learns; those without a scored token teach nothing.
        recipe: How.
        seed: Of the order of the sequences, and of new weights.
        device: "cpu" or "cuda".
        out: Directory that gets the trained model and the tokenizer's files.
        threads: Threads on CPU; None: torch's setting.

    Returns:
        The number of steps.

    Raises:
        SfRayError: A library is missing, nothing can be learned, or the loss is not finite.
    """
    require("study", "accelerate", *(["peft"] if recipe.lora_rank else []))
    from transformers import PrinterCallback, Trainer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    sequences = sequences.take(np.flatnonzero(sequences.scored > 0))
    if not len(sequences):
        raise SfRayError("no row has an answer to train on")
    if threads:
        torch.set_num_threads(threads)
    model = _loaded(model_dir, recipe, seed)
    batches = batches_of(sequences.lengths, recipe, seed)
    trainer = Trainer(
        model=model,
        args=_arguments(recipe, seed, device, out),
        train_dataset=batches,
        data_collator=lambda items: _padded(sequences, items[0]),
    )
    trainer.remove_callback(PrinterCallback)  # what it prints is in Ray's log, and for nobody
    trained = trainer.train()
    if not np.isfinite(trained.training_loss):
        raise SfRayError(
            f"the training loss is {trained.training_loss}: lower --learning-rate and train again"
        )
    if recipe.lora_rank:
        model = model.merge_and_unload()
    _save(model, model_dir, out)
    return len(batches)


def _loaded(model_dir: Path, recipe: Recipe, seed: int) -> Any:
    """The model in float32, with those weights to be trained that the recipe says."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    model.config.use_cache = False
    if recipe.freeze_embeddings:
        for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
            layer.requires_grad_(False)
    return _with_adapters(model, recipe.lora_rank, seed) if recipe.lora_rank else model


def _arguments(recipe: Recipe, seed: int, device: str, out: Path) -> Any:
    from transformers import TrainingArguments

    on_gpu = device == "cuda"
    return TrainingArguments(
        output_dir=str(out),
        per_device_train_batch_size=1,  # an item of the data is a whole batch
        num_train_epochs=1,  # the batches are those of all epochs
        learning_rate=recipe.learning_rate,
        warmup_steps=_WARMUP,
        seed=seed,
        use_cpu=not on_gpu,
        bf16=on_gpu and torch.cuda.is_bf16_supported(),
        dataloader_pin_memory=on_gpu,
        save_strategy="no",
        logging_strategy="no",
        logging_nan_inf_filter=False,  # else a loss that is not finite counts as none at all
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
    )


def _with_adapters(model: Any, rank: int, seed: int) -> Any:
    from peft import LoraConfig, TaskType, get_peft_model

    torch.manual_seed(seed)
    adapters = LoraConfig(
        task_type=TaskType.CAUSAL_LM, r=rank, lora_alpha=2 * rank, target_modules="all-linear"
    )
    return get_peft_model(model, adapters)


def _padded(sequences: TokenSequences, batch: Ints) -> dict[str, torch.Tensor]:
    """A batch as transformers takes it: sequences padded on the right, labels of scored tokens."""
    chosen = list(sequences.take(batch))
    shape = len(chosen), max(len(sequence.ids) for sequence in chosen)
    ids, mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    labels = np.full(shape, _NO_LABEL, np.int64)
    for row, sequence in enumerate(chosen):
        ids[row, : len(sequence.ids)] = sequence.ids
        mask[row, : len(sequence.ids)] = 1
        for first, stop in sequence.spans:
            labels[row, first:stop] = sequence.ids[first:stop]
    named: Sequence[tuple[str, NDArray[np.int64]]] = (
        ("input_ids", ids),
        ("attention_mask", mask),
        ("labels", labels),
    )
    return {name: torch.from_numpy(values) for name, values in named}


def _save(model: Any, model_dir: Path, out: Path) -> None:
    """Saves the weights, with all other files of the model that was trained."""
    out.mkdir(parents=True, exist_ok=True)
    for path in model_dir.iterdir():
        if path.is_file() and ".safetensors" not in path.name:
            shutil.copyfile(path, out / path.name)
    model.config.use_cache = True
    model.save_pretrained(out)  # over the copy of config.json
