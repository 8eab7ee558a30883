"""The whole job: plan, score, select, write, report. Every step may be repeated without harm."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from sf_ray.cluster import resolve_device, start_ray
from sf_ray.config import RunOptions, ScoreOptions, ScoringOptions, SelectionOptions, SelectOptions
from sf_ray.console import say, timed
from sf_ray.errors import BadShardError, SfRayError, UsageError
from sf_ray.examples import resolve_format
from sf_ray.footers import keep_footers, read_footers
from sf_ray.leases import lease, refuse_if_held
from sf_ray.locations import Location
from sf_ray.models import Model, context_window, resolve_dtype, resolve_model
from sf_ray.output import Output
from sf_ray.planning import Corpus, Footer, SkippedShard, check_text_columns, plan_corpus
from sf_ray.ranking import Ranking, rank
from sf_ray.report import manifest_of, print_manifest, print_scores_summary
from sf_ray.rubbish import check_bad_fraction
from sf_ray.score_sets import (
    ScoreSet,
    ShardUnits,
    count_units,
    describe,
    digest,
    find_score_set,
    mark_bad,
    score_set_of,
    share_shards,
)
from sf_ray.scoring_run import Scoring, score_units
from sf_ray.selection import Candidates, Cutoff, rows_to_keep
from sf_ray.stopping import stoppable
from sf_ray.storage import map_requests, overlap
from sf_ray.tasks import parallel_map
from sf_ray.units import Shard, Unit
from sf_ray.writing import WrittenShard, read_ifd, write_shard

# Small shards of one task that wait for storage together.
_WRITES_AT_ONCE = 8

WallTimes = dict[str, float]
Known = dict[str, Footer]
Skipped = tuple[SkippedShard, ...]


def run(options: RunOptions) -> Skipped:
    """Scores a corpus, selects the best rows and writes them; returns the shards left out."""
    wall_s: WallTimes = {}
    scores = options.scores or f"{options.output.rstrip('/')}/scores"
    output = _location(options, options.output)
    with stoppable():
        corpus, known = _plan(options, wall_s, scores, options.output)
        _check_ifd_column(corpus, options.ifd_column)
        scoring = _prepare(options, corpus, scores, wall_s)
        with lease(output), lease(scoring.score_set.pieces):
            corpus, scored = _score(options, corpus, known, scoring, wall_s)
            return _select(options, corpus, scoring.score_set, scored, wall_s).skipped


def score(options: ScoreOptions) -> Skipped:
    """Scores a corpus; units that have scores are not scored again."""
    wall_s: WallTimes = {}
    with stoppable():
        corpus, known = _plan(options, wall_s, options.scores)
        scoring = _prepare(options, corpus, options.scores, wall_s)
        score_set = scoring.score_set
        with lease(score_set.pieces):
            corpus, _ = _score(options, corpus, known, scoring, wall_s)
    print_scores_summary(
        score_set.pieces, corpus.rows, count_units(score_set.units(corpus)), corpus.skipped
    )
    return corpus.skipped


def select(options: SelectOptions) -> Skipped:
    """Selects from existing scores and writes; loads no model."""
    wall_s: WallTimes = {}
    with stoppable():
        corpus, known = _plan(options, wall_s, options.scores, options.output)
        _check_ifd_column(corpus, options.ifd_column)
        score_set = find_score_set(_location(options, options.scores), options.scoring_id)
        if options.on_bad_shard == "skip":
            corpus = corpus.without(score_set.bad_shards())
        units = score_set.units(corpus)
        if missing := count_units(score_set.missing(units)):
            raise SfRayError(
                f"{score_set.pieces.public_uri}: {missing} of {count_units(units)} units of "
                f"{corpus.location.public_uri} have no scores; finish them with `sf-ray score` "
                "first"
            )
        with lease(_location(options, options.output)):
            keep_footers(score_set.location, corpus, known)
            start_ray(options.ray_address)
            return _select(options, corpus, score_set, 0, wall_s).skipped


def _location(options: RunOptions | ScoreOptions | SelectOptions, uri: str) -> Location:
    return Location(uri, options.storage_options, options.storage_retry_s)


def _plan(
    options: RunOptions | ScoreOptions | SelectOptions,
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


def _check_ifd_column(corpus: Corpus, name: str) -> None:
    if name in corpus.schema.names:
        raise UsageError(
            f"the corpus has a column {name!r} already; name the added one with --ifd-column"
        )


def _prepare(options: ScoringOptions, corpus: Corpus, scores: str, wall_s: WallTimes) -> Scoring:
    """All that decides the scores, checked before anything is written."""
    with timed("prepare", wall_s):
        row_format = resolve_format(corpus.schema.names, options.format, options.columns)
        check_text_columns(corpus, row_format.columns.values())
        model = _resolve_model(options)
        start_ray(options.ray_address)
        device = resolve_device(options.device)
        identity = {
            "model": model.fingerprint,
            "format": row_format.name,
            "columns": dict(row_format.columns),
            "alignment": options.alignment,
            "max_length": options.max_length,
            "dtype": resolve_dtype(options.dtype, device),
            "unit_rows": options.unit_rows,
        }
        location = Location(scores, options.storage_options, options.storage_retry_s)
        score_set = score_set_of(location, identity)
        refuse_if_held(score_set.pieces)
    return Scoring(row_format, model, device, score_set)


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


def _score(
    options: ScoringOptions,
    corpus: Corpus,
    known: Known,
    scoring: Scoring,
    wall_s: WallTimes,
) -> tuple[Corpus, int]:
    """Scores what has no scores yet.

    Returns:
        The corpus without the shards that turned out to be bad, and how many units were scored.
    """
    score_set = scoring.score_set
    describe(score_set, Location(options.model).public_uri)
    keep_footers(score_set.location, corpus, known)
    if options.on_bad_shard == "skip":
        corpus = corpus.without(score_set.bad_shards())
    units = score_set.units(corpus)
    todo = score_set.missing(units)
    total, left = count_units(units), count_units(todo)
    say(
        f"format {scoring.format.name}, model {Location(options.model).public_uri}, "
        f"{score_set.identity['dtype']} on {scoring.device}: {total:,} units, "
        f"{total - left:,} have scores, {left:,} to score"
    )
    if todo:
        with timed("score", wall_s):
            corpus = score_units(options, corpus, scoring, todo)
    reused = total - left
    return corpus, count_units(score_set.units(corpus)) - reused


def _select(
    options: SelectionOptions, corpus: Corpus, score_set: ScoreSet, scored: int, wall_s: WallTimes
) -> Corpus:
    """Finds the cut-off, writes the filtered shards and, last of all, the manifest.

    Returns:
        The corpus without the shards that turned out to be bad.
    """
    location = Location(options.output, options.storage_options, options.storage_retry_s)
    output = Output(location)
    manifest = output.finished(_request_id(options, corpus, score_set))
    if manifest is not None:
        say("nothing to do: the output is there, whole, and of this very request")
        print_manifest(manifest, location)
        return corpus
    while True:
        with timed("select", wall_s):
            ranking = _rank(options, corpus, score_set)
        with timed("write", wall_s):
            output.begin(shard.file.relative for shard in corpus.shards)
            write = functools.partial(
                _write,
                corpus.location,
                score_set.pieces,
                ranking.cutoff,
                output.data,
                options.ifd_column,
                options.on_bad_shard == "skip",
            )
            tasks = share_shards(score_set.units(corpus))
            done = parallel_map(write, tasks, options.stall_s)
            written = [shard for shards in done for shard in shards]
        if len(written) == len(corpus.shards):
            break
        known, corpus = corpus.skipped, corpus.without(score_set.bad_shards())
        for shard in corpus.skipped:
            if shard not in known:
                say(f"note: skipping shard {shard.relative}: {shard.reason}; selecting again")
    manifest = manifest_of(
        request_id=_request_id(options, corpus, score_set),
        corpus=corpus,
        score_set=score_set,
        scored=scored,
        options=options,
        ranking=ranking,
        written=written,
        wall_s=wall_s,
    )
    output.finish(manifest)
    print_manifest(manifest, location)
    return corpus


def _request_id(options: SelectionOptions, corpus: Corpus, score_set: ScoreSet) -> str:
    asked: dict[str, Any] = options.model_dump(
        include={"keep_fraction", "keep_count", "min_ifd", "max_ifd", "ifd_column"}
    )
    return digest([corpus.fingerprint, score_set.scoring_id, asked])


def _rank(options: SelectionOptions, corpus: Corpus, score_set: ScoreSet) -> Ranking:
    wanted = rows_to_keep(corpus.rows, options.keep_fraction, options.keep_count)
    candidates = Candidates.between(options.min_ifd, options.max_ifd, corpus.rows)
    units = score_set.units(corpus)
    ranking = rank(score_set.pieces, units, candidates, wanted, options.stall_s)
    identity = score_set.identity
    row_format = resolve_format(corpus.schema.names, identity["format"], identity["columns"])
    check_bad_fraction(
        corpus, row_format, ranking.status_counts, ranking.bad, options.max_bad_fraction
    )
    return ranking


def _write(
    corpus: Location,
    scores: Location,
    cutoff: Cutoff | None,
    data: Location,
    ifd_column: str,
    skip_bad: bool,
    shards: ShardUnits,
) -> list[WrittenShard]:
    """Writes some filtered shards; a bad one is left out, which a mark then says."""

    def write(place: tuple[Shard, Sequence[Unit]]) -> WrittenShard | None:
        shard, units = place
        pieces = list(read_ifd(scores, [(shard, unit) for unit in units]))
        ifd = np.concatenate(pieces) if pieces else np.empty(0)
        try:
            return write_shard(corpus, shard, ifd, cutoff, data, ifd_column)
        except BadShardError as error:
            if not skip_bad:
                raise
            mark_bad(scores, shard.stem, error.reason)
            return None

    return [shard for shard in map_requests(data, write, shards, _WRITES_AT_ONCE) if shard]
