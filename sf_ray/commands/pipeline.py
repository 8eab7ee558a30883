"""The whole job: plan, score, select, write, report. Every step may be repeated without harm."""

from dataclasses import replace

from sf_ray.commands.select import is_done, select_and_write
from sf_ray.commands.setup import (
    KnownFooters,
    Specs,
    check_columns,
    check_places,
    find_encoding,
    join_cluster,
    list_corpus,
    location_of,
    scoring_spec_of,
    without_bad,
)
from sf_ray.config.options import (
    CorpusOptions,
    RunOptions,
    ScoreOptions,
    ScoringOptions,
    SelectionOptions,
    SelectOptions,
)
from sf_ray.corpus.plan_cache import Sample, keep_footers, keep_sample, sample_of
from sf_ray.corpus.planning import Corpus, SkippedShard
from sf_ray.corpus.sampling import field_names
from sf_ray.encoding.specs import ModelSpec
from sf_ray.engine.model_files import resolve_model
from sf_ray.errors import SfRayError
from sf_ray.output.report.terminal import print_scores_summary
from sf_ray.runtime.cluster import start_ray
from sf_ray.runtime.log import WallTimes, say, timed
from sf_ray.runtime.signals import stoppable
from sf_ray.scoring.run import Scored, Scoring, score_units
from sf_ray.scoring.score_set import count_units, describe, find_score_set, score_set_of
from sf_ray.selection.diversity.embedder import EmbedderSpec, require_library
from sf_ray.storage.lease import lease, refuse_if_held
from sf_ray.storage.location import Location

Skipped = tuple[SkippedShard, ...]


def run(options: RunOptions, specs: Specs = Specs()) -> Skipped:  # noqa: B008 - frozen
    """Scores a corpus, selects the best rows and writes them; returns the shards left out."""
    wall_s: WallTimes = {}
    scores = options.scores or f"{options.output.rstrip('/')}/scores"
    output = location_of(options, options.output)
    with stoppable():
        embedder = _embedder(options, specs)
        corpus, known = _plan(options, wall_s, scores, options.output)
        sample = sample_of(location_of(options, scores), corpus)
        check_columns(corpus, field_names(corpus, sample.rows), options)
        scoring = _prepare(options, corpus, sample, scores, wall_s, specs)
        score_set = scoring.score_set
        corpus = without_bad(options, corpus, score_set)
        if is_done(options, corpus, score_set, embedder):
            return corpus.skipped
        with lease(output), lease(score_set.pieces):
            keep_sample(score_set.location, sample)
            corpus, scored = _score(options, corpus, known, scoring, wall_s)
            return select_and_write(options, corpus, score_set, embedder, scored, wall_s).skipped


def score(options: ScoreOptions, specs: Specs = Specs()) -> Skipped:  # noqa: B008 - frozen
    """Scores a corpus; units that have scores are not scored again."""
    wall_s: WallTimes = {}
    with stoppable():
        corpus, known = _plan(options, wall_s, options.scores)
        sample = sample_of(location_of(options, options.scores), corpus)
        scoring = _prepare(options, corpus, sample, options.scores, wall_s, specs)
        score_set = scoring.score_set
        corpus = without_bad(options, corpus, score_set)
        with lease(score_set.pieces):
            keep_sample(score_set.location, sample)
            corpus, _ = _score(options, corpus, known, scoring, wall_s)
    print_scores_summary(
        score_set.pieces, corpus.rows, count_units(score_set.units(corpus)), corpus.skipped
    )
    return corpus.skipped


def select(options: SelectOptions, specs: Specs = Specs()) -> Skipped:  # noqa: B008 - frozen
    """Selects from existing scores and writes; loads no model, or only the encoder."""
    wall_s: WallTimes = {}
    with stoppable():
        embedder = _embedder(options, specs)
        corpus, known = _plan(options, wall_s, options.scores, options.output)
        sample = sample_of(location_of(options, options.scores), corpus)
        check_columns(corpus, field_names(corpus, sample.rows), options)
        score_set = find_score_set(location_of(options, options.scores), options.scoring_id)
        corpus = without_bad(options, corpus, score_set)
        if is_done(options, corpus, score_set, embedder):
            return corpus.skipped
        units = score_set.units(corpus)
        if missing := count_units(score_set.missing(units)):
            raise SfRayError(
                f"{score_set.pieces.public_uri}: {missing} of {count_units(units)} units of "
                f"{corpus.location.public_uri} have no scores; finish them with `sf-ray score` "
                "first"
            )
        with lease(location_of(options, options.output)):
            keep_footers(score_set.location, corpus, known)
            keep_sample(score_set.location, sample)
            start_ray(options.ray_address)
            return select_and_write(options, corpus, score_set, embedder, Scored(), wall_s).skipped


def _plan(
    options: CorpusOptions,
    wall_s: WallTimes,
    scores: str,
    output: str | None = None,
) -> tuple[Corpus, KnownFooters]:
    check_places(options, scores, output)
    if output:
        refuse_if_held(location_of(options, output))
    return list_corpus(options, location_of(options, scores), wall_s)


def _prepare(
    options: ScoringOptions,
    corpus: Corpus,
    sample: Sample,
    scores: str,
    wall_s: WallTimes,
    specs: Specs,
) -> Scoring:
    """All that decides the scores and where they go, checked before anything is written."""
    with timed("prepare", wall_s):
        encoding = find_encoding(options, corpus, sample, specs)
        join_cluster(options, encoding)
        spec = scoring_spec_of(options, encoding, specs)
        score_set = score_set_of(location_of(options, scores), spec.identity)
        refuse_if_held(score_set.pieces)
    return Scoring(spec.encoding, spec.engine, score_set)


def _embedder(options: SelectionOptions, specs: Specs) -> EmbedderSpec | None:
    """The embedder, where one is needed: found before anything else costs hours."""
    if options.diversify_to is None:
        return None
    require_library()
    found = resolve_model(options.encoder, options.storage_options)
    model = ModelSpec(options.encoder, found.fingerprint, options.storage_options)
    return specs.embedder(model)


def _score(
    options: ScoringOptions,
    corpus: Corpus,
    known: KnownFooters,
    scoring: Scoring,
    wall_s: WallTimes,
) -> tuple[Corpus, Scored]:
    """Scores what has no scores yet.

    Returns:
        The corpus without the shards that turned out to be bad, and what was scored.
    """
    score_set = scoring.score_set
    describe(score_set, Location(options.model).public_uri)
    keep_footers(score_set.location, corpus, known)
    units = score_set.units(corpus)
    todo = score_set.missing(units)
    total, left = count_units(units), count_units(todo)
    say(
        f"format {scoring.encoding.format}, model {Location(options.model).public_uri}, "
        f"{score_set.identity['dtype']} on {scoring.engine.device}: {total:,} units, "
        f"{total - left:,} have scores, {left:,} to score"
    )
    scored = Scored()
    if todo:
        with timed("score", wall_s):
            corpus, scored = score_units(options, corpus, scoring, todo)
    # What was lost on the way and scored again counts once.
    return corpus, replace(scored, units=count_units(score_set.units(corpus)) - (total - left))
