"""The whole job: plan, score, select, write, report. Every step may be repeated without harm."""

import functools
from collections.abc import Sequence

import numpy as np

from sf_ray.cluster import resolve_device, size_pool, start_ray
from sf_ray.config import RunOptions, ScoreOptions, ScoringOptions, SelectionOptions, SelectOptions
from sf_ray.console import say, timed
from sf_ray.encoding import Encoder
from sf_ray.errors import SfRayError, UsageError
from sf_ray.examples import Format, resolve_format
from sf_ray.models import Model, context_window, load_tokenizer, resolve_model
from sf_ray.output import Output
from sf_ray.planning import Corpus, Shard, Unit, check_text_columns, group_reads, plan_corpus
from sf_ray.progress import ScoringProgress
from sf_ray.ranking import rank
from sf_ray.report import manifest_of, print_manifest, print_scores_summary
from sf_ray.score_sets import (
    ScoreSet,
    ShardUnits,
    count_units,
    create_score_set,
    digest,
    find_score_set,
)
from sf_ray.selection import Candidates, Cutoff, rows_to_keep
from sf_ray.stages import (
    EncodeRules,
    EngineRules,
    ModelSpec,
    parallel_map,
    scoring_dataset,
    write_pieces,
)
from sf_ray.storage import Location, overlap
from sf_ray.writing import WrittenShard, read_scores, write_shard

WallTimes = dict[str, float]


def run(options: RunOptions) -> None:
    """Scores a corpus, selects the best rows and writes them."""
    wall_s: WallTimes = {}
    corpus = _plan(options, wall_s, options.output, options.scores)
    _check_ifd_column(corpus, options.ifd_column)
    scores = options.scores or f"{options.output.rstrip('/')}/scores"
    score_set, scored = _score(options, corpus, scores, wall_s)
    _select(options, corpus, score_set, scored, wall_s)


def score(options: ScoreOptions) -> None:
    """Scores a corpus; units that have scores are not scored again."""
    wall_s: WallTimes = {}
    corpus = _plan(options, wall_s, options.scores)
    score_set, _ = _score(options, corpus, options.scores, wall_s)
    print_scores_summary(score_set.pieces, corpus.rows, count_units(score_set.units(corpus)))


def select(options: SelectOptions) -> None:
    """Selects from existing scores and writes; loads no model."""
    wall_s: WallTimes = {}
    corpus = _plan(options, wall_s, options.output, options.scores)
    _check_ifd_column(corpus, options.ifd_column)
    location = Location(options.scores, options.storage_options)
    score_set = find_score_set(location, options.scoring_id)
    units = score_set.units(corpus)
    if missing := count_units(score_set.missing(units)):
        raise SfRayError(
            f"{score_set.pieces.public_uri}: {missing} of {count_units(units)} units of "
            f"{corpus.location.public_uri} have no scores; finish them with `sf-ray score` first"
        )
    start_ray(options.ray_address)
    _select(options, corpus, score_set, 0, wall_s)


def _plan(
    options: RunOptions | ScoreOptions | SelectOptions, wall_s: WallTimes, *others: str | None
) -> Corpus:
    location = Location(options.input, options.storage_options)
    for other in filter(None, others):
        if overlap(location, Location(other, options.storage_options)):
            raise UsageError(
                f"INPUT {location.public_uri} and {Location(other).public_uri} lie inside each "
                "other; the input is never written to: choose another place for the output"
            )
    if isinstance(options, SelectionOptions) and options.scores:
        data = Output(Location(options.output, options.storage_options)).data
        if overlap(data, Location(options.scores, options.storage_options)):
            raise UsageError(
                f"--scores {Location(options.scores).public_uri} lies in {data.public_uri}, where "
                "only filtered shards go: choose another place for the scores"
            )
    with timed("plan", wall_s):
        corpus = plan_corpus(location)
        size_mb = corpus.bytes / 1e6
        say(f"plan: {len(corpus.shards):,} shards, {corpus.rows:,} rows, {size_mb:,.1f} MB")
    return corpus


def _check_ifd_column(corpus: Corpus, name: str) -> None:
    if name in corpus.schema.names:
        raise UsageError(
            f"the corpus has a column {name!r} already; name the added one with --ifd-column"
        )


