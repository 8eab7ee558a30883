"""A run -> its manifest. Plain records go in: this module does not know how they were computed."""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sf_ray
from sf_ray.config.quotas import Quota
from sf_ray.config.selection_options import SelectionOptions
from sf_ray.corpus.planning import Corpus
from sf_ray.corpus.status import Status
from sf_ray.output.export_formats import Export
from sf_ray.output.left_out import excluded_keys, near_keys, overlap_keys, place_of
from sf_ray.output.manifest import (
    MANIFEST_VERSION,
    Diversity,
    ExportedFiles,
    GroupResult,
    Input,
    InputTable,
    LastKept,
    Manifest,
    OutputFiles,
    SelectionResult,
    SelectiveIfdResult,
    SkippedInput,
    WrittenFile,
)
from sf_ray.output.manifest_scores import (
    ExactScores,
    Identity,
    LengthErrors,
    ScoredTokens,
    ScoredUnits,
    Scores,
)
from sf_ray.output.shard_writer import WrittenShard
from sf_ray.runtime.log import run_id
from sf_ray.scoring.score_set import ScoreSet, count_units, model_name
from sf_ray.scoring.stages.tally import Scored
from sf_ray.selection.cutoffs import Cutoff
from sf_ray.selection.diversity.partition import Diversified
from sf_ray.selection.exact.bands import SAFETY_FACTOR
from sf_ray.selection.exact.rescoring import EXACT_DTYPE, Rescoring
from sf_ray.selection.near.near_copies import NearCopies
from sf_ray.selection.near.overlaps import Overlaps
from sf_ray.selection.ranking import Ranking
from sf_ray.selection.selective_ifd import SelectedTokens
from sf_ray.storage.files import now_utc


@dataclass(frozen=True)
class RunRequest:
    """What a run was asked for.

    Attributes:
        request_id: Hash of all that decides what is written.
        command: A command line that makes the output again.
        options: Of the selection.
        encoder: Public name of the encoder; "" where none is needed.
        encoder_fingerprint: Hash of the encoder's files; "" where none is needed.
    """

    request_id: str
    command: str
    options: SelectionOptions
    encoder: str = ""
    encoder_fingerprint: str = ""


@dataclass(frozen=True)
class RunResult:
    """What a run has kept and written.

    Attributes:
        scored: The units that this run scored itself.
        rescoring: What `--exact` scored again; None where it had nothing to do.
        ranking: The cut-offs, and the counts that they were found by.
        dropped_duplicates: Copies of better rows; None where none were looked for.
        excluded: Files whose rows may not be kept.
        excluded_rows: Rows of the corpus that stand in them.
        diversity: The rows chosen among those that the cut-offs keep; None where all are kept.
        shards: Filtered shards; those without rows have no file.
        export: The exported files; None without `--export`.
        tokens: The tokens that count, where S-IFD ranks rows; else None.
        overlaps: Rows that share text with evaluation sets; None where there are no such sets.
        near: Near copies of better rows; None where none were looked for.
    """

    scored: Scored
    rescoring: Rescoring | None
    ranking: Ranking
    dropped_duplicates: int | None
    excluded: Sequence[Corpus]
    excluded_rows: int
    diversity: Diversified | None
    shards: Sequence[WrittenShard]
    export: Export | None
    tokens: SelectedTokens | None = None
    overlaps: Overlaps | None = None
    near: NearCopies | None = None


def manifest_of(
    request: RunRequest,
    corpus: Corpus,
    score_set: ScoreSet,
    result: RunResult,
    wall_s: Mapping[str, float],
) -> Manifest:
    """Fills the manifest of a run that ends now.

    Args:
        request: What was asked for.
        corpus: The corpus, without the shards that turned out to be bad.
        score_set: Scores of all of its units.
        result: What was kept and written.
        wall_s: Stage -> seconds.
    """
    status_counts = result.ranking.status_counts
    shards = sorted(result.shards, key=lambda shard: shard.relative)
    output = OutputFiles(
        ifd_column=request.options.ifd_column,
        shards=_files([shard for shard in shards if shard.rows]),
        export=_exported(result.export),
    )
    if empty := tuple(shard.relative for shard in shards if not shard.rows):
        output = output.model_copy(update={"empty_shards": empty})
    # Every key is given, also where its value is the default: only such keys are written.
    return Manifest(
        manifest_version=MANIFEST_VERSION,
        sf_ray_version=sf_ray.__version__,
        run_id=run_id(),
        request_id=request.request_id,
        command=request.command,
        finished=now_utc(),
        wall_s={stage: round(seconds, 3) for stage, seconds in wall_s.items()},
        input=_input(corpus),
        scores=_scores(corpus, score_set, result),
        selection=_selection(request, corpus, result),
        status_counts={status.value: status_counts.get(status.value, 0) for status in Status},
        output=output,
    )


def _input(corpus: Corpus) -> Input:
    filled = functools.partial(
        Input,
        uri=corpus.name,
        fingerprint=corpus.fingerprint,
        shards=len(corpus.shards),
        rows=corpus.rows,
        bytes=corpus.bytes,
        skipped_shards=tuple(
            SkippedInput(path=shard.relative, reason=shard.reason) for shard in corpus.skipped
        ),
    )
    table = corpus.table
    if table is None:
        return filled()  # a key that is not given is not written
    return filled(table=InputTable(format=table.format, snapshot=table.snapshot))


def _scores(corpus: Corpus, score_set: ScoreSet, result: RunResult) -> Scores:
    scored = result.scored
    total = count_units(score_set.units(corpus))
    scores = functools.partial(
        Scores,
        uri=score_set.location.public_uri,
        scoring_id=score_set.scoring_id,
        model_name=model_name(score_set),
        identity=Identity(**score_set.identity),
        units=ScoredUnits(total=total, scored=scored.units, reused=total - scored.units),
        tokens=ScoredTokens(scored=scored.tokens, saved=scored.tokens_saved),
    )
    # A key that is not given is not written.
    return scores() if result.rescoring is None else scores(exact=_exact(result.rescoring))


