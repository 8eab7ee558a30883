"""The held-out rows, scored by the models of a study: losses that can be compared."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sf_ray.commands.pipeline import scored
from sf_ray.commands.setup import Specs
from sf_ray.commands.study.overlaps import files_of
from sf_ray.commands.study.record import Result, Study
from sf_ray.config.options import ClusterOptions, ScoreOptions
from sf_ray.corpus.contained import contained
from sf_ray.corpus.examples import Example
from sf_ray.corpus.rows import BadLine, rows_of
from sf_ray.corpus.units import Place
from sf_ray.errors import SfRayError
from sf_ray.runtime.log import say
from sf_ray.scoring.score_set import find_score_set
from sf_ray.selection.eligible_scores import read_checked
from sf_ray.selection.excluded_tasks import tables_of_shard
from sf_ray.storage.location import Location

Floats = NDArray[np.float64]
_COLUMNS = ("loss_conditioned", "answer_tokens", "prompt_tokens", "truncated")


@dataclass(frozen=True)
class HeldOutLosses:
    """Losses of the held-out rows by each model; all of the same n rows.

    Attributes:
        losses: Run -> [n] loss of each row's answer behind its prompt.
        unit: "token", or "byte" of the answer where tokenizers differ: then losses a token are of
            different things.
        left_out: Held-out rows that some model has no loss of.
    """

    losses: Mapping[str, Floats]
    unit: str
    left_out: int


def score_held_out(
    study: Study, run: str, model: str, options: ClusterOptions, specs: Specs
) -> None:
    """Scores the held-out rows with a model, in float32, and keeps which scores those are.

    Args:
        study: The study.
        run: The run whose model it is.
        model: The model, as --model takes it.
        options: The cluster and its storage.
        specs: See `Specs`.
    """
    say(f"study: scoring the held-out rows with {run}")
    score_set, _ = scored(scoring_options(study, model, options), specs)
    public = Location(model).public_uri
    study.put_result(Result(run=run, model=public, scoring_id=score_set.scoring_id))


def scoring_options(study: Study, model: str, options: ClusterOptions) -> ScoreOptions:
    """The options by which a model of the study sees rows, and scores the held-out ones."""
    shared: dict[str, Any] = options.model_dump(include=set(ClusterOptions.model_fields))
    if shared["model_storage_options"] is None:
        shared["model_storage_options"] = options.storage_options
    return ScoreOptions(
        **shared,
        **study.record.rendering.model_dump(),
        input=study.uri(study.held_out),
        scores=study.uri(study.scores),
        model=model,
        # A fast type differs by more than two good models do.
        dtype="float32",
        no_compile=True,  # which takes longer than some thousand rows
        max_bad_fraction=1,
    )


def losses_of(study: Study, runs: list[str]) -> HeldOutLosses:
    """Reads the losses of some runs, whose models have scored the held-out rows."""
    tables = {run: _table(study, run) for run in runs}
    losses = {run: table["loss_conditioned"].to_numpy() for run, table in tables.items()}
    tokens = {
        run: np.stack([table[name].fill_null(-1).to_numpy() for name in _COLUMNS[1:3]])
        for run, table in tables.items()
    }
    first = next(iter(tokens.values()))
    unit = "token" if all((first == each).all() for each in tokens.values()) else "byte"
    known = np.logical_and.reduce([np.isfinite(loss) for loss in losses.values()])
    if unit == "byte":
        # Of a cut answer each tokenizer has another part.
        known &= ~np.logical_or.reduce([t["truncated"].to_numpy() for t in tables.values()])
        sizes = _answer_bytes(study)
        known &= sizes > 0
        losses = {run: loss * tokens[run][0] / np.maximum(sizes, 1) for run, loss in losses.items()}
    if not known.any():
        raise SfRayError("no held-out row has a loss by every model")
    return HeldOutLosses(
        {run: loss[known] for run, loss in losses.items()}, unit, int((~known).sum())
    )


def _table(study: Study, run: str) -> pa.Table:
    result = study.result(run)
    assert result is not None, "only runs with a result are asked for"
    score_set = find_score_set(study.location.join(study.scores), result.scoring_id)
    corpus = files_of(study, study.held_out).corpus
    places = [Place(shard, unit) for shard, units in score_set.units(corpus) for unit in units]
    return pa.concat_tables(read_checked(score_set.pieces, places, _COLUMNS))


def _answer_bytes(study: Study) -> NDArray[np.int64]:
    """[n] bytes of the scored answers of each held-out row; 0 where there is no answer."""
    files, turns = files_of(study, study.held_out), study.record.rendering.turns
    sizes = []
    for shard in files.corpus.shards:
        for table in tables_of_shard(files, shard):
            for row in rows_of(table):
                example = row if isinstance(row, BadLine) else files.format.render(row)
                size: object = 0
                if isinstance(example, Example):
                    size = contained(_bytes_of, example, turns)
                sizes.append(size if isinstance(size, int) else 0)
    return np.array(sizes, np.int64)


def _bytes_of(example: Example, turns: str) -> int:
    scored_turns = example.turns if turns == "all" else example.turns[-1:]
    return sum(len(example.messages[turn].text.encode("utf-8", "replace")) for turn in scored_turns)