def _score(
    options: ScoringOptions, corpus: Corpus, scores: str, wall_s: WallTimes
) -> tuple[ScoreSet, int]:
    """Scores what has no scores yet; returns the set, and how many units were scored now."""
    with timed("prepare", wall_s):
        row_format = resolve_format(corpus.schema.names, options.format, options.columns)
        check_text_columns(corpus, row_format.columns.values())
        model = _resolve_model(options)
        start_ray(options.ray_address)
        device = resolve_device(options.device)
        location = Location(scores, options.storage_options)
        score_set = _score_set(options, row_format, model, device, location)
        units = score_set.units(corpus)
        todo = score_set.missing(units)
    total, left = count_units(units), count_units(todo)
    say(
        f"format {row_format.name}, model {Location(options.model).public_uri}, "
        f"{score_set.identity['dtype']} on {device}: {total:,} units, "
        f"{total - left:,} have scores, {left:,} to score"
    )
    if todo:
        with timed("score", wall_s):
            _score_units(options, corpus, row_format, model, device, score_set, todo)
    return score_set, left


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
    tokenizer = load_tokenizer(model, options.trust_remote_code)
    Encoder(tokenizer, options.max_length, options.alignment)  # says what it cannot work with
    return model


def _score_set(
    options: ScoringOptions, row_format: Format, model: Model, device: str, location: Location
) -> ScoreSet:
    # Not imported above: `sf-ray select` needs no torch.
    from sf_ray.engine import resolve_dtype

    identity = {
        "model": model.fingerprint,
        "format": row_format.name,
        "columns": dict(row_format.columns),
        "alignment": options.alignment,
        "max_length": options.max_length,
        "dtype": resolve_dtype(options.dtype, device),
        "unit_rows": options.unit_rows,
    }
    return create_score_set(location, identity, Location(options.model).public_uri)


def _score_units(
    options: ScoringOptions,
    corpus: Corpus,
    row_format: Format,
    model: Model,
    device: str,
    score_set: ScoreSet,
    todo: ShardUnits,
) -> None:
    spec = ModelSpec(
        options.model, model.fingerprint, options.storage_options, options.trust_remote_code
    )
    dtype = score_set.identity["dtype"]
    pool, threads = size_pool(
        device,
        count_units(todo),
        options.actors,
        options.gpus_per_actor,
        options.cpus_per_actor,
        options.threads_per_actor,
    )
    plans = [plan for shard, units in todo for plan in group_reads(shard, units)]
    rows = sum(unit.stop - unit.start for plan in plans for unit in plan.units)
    with ScoringProgress(rows, count_units(todo)) as progress:
        scored = scoring_dataset(
            corpus.location,
            plans,
            EncodeRules(row_format, spec, options.max_length, options.alignment),
            EngineRules(spec, device, dtype, options.token_budget, threads),
            pool,
            progress.tally,
        )
        write_pieces(scored, score_set.pieces)
        splits = progress.counts().oom_splits
    if splits:
        say(
            f"note: the device ran out of memory {splits} times; those batches were halved and "
            "scored; a lower --token-budget saves the tries"
        )
    if left := score_set.missing(todo):
        shard, units = left[0]
        raise SfRayError(
            f"{count_units(left)} units have no scores after scoring, e.g. rows from "
            f"{units[0].start} of {shard.file.relative}; run the same command again"
        )


def _select(
    options: SelectionOptions, corpus: Corpus, score_set: ScoreSet, scored: int, wall_s: WallTimes
) -> None:
    """Finds the cut-off, writes the filtered shards and, last of all, the manifest."""
    location = Location(options.output, options.storage_options)
    output = Output(location)
    asked = options.model_dump(
        include={"keep_fraction", "keep_count", "min_ifd", "max_ifd", "ifd_column"}
    )
    request_id = digest([corpus.fingerprint, score_set.scoring_id, asked])
    manifest = output.finished(request_id)
    if manifest is not None:
        say("nothing to do: the output is there, whole, and of this very request")
        print_manifest(manifest, location)
        return
    units = score_set.units(corpus)
    wanted = rows_to_keep(corpus.rows, options.keep_fraction, options.keep_count)
    candidates = Candidates.between(options.min_ifd, options.max_ifd, corpus.rows)
    with timed("select", wall_s):
        ranking = rank(score_set.pieces, units, candidates, wanted)
    with timed("write", wall_s):
        output.begin(shard.file.relative for shard in corpus.shards)
        write = functools.partial(
            _write,
            corpus.location,
            score_set.pieces,
            ranking.cutoff,
            output.data,
            options.ifd_column,
        )
        written = list(parallel_map(write, units))
    manifest = manifest_of(
        request_id=request_id,
        corpus=corpus,
        score_set=score_set,
        scored=scored,
        options=options,
        wanted=wanted,
        ranking=ranking,
        written=written,
        wall_s=wall_s,
    )
    output.finish(manifest)
    print_manifest(manifest, location)


def _write(
    corpus: Location,
    scores: Location,
    cutoff: Cutoff | None,
    data: Location,
    ifd_column: str,
    shard_units: tuple[Shard, Sequence[Unit]],
) -> WrittenShard:
    shard, units = shard_units
    pieces = [piece.ifd for piece in read_scores(scores, shard, units)]
    ifd = np.concatenate(pieces) if pieces else np.empty(0)
    return write_shard(corpus, shard, ifd, cutoff, data, ifd_column)