def _exact(rescoring: Rescoring) -> ExactScores:
    return ExactScores(
        scoring_id=rescoring.score_set.scoring_id,
        dtype=EXACT_DTYPE,
        sampled_rows=rescoring.sampled,
        rescored_rows=rescoring.rows,
        rounds=rescoring.rounds,
        safety_factor=SAFETY_FACTOR,
        errors=tuple(
            LengthErrors(
                most_answer_tokens=errors.most_answer_tokens,
                rows=errors.rows,
                median_error=errors.median_error,
                largest_error=errors.largest_error,
                band=errors.band,
            )
            for errors in rescoring.bands.lengths
            if errors is not None
        ),
    )


def _selection(request: RunRequest, corpus: Corpus, result: RunResult) -> SelectionResult:
    options, ranking, diversity = request.options, result.ranking, result.diversity
    quota = options.quota
    last_kept = functools.partial(_last_kept, options, corpus)
    return SelectionResult(
        keep_fraction=options.keep_fraction,
        keep_fraction_of="all input rows",
        keep_count=options.keep_count,
        quota=None if quota is None else {quota.column: dict(quota.shares)},
        min_ifd=options.min_ifd,
        max_ifd=options.kept_below if math.isfinite(options.kept_below) else None,
        min_prompt_tokens=options.min_prompt_tokens,
        max_prompt_tokens=options.max_prompt_tokens,
        min_answer_tokens=options.min_answer_tokens,
        max_answer_tokens=options.max_answer_tokens,
        dropped_duplicates=result.dropped_duplicates,
        **excluded_keys(result.excluded, result.excluded_rows),
        **overlap_keys(corpus, result.overlaps),
        **near_keys(options, result.near, request.encoder, request.encoder_fingerprint),
        **_arm(options),
        **_tokens(result),
        order=options.order,
        wanted_rows=ranking.wanted,
        eligible_rows=ranking.eligible,
        cutoff=None if quota is not None else last_kept(ranking.groups[0].cutoff),
        groups=None if quota is None else _groups(ranking, quota, last_kept),
        diversity=_diversity(request, ranking.kept, diversity),
        kept_rows=ranking.kept if diversity is None else len(diversity.rows),
    )


def _arm(options: SelectionOptions) -> dict[str, Any]:
    """The keys that say more than that the highest IFD is the best; none where it is."""
    keys: dict[str, Any] = {}
    if options.keep_tokens is not None:
        keys["keep_tokens"] = options.keep_tokens
    if (options.by, options.rank_by) != ("ifd", "ifd"):
        keys["by"] = options.by
        keys["rank_by"] = None if options.by in ("random", "longest") else options.rank_by
    if options.by in ("random", "length-matched"):
        keys["seed"] = options.seed
    return keys


def _tokens(result: RunResult) -> dict[str, Any]:
    """The key that says which tokens S-IFD looks at; none where it ranks no rows."""
    tokens = result.tokens
    if tokens is None:
        return {}
    return {
        "s_ifd": SelectiveIfdResult(
            token_share=tokens.share,
            tokens=tokens.tokens,
            threshold_nats=tokens.threshold_nats,
            rows_without=result.ranking.valueless,
        )
    }


def _groups(
    ranking: Ranking, quota: Quota, last_kept: Callable[[Cutoff | None], LastKept | None]
) -> dict[str, GroupResult]:
    return {
        group.name: GroupResult(
            asked=quota.share(group.name),
            rows=group.rows,
            eligible=group.eligible,
            wanted=group.wanted,
            kept=group.kept,
            cutoff=last_kept(group.cutoff),
        )
        for group in ranking.groups
    }


def _last_kept(options: SelectionOptions, corpus: Corpus, cutoff: Cutoff | None) -> LastKept | None:
    """Position in the corpus -> shard and row in it."""
    if cutoff is None:
        return None
    shard, row = place_of(corpus, cutoff.position)
    last = functools.partial(LastKept, shard=shard, row=row)
    # Where the lowest values are the best, rows are ranked by their negative.
    value = -cutoff.value if options.by == "ifd-low" else cutoff.value
    if options.rank_by == "ifd" and options.by in ("ifd", "ifd-low"):
        return last(ifd=value)
    return last(ifd=None, value=value)  # a key that is not given is not written


def _diversity(
    request: RunRequest, of_rows: int, diversity: Diversified | None
) -> Diversity | None:
    diversify_to = request.options.diversify_to
    if diversify_to is None:
        return None
    asked = functools.partial(
        Diversity,
        diversify_to=diversify_to,
        encoder=request.encoder,
        encoder_fingerprint=request.encoder_fingerprint,
        of_rows=of_rows,
    )
    if diversity is None:  # the cut-offs keep no more rows than were asked for
        return asked()
    return asked(
        wanted_rows=diversity.wanted,
        objective=diversity.objective,
        mean_similarity=diversity.objective / of_rows,
        is_exact=diversity.is_exact,
        ratio_to_exact=diversity.ratio_to_exact,
    )


def _exported(export: Export | None) -> ExportedFiles | None:
    if export is None:
        return None
    return ExportedFiles(
        name=export.name, left_out_rows=export.left_out, files=_files(export.files)
    )


def _files(files: Sequence[WrittenShard]) -> tuple[WrittenFile, ...]:
    return tuple(
        WrittenFile(path=file.relative, rows=file.rows, bytes=file.bytes) for file in files
    )
