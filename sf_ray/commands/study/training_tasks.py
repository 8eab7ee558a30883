"""Trains the runs of a study in Ray tasks, each on a device of its own.

Does not know what a run is held against.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import ray

from sf_ray.corpus.planning import Corpus
from sf_ray.corpus.rows import read_units
from sf_ray.corpus.units import group_reads, units_of
from sf_ray.encoding.encoded_table import sequences_of
from sf_ray.encoding.specs import EncodingSpec
from sf_ray.engine.recipe import Recipe
from sf_ray.engine.sequences import TokenSequences
from sf_ray.runtime.tasks import Needs, parallel_map
from sf_ray.storage.files import put_whole
from sf_ray.storage.location import Location

_UNIT_ROWS = 4096
# Training says nothing before it ends, and may take a night.
_STALL_S = 7 * 24 * 3600.0


@dataclass(frozen=True)
class TrainingRun:
    """What one task trains.

    Attributes:
        name: Of the run.
        corpus: Its rows.
        encoding: Rows -> token ids, for the student, whose model it names.
        recipe: How it is trained.
        seed: Of the training.
        target: Where the trained model goes.
    """

    name: str
    corpus: Corpus
    encoding: EncodingSpec
    recipe: Recipe
    seed: int
    target: Location


@dataclass(frozen=True)
class Trained:
    """A trained model.

    Attributes:
        name: Of the run.
        steps: Steps of the training.
        tokens: Tokens of its rows, each counted once.
    """

    name: str
    steps: int
    tokens: int


def train_runs(runs: Sequence[TrainingRun], device: str) -> Iterator[Trained]:
    """Trains runs, as many at a time as there are devices; yields each when its model is there.

    Args:
        runs: The runs.
        device: "cuda" for a GPU each; "cpu" for all CPUs of a node each.
    """
    if device == "cuda":
        needs, threads = Needs(cpus=1, gpus=1, own_process=True), None
    else:
        cpus = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
        threads = max(1, int(min(filter(None, cpus), default=1)))
        needs = Needs(cpus=threads, own_process=True)

    def train(run: TrainingRun) -> Trained:
        return _train(run, device, threads)

    return parallel_map(train, runs, _STALL_S, needs)


def _train(run: TrainingRun, device: str, threads: int | None) -> Trained:
    # Imported here, so that only processes that train pay for importing torch.
    from sf_ray.engine.fine_tuning import fine_tune

    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    sequences = _sequences(run)
    student = run.encoding.model.resolve()
    with tempfile.TemporaryDirectory(prefix="sf_ray-study-") as folder:
        out = Path(folder)
        steps = fine_tune(student.path, sequences, run.recipe, run.seed, device, out, threads)
        for path in sorted(out.iterdir()):
            if path.is_file():
                with put_whole(run.target.join(path.name)) as copy:
                    shutil.copyfile(path, copy)
    return Trained(run.name, steps, len(sequences.ids))


def _sequences(run: TrainingRun) -> TokenSequences:
    """The conditioned sequences of all rows: prompt and answer, of which the answer is scored."""
    conditioned = []
    for shard in run.corpus.shards:
        for plan in group_reads(shard, units_of(shard.row_groups, _UNIT_ROWS)):
            tables = read_units(run.corpus.location, plan, run.encoding.columns)
            for unit, rows in zip(plan.units, tables, strict=True):
                encoded = run.encoding.encode(rows, shard.file.relative, unit.start)
                # The last sequences of a row are those of its answers alone, one for each turn.
                all_of_row, direct = (
                    encoded[name].combine_chunks().value_lengths().to_numpy()
                    for name in ("ids", "conditioned_tokens")
                )
                first = np.cumsum(all_of_row) - all_of_row
                chosen = np.concatenate(
                    [np.empty(0, np.int64)]
                    + [
                        np.arange(start, start + count)
                        for start, count in zip(first, all_of_row - direct, strict=True)
                    ]
                )
                conditioned.append(sequences_of(encoded).take(chosen))
    return TokenSequences.joined(conditioned)
