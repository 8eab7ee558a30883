"""`--exact`: scores again in float32 until no score in the fast type decides what is kept.

    draw a sample -> score it -> measure bands -> select -> score what is near -> select -> ...

The steps are in `docs/adr/0015`, and why the result is the selection that float32 makes.
"""

from dataclasses import replace
from typing import NamedTuple

from sf_ray.config.selection_options import RunOptions
from sf_ray.corpus.planning import Corpus
from sf_ray.runtime.log import say
from sf_ray.scoring.partial_sets import RowSet, mixed_set, sample_set
from sf_ray.scoring.run import Scoring, score_units
from sf_ray.scoring.score_set import ScoreSet, count_units, describe, model_name
from sf_ray.selection.corpus_pass import CorpusPass, MarkedBadError
from sf_ray.selection.exact.bands import Bands
from sf_ray.selection.exact.rescoring import EXACT_DTYPE, Rescoring
from sf_ray.selection.exact.rescoring_tasks import (
    Layer,
    draw_sample,
    find_near,
    measure_errors,
    mix,
)
from sf_ray.selection.run import select_rows
from sf_ray.selection.selection import Selection, SelectionInputs


class ExactSelection(NamedTuple):
    """The rows that float32 selects, and what it took to find them."""

    selection: Selection
    rescoring: Rescoring


def select_exactly(
    options: RunOptions,
    scoring: Scoring,
    corpus: Corpus,
    inputs: SelectionInputs = SelectionInputs(),  # noqa: B008 - frozen
) -> ExactSelection:
    """Selects the rows that float32 would select.

    What an earlier run has scored again is found and not scored a third time.

    Args:
        options: Options of the run.
        scoring: In the fast type; all units have their scores.
        corpus: The corpus.
        inputs: Files whose examples may not be kept.

    Raises:
        MarkedBadError: Shards turned out to be bad.
        SfRayError: As `select_rows` and `score_units`.
    """
    score_set = scoring.score_set
    corpus_pass = CorpusPass(score_set.marks, options.on_bad_shard == "skip", options.stall_s)
    units = score_set.units(corpus)
    sample = draw_sample(corpus_pass, score_set, units, options.exact_sample)
    say(f"exact: a sample of {len(sample):,} rows in {EXACT_DTYPE}", stage="exact")
    layers = [_score_again(options, corpus, scoring, sample)]
    bands = measure_errors(score_set, layers[0], units)
    _say_errors(score_set, bands)
    rescored, current, rounds = sample, score_set, 0
    while True:
        selection = select_rows(options, corpus, current, inputs)
        near = find_near(selection, bands)
        if len(near.near - rescored):
            more, rounds = near.reach - rescored, rounds + 1
            say(
                f"exact: {len(more):,} rows ({len(more) / corpus.rows:.1%}) near the cut-off or a "
                f"bound, in {EXACT_DTYPE}",
                stage="exact",
                rows=len(more),
            )
            layers.append(_score_again(options, corpus, scoring, more))
            rescored |= more
        elif not layers:
            asked, sampled, rows = options.exact_sample, len(sample), len(rescored)
            return ExactSelection(
                selection, Rescoring(current, bands, asked, sampled, rows, rounds)
            )
        current, layers = _mixed(options, corpus, score_set, current, layers, rescored), []


def _score_again(options: RunOptions, corpus: Corpus, scoring: Scoring, rows: RowSet) -> Layer:
    """Scores rows in float32, where they have no such scores.

    Raises:
        MarkedBadError: A shard can no longer be read.
    """
    score_set = sample_set(scoring.score_set, rows, EXACT_DTYPE)
    describe(score_set, model_name(scoring.score_set))
    # Token losses belong to the scores of all rows, which these few are mixed with.
    engine = replace(scoring.engine, dtype=EXACT_DTYPE, token_losses=False)
    again = replace(scoring, engine=engine, score_set=score_set, rows=rows)
    if todo := again.missing(corpus):
        left, _ = score_units(options, corpus, again, todo)
        if left.skipped != corpus.skipped:
            raise MarkedBadError
    return Layer(score_set.pieces, rows)


def _mixed(
    options: RunOptions,
    corpus: Corpus,
    score_set: ScoreSet,
    current: ScoreSet,
    layers: list[Layer],
    rescored: RowSet,
) -> ScoreSet:
    """The scores as they are now, with those of the layers in their place."""
    mixed = mixed_set(score_set, rescored, EXACT_DTYPE)
    describe(mixed, model_name(score_set))
    todo = mixed.missing(mixed.units(corpus))
    if count_units(todo):
        mix(current.pieces, layers, mixed.pieces, todo, options.stall_s)
    return mixed


def _say_errors(score_set: ScoreSet, bands: Bands) -> None:
    dtype = score_set.identity["dtype"]
    for errors in filter(None, bands.lengths):
        most = errors.most_answer_tokens
        answers = "longer answers" if most is None else f"answers of up to {most} tokens"
        say(
            f"exact: {answers}: {dtype} is off by {errors.largest_error:.2%} of IFD at most on "
            f"{errors.rows} rows; band {errors.band:.2%}",
            stage="exact",
        )
