"""`sf-ray run`, `score` and `select`: the whole job on one screen.

    plan -> score -> select -> write -> report

Each function checks everything that it can before it takes a lease and writes. Every command may be
repeated without harm: it goes on with what is missing, or finds that nothing is.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

from sf_ray.commands.commit import commit_target, committed, committed_before
from sf_ray.commands.lineage import Lineage, facts_of
from sf_ray.commands.locations import location_of, model_storage_options
from sf_ray.commands.select import Done, done_before, select_and_write
from sf_ray.commands.setup import (
    KnownFooters,
    Specs,
    check_columns,
    check_places,
    files_to_leave_out,
    find_encoding,
    join_cluster,
    list_corpus,
    scoring_spec_of,
    without_bad,
)
from sf_ray.commands.shared_places import (
    Places,
    check_shared,
    corpus_files,
    model_files,
    score_files,
    within,
)
from sf_ray.commands.usable import check_sample, usable_shards
from sf_ray.config.options import CorpusOptions, KeptScoresOptions, ScoreOptions, ScoringOptions
from sf_ray.config.selection_options import RunOptions, SelectionOptions, SelectOptions
from sf_ray.corpus.formats import Format
from sf_ray.corpus.plan_cache import Sample, keep_footers, keep_sample, sample_of
from sf_ray.corpus.planning import Corpus, SkippedShards
from sf_ray.encoding.specs import ModelSpec
from sf_ray.engine.model_files import resolve_model
from sf_ray.errors import SfRayError
from sf_ray.output.layout import Output
from sf_ray.output.report.terminal import print_scores_summary
from sf_ray.runtime.cluster import start_ray
from sf_ray.runtime.libraries import require
from sf_ray.runtime.log import WallTimes, say, timed
from sf_ray.runtime.signals import stoppable
from sf_ray.scoring.run import Scoring, score_units
from sf_ray.scoring.score_set import (
    ScoreSet,
    count_units,
    describe,
    find_score_set,
    format_of,
    score_set_of,
)
from sf_ray.scoring.stages.tally import Scored
from sf_ray.selection.diversity.embedder import EmbedderSpec, require_library
from sf_ray.selection.exact.rescoring import EXACT_DTYPE
from sf_ray.selection.exact.run import select_exactly
from sf_ray.selection.run import select_rows, tokens_of
from sf_ray.selection.selection import SelectionInputs
from sf_ray.storage.lease.files import try_rights
from sf_ray.storage.lease.lease import lease, refuse_if_held
from sf_ray.storage.location import Location
from sf_ray.storage.names import refuse_names
from sf_ray.text.printable import printable


@dataclass(frozen=True)
class PlannedCorpus:
    """A corpus as it is now, and what an earlier run has left of it beside the scores.

    Attributes:
        corpus: Its usable shards.
        sample: Some of its rows.
        scores: SCORES, which may hold several score sets.
        known: The footers that lay there.
    """

    corpus: Corpus
    sample: Sample
    scores: Location
    known: KnownFooters


def run(options: RunOptions, specs: Specs = Specs()) -> SkippedShards:  # noqa: B008 - frozen
    """Scores a corpus, selects the best rows and writes them; returns the shards left out."""
    wall_s: WallTimes = {}
    scores = options.scores or f"{options.output.rstrip('/')}/scores"
    with stoppable():
        embedder = _embedder(options, specs)
        planned = _plan(options, scores, options.output, wall_s)
        check_columns(options, planned.corpus, planned.sample)
        target = commit_target(options, planned.corpus)
        scoring, corpus = _prepare(options, planned, specs, wall_s)
        score_set = scoring.score_set
        exact = _needs_float32(options, score_set)
        inputs = _inputs(options, embedder, scoring.encoding.format)
        sample = options.exact_sample if exact else None
        if done := done_before(options, corpus, score_set, inputs, sample):
            return committed_before(options, target, done).printed()
        _check_shared(options, corpus, score_set, inputs)
        with (
            Lineage() as lineage,
            lease(location_of(options, options.output)) as held,
            _lease_to_score(score_set, corpus, exact, options.token_losses),
        ):
            _try_rights(options)
            lineage.start(facts_of(options, corpus, planned.sample.rows, inputs.files))
            _keep_plan(planned, corpus, score_set)
            corpus, scored = _score(options, corpus, scoring, wall_s)
            exactly = partial(select_exactly, options, scoring, inputs=inputs) if exact else None
            done = select_and_write(
                options, corpus, score_set, inputs, scored, wall_s, held, lineage, exactly
            )
            return committed(target, done, held).printed()


def score(options: ScoreOptions, specs: Specs = Specs()) -> SkippedShards:  # noqa: B008 - frozen
    """Scores a corpus, without the units that have scores; returns the shards left out."""
    score_set, corpus = scored(options, specs)
    units = count_units(score_set.units(corpus))
    print_scores_summary(score_set.pieces, corpus.rows, units, corpus.skipped)
    return corpus.skipped


def scored(options: ScoreOptions, specs: Specs) -> tuple[ScoreSet, Corpus]:
    """Scores a corpus as `score` does, and prints nothing of the result."""
    wall_s: WallTimes = {}
    with stoppable():
        planned = _plan(options, options.scores, None, wall_s)
        scoring, corpus = _prepare(options, planned, specs, wall_s)
        score_set = scoring.score_set
        _check_shared(options, corpus, score_set)
        with _lease_to_score(score_set, corpus, token_losses=options.token_losses):
            _keep_plan(planned, corpus, score_set)
            corpus, _ = _score(options, corpus, scoring, wall_s)
    return score_set, corpus


def select(options: SelectOptions, specs: Specs = Specs()) -> SkippedShards:  # noqa: B008 - frozen
    """Selects from existing scores and writes; loads no model but the encoder, if asked to."""
    return selected(options, specs).printed()


def selected(options: SelectOptions, specs: Specs) -> Done:
    """Selects and writes as `select` does, and prints nothing of the result."""
    wall_s: WallTimes = {}
    with stoppable():
        embedder = _embedder(options, specs)
        planned = _plan(options, options.scores, options.output, wall_s)
        score_set, corpus = _scored(options, planned)
        target = commit_target(options, corpus)
        inputs = _inputs(options, embedder, format_of(score_set))
        if done := done_before(options, corpus, score_set, inputs):
            return committed_before(options, target, done)
        _refuse_missing_scores(corpus, score_set)
        if options.rank_by == "s-ifd":
            _refuse_missing_token_losses(corpus, score_set)
        start_ray(options.ray_address)
        _check_shared(options, corpus, score_set, inputs)
        with Lineage() as lineage, lease(location_of(options, options.output)) as held:
            _try_rights(options)
            lineage.start(facts_of(options, corpus, planned.sample.rows, inputs.files))
            _keep_plan(planned, corpus, score_set)
            done = select_and_write(
                options, corpus, score_set, inputs, Scored(), wall_s, held, lineage
            )
            return committed(target, done, held)


def tokens_of_selection(options: SelectOptions, specs: Specs) -> int:
    """Tokens of prompt and answer of the rows that `select` would keep; writes no output."""
    with stoppable():
        embedder = _embedder(options, specs)
        planned = _plan(options, options.scores, None, {})
        score_set, corpus = _scored(options, planned)
        _refuse_missing_scores(corpus, score_set)
        start_ray(options.ray_address)
        inputs = _inputs(options, embedder, format_of(score_set))
        return tokens_of(select_rows(options, corpus, score_set, inputs))


def _scored(options: SelectOptions, planned: PlannedCorpus) -> tuple[ScoreSet, Corpus]:
    """The scores to select by, and the shards that can be used."""
    check_columns(options, planned.corpus, planned.sample)
    score_set = find_score_set(planned.scores, options.scoring_id)
    corpus = usable_shards(options, planned.corpus, format_of(score_set))
    return score_set, without_bad(options, corpus, score_set)


def _plan(
    options: CorpusOptions, scores: str, output: str | None, wall_s: WallTimes
) -> PlannedCorpus:
    """Checks the places and lists the corpus."""
    check_places(options, scores, output)
    if output:
        refuse_if_held(location_of(options, output))
    scores_location = location_of(options, scores)
    corpus, known = list_corpus(options, scores_location, wall_s)
    keeps_names = isinstance(options, SelectionOptions) and (
        options.order == "input" and options.file_size is None
    )
    if output and keeps_names:
        data = Output(location_of(options, output)).data
        refuse_names(data, [shard.written_name for shard in corpus.shards])
    return PlannedCorpus(corpus, sample_of(scores_location, corpus), scores_location, known)


def _prepare(
    options: KeptScoresOptions, planned: PlannedCorpus, specs: Specs, wall_s: WallTimes
) -> tuple[Scoring, Corpus]:
    """Finds and checks all that decides the scores, and where they go; writes nothing.

    Returns:
        What decides the scores, and the corpus without the shards that cannot be used.
    """
    with timed("prepare", wall_s):
        encoding = find_encoding(options, planned.corpus, planned.sample, specs)
        corpus = usable_shards(options, planned.corpus, encoding.format)
        join_cluster(options, encoding)
        spec = scoring_spec_of(options, encoding, specs)
        score_set = score_set_of(planned.scores, spec.identity)
        corpus = without_bad(options, corpus, score_set)
        check_sample(options, corpus, planned.sample, encoding)
    engine = replace(spec.engine, token_losses=options.token_losses)
    return Scoring(spec.encoding, engine, score_set), corpus


def _lease_to_score(
    score_set: ScoreSet, corpus: Corpus, exact: bool = False, token_losses: bool = False
) -> AbstractContextManager[object]:
    """The lease on the scores, where any are to be made: whole ones serve many runs at once."""
    if exact or score_set.missing(score_set.units(corpus), token_losses):
        return lease(score_set.pieces)
    return nullcontext()


def _check_shared(
    options: CorpusOptions,
    corpus: Corpus,
    score_set: ScoreSet,
    inputs: SelectionInputs = SelectionInputs(),  # noqa: B008 - frozen
) -> None:
    """Refuses a local place that some node of the cluster does not see."""
    read, written = dict(corpus_files(corpus)), list[tuple[str, Location]]()
    if isinstance(options, ScoringOptions):
        read |= model_files("--model", options.model)
    if inputs.embedder is not None:
        read |= model_files("--encoder", inputs.embedder.model.name)
    for flag, every in (
        ("--exclude", inputs.excluded),
        ("--drop-overlap-with", inputs.overlap_with),
    ):
        for files in every:
            read |= corpus_files(files.corpus, flag)
    if isinstance(options, SelectionOptions):
        output = Output(location_of(options, options.output))
        written += [("OUTPUT", output.location), *within("OUTPUT", output.data, output.exports)]
    # Whoever only selects may have no right to write scores. Embeddings go beside them, and marks
    # of bad shards.
    writes = isinstance(options, ScoringOptions) or inputs.embedder is not None
    if writes or options.on_bad_shard == "skip":
        written += [("SCORES", score_set.location), *within("SCORES", score_set.pieces)]
    else:
        read |= score_files(score_set)
    check_shared(Places(read, written))


def _needs_float32(options: RunOptions, score_set: ScoreSet) -> bool:
    """Whether `--exact` has anything to do: only scores of another type differ from float32's."""
    needs = options.exact and score_set.identity["dtype"] != EXACT_DTYPE
    if options.exact and not needs:
        say(f"note: --exact has nothing to do: all scores are {EXACT_DTYPE}")
    return needs


