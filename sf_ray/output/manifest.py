"""One run -> its manifest: what went in, what was asked, which model, what came out. No Ray."""

import bisect
from typing import Any

import sf_ray
from sf_ray.config.options import SelectionOptions
from sf_ray.corpus.planning import Corpus
from sf_ray.corpus.status import Status
from sf_ray.output.export_formats import Export
from sf_ray.output.layout import MANIFEST_VERSION
from sf_ray.output.shard_writer import WrittenShard
from sf_ray.runtime.log import run_id
from sf_ray.scoring.run import Scored
from sf_ray.scoring.score_set import ScoreSet, count_units, model_name
from sf_ray.selection.diversity.embedder import EmbedderSpec
from sf_ray.selection.diversity.partition import Diversified
from sf_ray.selection.ranking import GroupCutoff, Ranking
from sf_ray.storage.files import now_utc
from sf_ray.storage.location import Location


def manifest_of(
    *,
    request_id: str,
    command: str,
    corpus: Corpus,
    score_set: ScoreSet,
    scored: Scored,
    options: SelectionOptions,
    ranking: Ranking,
    dropped_duplicates: int | None,
    diversity: Diversified | None,
    embedder: EmbedderSpec | None,
    written: list[WrittenShard],
    exported: Export | None,
    wall_s: dict[str, float],
) -> dict[str, Any]:
    """What went in, what was asked, which model, what came out."""
    total = count_units(score_set.units(corpus))
    return {
        "manifest_version": MANIFEST_VERSION,
        "sf_ray_version": sf_ray.__version__,
        "run_id": run_id(),
        "request_id": request_id,
        "command": command,
        "finished": now_utc(),
        "wall_s": {stage: round(seconds, 3) for stage, seconds in wall_s.items()},
        "input": {
            "uri": corpus.location.public_uri,
            "fingerprint": corpus.fingerprint,
            "shards": len(corpus.shards),
            "rows": corpus.rows,
            "bytes": corpus.bytes,
            "skipped_shards": [
                {"path": shard.relative, "reason": shard.reason} for shard in corpus.skipped
            ],
        },
        "scores": {
            "uri": score_set.location.public_uri,
            "scoring_id": score_set.scoring_id,
            "model_name": model_name(score_set),
            "identity": score_set.identity,
            "units": {"total": total, "scored": scored.units, "reused": total - scored.units},
            "tokens": {"scored": scored.tokens, "saved": scored.tokens_saved},
        },
        "selection": _selection_of(options, corpus, ranking, dropped_duplicates)
        | _diversity_of(options, ranking, diversity, embedder),
        "status_counts": {
            status.value: ranking.status_counts.get(status.value, 0) for status in Status
        },
        "output": {
            "ifd_column": options.ifd_column,
            "shards": [
                {"path": shard.relative, "rows": shard.rows, "bytes": shard.bytes}
                for shard in sorted(written, key=lambda shard: shard.relative)
            ],
            "export": None
            if exported is None
            else {
                "name": exported.name,
                "left_out_rows": exported.left_out,
                "files": [
                    {"path": file.relative, "rows": file.rows, "bytes": file.bytes}
                    for file in exported.files
                ],
            },
        },
    }


def _selection_of(
    options: SelectionOptions, corpus: Corpus, ranking: Ranking, dropped_duplicates: int | None
) -> dict[str, Any]:
    """What was asked of the selection, and what it came to."""
    quota = options.quota
    return {
        "keep_fraction": options.keep_fraction,
        "keep_fraction_of": "all input rows",
        "keep_count": options.keep_count,
        "quota": None if quota is None else {quota.column: dict(quota.shares)},
        "min_ifd": options.min_ifd,
        "max_ifd": options.max_ifd,
        "min_prompt_tokens": options.min_prompt_tokens,
        "max_prompt_tokens": options.max_prompt_tokens,
        "min_answer_tokens": options.min_answer_tokens,
        "max_answer_tokens": options.max_answer_tokens,
        "dropped_duplicates": dropped_duplicates,
        "order": options.order,
        "wanted_rows": ranking.wanted,
        "eligible_rows": ranking.eligible,
        "cutoff": None if quota is not None else _cutoff(corpus, ranking.groups[0]),
        "groups": None
        if quota is None
        else {
            group.name: {
                "asked": quota.share(group.name),
                "rows": group.rows,
                "eligible": group.eligible,
                "wanted": group.wanted,
                "kept": group.kept,
                "cutoff": _cutoff(corpus, group),
            }
            for group in ranking.groups
        },
    }


def _diversity_of(
    options: SelectionOptions,
    ranking: Ranking,
    diversity: Diversified | None,
    embedder: EmbedderSpec | None,
) -> dict[str, Any]:
    """What was asked of `--diversify-to`, what it came to, and how many rows are kept after all."""
    if embedder is None:
        return {"diversity": None, "kept_rows": ranking.kept}
    asked = {
        "diversify_to": options.diversify_to,
        "encoder": Location(embedder.model.name).public_uri,
        "encoder_fingerprint": embedder.model.fingerprint,
        "of_rows": ranking.kept,
    }
    if diversity is None:  # no fewer rows were asked for than there are
        return {"diversity": asked, "kept_rows": ranking.kept}
    found = {
        "wanted_rows": diversity.wanted,
        "objective": diversity.objective,
        "mean_similarity": diversity.objective / ranking.kept,
        "is_exact": diversity.is_exact,
        "ratio_to_exact": diversity.ratio_to_exact,
    }
    return {"diversity": asked | found, "kept_rows": len(diversity.rows)}


def _cutoff(corpus: Corpus, group: GroupCutoff) -> dict[str, Any] | None:
    """The last row that a group keeps, as the manifest has it."""
    if group.cutoff is None:
        return None
    position = group.cutoff.position
    at = bisect.bisect_right(corpus.shards, position, key=lambda one: one.position) - 1
    shard = corpus.shards[at]
    return {
        "ifd": group.cutoff.ifd,
        "shard": shard.file.relative,
        "row": position - shard.position,
    }
