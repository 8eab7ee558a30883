"""The whole job: plan, score, select, write, report. Every step may be repeated without harm."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from sf_ray.cluster import resolve_device, start_ray
from sf_ray.config import (
    CorpusOptions,
    RunOptions,
    ScoreOptions,
    ScoringOptions,
    SelectionOptions,
    SelectOptions,
)
from sf_ray.console import say, timed
from sf_ray.embedding import require_library
from sf_ray.errors import SfRayError, UsageError
from sf_ray.footers import keep_footers, read_footers
from sf_ray.formats import resolve_format
from sf_ray.groups import find_column
from sf_ray.kinds import Kind
from sf_ray.leases import lease, refuse_if_held
from sf_ray.locations import Location
from sf_ray.models import (
    Model,
    chat_template,
    context_window,
    load_tokenizer,
    resolve_dtype,
    resolve_model,
)
from sf_ray.output import Output
from sf_ray.planning import Corpus, SkippedShard, check_text_columns, plan_corpus
from sf_ray.reading import field_names
from sf_ray.rules import EncodeRules, ModelSpec
from sf_ray.samples import Sample, keep_sample, sample_of
from sf_ray.score_sets import (
    ScoreSet,
    count_units,
    describe,
    find_score_set,
    score_set_of,
)
from sf_ray.scoring_run import Scored, Scoring, score_units
from sf_ray.selection_run import WallTimes, is_done, select_and_write
from sf_ray.stopping import stoppable
from sf_ray.storage import overlap, read_bytes
from sf_ray.templates import Template
from sf_ray.terminal import print_scores_summary
from sf_ray.units import Footer

Known = dict[str, Footer]
Skipped = tuple[SkippedShard, ...]


def run(options: RunOptions) -> Skipped:
    """Scores a corpus, selects the best rows and writes them; returns the shards left out."""
    wall_s: WallTimes = {}
    scores = options.scores or f"{options.output.rstrip('/')}/scores"
    output = _location(options, options.output)
    with stoppable():
        encoder = _encoder(options)
        corpus, known = _plan(options, wall_s, scores, options.output)
        sample = sample_of(_location(options, scores), corpus)
        _check_columns(corpus, field_names(corpus, sample.rows), options)
        scoring = _prepare(options, corpus, sample, scores, wall_s)
        score_set = scoring.score_set
        corpus = _without_bad(options, corpus, score_set)
        if is_done(options, corpus, score_set, encoder):
            return corpus.skipped
        with lease(output), lease(score_set.pieces):
            keep_sample(score_set.location, sample)
            corpus, scored = _score(options, corpus, known, scoring, wall_s)
            return select_and_write(options, corpus, score_set, encoder, scored, wall_s).skipped


def score(options: ScoreOptions) -> Skipped:
    """Scores a corpus; units that have scores are not scored again."""
    wall_s: WallTimes = {}
    with stoppable():
        corpus, known = _plan(options, wall_s, options.scores)
        sample = sample_of(_location(options, options.scores), corpus)
        scoring = _prepare(options, corpus, sample, options.scores, wall_s)
        score_set = scoring.score_set
        corpus = _without_bad(options, corpus, score_set)
        with lease(score_set.pieces):
            keep_sample(score_set.location, sample)
            corpus, _ = _score(options, corpus, known, scoring, wall_s)
    print_scores_summary(
        score_set.pieces, corpus.rows, count_units(score_set.units(corpus)), corpus.skipped
    )
    return corpus.skipped


def select(options: SelectOptions) -> Skipped:
    """Selects from existing scores and writes; loads no model, or only the encoder."""
    wall_s: WallTimes = {}
    with stoppable():
        encoder = _encoder(options)
        corpus, known = _plan(options, wall_s, options.scores, options.output)
        sample = sample_of(_location(options, options.scores), corpus)
        _check_columns(corpus, field_names(corpus, sample.rows), options)
        score_set = find_score_set(_location(options, options.scores), options.scoring_id)
        corpus = _without_bad(options, corpus, score_set)
        if is_done(options, corpus, score_set, encoder):
            return corpus.skipped
        units = score_set.units(corpus)
        if missing := count_units(score_set.missing(units)):
            raise SfRayError(
                f"{score_set.pieces.public_uri}: {missing} of {count_units(units)} units of "
                f"{corpus.location.public_uri} have no scores; finish them with `sf-ray score` "
                "first"
            )
        with lease(_location(options, options.output)):
            keep_footers(score_set.location, corpus, known)
            keep_sample(score_set.location, sample)
            start_ray(options.ray_address)
            return select_and_write(options, corpus, score_set, encoder, Scored(), wall_s).skipped


def _location(options: CorpusOptions, uri: str) -> Location:
    return Location(uri, options.storage_options, options.storage_retry_s)


def _plan(
    options: CorpusOptions,
    wall_s: WallTimes,
    scores: str,
    output: str | None = None,
) -> tuple[Corpus, Known]:
    location = _location(options, options.input)
    for other in filter(None, (output, scores)):
        if overlap(location, _location(options, other)):
            raise UsageError(
                f"INPUT {location.public_uri} and {Location(other).public_uri} lie inside each "
                "other; the input is never written to: choose another place for the output"
            )
    if output:
        data = Output(_location(options, output)).data
        if overlap(data, _location(options, scores)):
            raise UsageError(
                f"--scores {Location(scores).public_uri} lies in {data.public_uri}, where "
                "only filtered shards go: choose another place for the scores"
            )
        refuse_if_held(_location(options, output))
    with timed("plan", wall_s):
        known = read_footers(_location(options, scores))
        corpus = plan_corpus(location, known, options.on_bad_shard == "skip")
        size_mb = corpus.bytes / 1e6
        say(f"plan: {len(corpus.shards):,} shards, {corpus.rows:,} rows, {size_mb:,.1f} MB")
        for shard in corpus.skipped:
            say(f"note: skipping shard {shard.relative}: {shard.reason}")
    return corpus, known


def _check_columns(corpus: Corpus, names: Sequence[str], options: SelectionOptions) -> None:
    name = options.ifd_column
    if name in names:
        raise UsageError(
            f"the corpus has a column {name!r} already; name the added one with --ifd-column"
        )
    asked = {
        "--quota": options.quota.column if options.quota else None,
        "--report-by": options.report_by,
    }
    for flag, column in asked.items():
        if column is None:
            continue
        find_column(corpus.schema, column, flag)
        if corpus.kind is Kind.JSON and not {column, column.partition(".")[0]} & set(names):
            raise UsageError(
                f"{flag}: no row of a sample has the field {column!r}; they have {list(names)}"
            )


def _prepare(
    options: ScoringOptions,
    corpus: Corpus,
    sample: Sample,
    scores: str,
    wall_s: WallTimes,
) -> Scoring:
    """All that decides the scores, checked before anything is written."""
    with timed("prepare", wall_s):
        names = field_names(corpus, sample.rows)
        row_format = resolve_format(names, options.format, options.columns, sample.rows)
        if corpus.kind is Kind.JSON:  # a row may have an optional field that no sampled row has
            optional = {field: field for field in row_format.optional}
            row_format = replace(row_format, columns=optional | dict(row_format.columns))
        if not row_format.is_chat:
            check_text_columns(corpus, row_format.columns.values())
        model = _resolve_model(options)
        template = _template(options, model)
        encode = EncodeRules(
            row_format,
            ModelSpec(
                options.model,
                model.fingerprint,
                options.storage_options,
                options.trust_remote_code,
            ),
            options.max_length,
            options.alignment,
            template,
            options.turns,
        )
        with ThreadPoolExecutor(1) as threads:
            # Which imports for seconds, while Ray's processes start for seconds.
            checked = threads.submit(encode.check)
            start_ray(options.ray_address)
            checked.result()
        device = resolve_device(options.device)
        identity = {
            "model": model.fingerprint,
            "format": row_format.name,
            "columns": dict(row_format.columns),
            "template": template.identity,
            "turns": options.turns,
            "alignment": options.alignment,
            "max_length": options.max_length,
            "dtype": resolve_dtype(options.dtype, device),
            "unit_rows": options.unit_rows,
        }
        score_set = score_set_of(_location(options, scores), identity)
        refuse_if_held(score_set.pieces)
    return Scoring(encode, device, score_set)


def _template(options: ScoringOptions, model: Model) -> Template:
    name = options.template
    if name == "plain":
        return Template()
    if name == "chat":
        return Template(
            name, chat_template(model, load_tokenizer(model, options.trust_remote_code))
        )
    where = _location(options, name)
    try:
        return Template(where.public_uri, read_bytes(where).decode())
    except (SfRayError, UnicodeDecodeError) as error:
        raise UsageError(
            f"--template {where.public_uri}: cannot be read ({error}); give 'plain', 'chat' or a "
            "file with a Jinja template"
        ) from None


def _resolve_model(options: ScoringOptions) -> Model:
    """The model on the driver's node, which needs no more of it than its tokenizer and hash."""
    model = resolve_model(options.model, options.storage_options)
    window = context_window(model)
    if window is not None and options.max_length > window:
        raise UsageError(
            f"--max-length {options.max_length} exceeds the window of "
            f"{Location(options.model).public_uri}, {window} tokens; give --max-length {window} "
            "or less"
        )
    return model


def _encoder(options: SelectionOptions) -> ModelSpec | None:
    """The encoder, where one is needed: found before anything else costs hours."""
    if options.diversify_to is None:
        return None
    require_library()
    found = resolve_model(options.encoder, options.storage_options)
    return ModelSpec(options.encoder, found.fingerprint, options.storage_options)


def _score(
    options: ScoringOptions,
    corpus: Corpus,
    known: Known,
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
        f"format {scoring.encode.format}, model {Location(options.model).public_uri}, "
        f"{score_set.identity['dtype']} on {scoring.device}: {total:,} units, "
        f"{total - left:,} have scores, {left:,} to score"
    )
    scored = Scored()
    if todo:
        with timed("score", wall_s):
            corpus, scored = score_units(options, corpus, scoring, todo)
    # What was lost on the way and scored again counts once.
    return corpus, replace(scored, units=count_units(score_set.units(corpus)) - (total - left))


def _without_bad(options: CorpusOptions, corpus: Corpus, score_set: ScoreSet) -> Corpus:
    """The corpus without the shards that an earlier run could not read, where they are skipped."""
    return corpus.without(score_set.bad_shards()) if options.on_bad_shard == "skip" else corpus