def _inputs(
    options: SelectionOptions, embedder: EmbedderSpec | None, row_format: Format
) -> SelectionInputs:
    """Lists the files whose examples may not be kept."""
    return SelectionInputs(
        embedder,
        files_to_leave_out(options, row_format, "--exclude", options.exclude),
        files_to_leave_out(options, row_format, "--drop-overlap-with", options.drop_overlap_with),
    )


def _embedder(options: SelectionOptions, specs: Specs) -> EmbedderSpec | None:
    """Finds the embedder, where one is needed: a missing one must not be noticed after hours."""
    if options.compares_texts:
        require("minhash", "datasketch")
    needs = {
        "--diversify-to": options.diversify_to is not None,
        "--drop-near-duplicates": options.compares_embeddings,
    }
    if not any(needs.values()):
        return None
    require_library(next(flag for flag, is_needed in needs.items() if is_needed))
    own = model_storage_options(options)
    model = resolve_model(options.encoder, own)
    return specs.embedder(ModelSpec(options.encoder, model.fingerprint, own))


def _try_rights(options: SelectionOptions) -> None:
    """Tries the rights on what is written last, before the work that it is the result of."""
    output = Output(location_of(options, options.output))
    for folder in (output.data, *([output.exports] if options.export else [])):
        try_rights(folder)


def _keep_plan(planned: PlannedCorpus, corpus: Corpus, score_set: ScoreSet) -> None:
    """Keeps footers and sample beside the scores, so that the next run need not read them."""
    keep_footers(score_set.location, corpus, planned.known)
    keep_sample(score_set.location, planned.sample)


def _refuse_missing_scores(corpus: Corpus, score_set: ScoreSet) -> None:
    units = score_set.units(corpus)
    if missing := count_units(score_set.missing(units)):
        raise SfRayError(
            f"{score_set.pieces.public_uri}: {missing} of {count_units(units)} units of "
            f"{corpus.name} have no scores; finish them with `sf-ray score` first"
        )


def _refuse_missing_token_losses(corpus: Corpus, score_set: ScoreSet) -> None:
    units = score_set.units(corpus)
    if missing := score_set.missing(units, token_losses=True):
        shard, (unit, *_) = missing[0]
        raise SfRayError(
            f"{score_set.pieces.public_uri}: {count_units(missing)} of {count_units(units)} units "
            f"of {corpus.name} have no token losses, which --rank-by s-ifd needs, "
            f"e.g. rows {unit.start} to {unit.stop} of {printable(shard.file.relative)}; make them "
            "with the `sf-ray score` that made the scores, and --token-losses"
        )


def _score(
    options: ScoringOptions, corpus: Corpus, scoring: Scoring, wall_s: WallTimes
) -> tuple[Corpus, Scored]:
    """Scores the units that have no scores yet.

    Returns:
        The corpus without the shards that turned out to be bad, and what was scored.
    """
    score_set = scoring.score_set
    model = Location(options.model).public_uri
    describe(score_set, model)
    units = score_set.units(corpus)
    todo = scoring.missing(corpus)
    total, left = count_units(units), count_units(todo)
    say(
        f"format {scoring.encoding.format}, model {model}, "
        f"{score_set.identity['dtype']} on {scoring.engine.device}: {total:,} units, "
        f"{total - left:,} have scores, {left:,} to score"
    )
    if again := left - count_units(score_set.missing(units)):
        say(
            f"note: {again:,} of them have scores and no token losses: they are scored again for "
            "these, and their scores stay as they are"
        )
    scored = Scored()
    if todo:
        with timed("score", wall_s):
            corpus, scored = score_units(options, corpus, scoring, todo)
    # A unit that was lost on the way and scored again counts once, so this asks the corpus.
    return corpus, replace(scored, units=count_units(score_set.units(corpus)) - (total - left))
