"""Scoring units on a cluster until they all have scores, whatever is lost on the way."""

import gc
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sf_ray.config.options import ScoringOptions
from sf_ray.corpus.planning import Corpus
from sf_ray.corpus.units import group_reads, share_reads
from sf_ray.encoding.specs import EncodingSpec
from sf_ray.errors import ClusterError, SfRayError
from sf_ray.runtime.actor_pool import ActorPool
from sf_ray.runtime.log import duration, say
from sf_ray.runtime.metrics import count_retries
from sf_ray.runtime.signals import watched
from sf_ray.runtime.tasks import Patience
from sf_ray.scoring.bad_rows import check_bad_fraction
from sf_ray.scoring.engine_spec import EngineSpec
from sf_ray.scoring.score_set import ScoreSet, ShardUnits, count_units
from sf_ray.scoring.stages.progress import RunMetrics, ScoringProgress
from sf_ray.scoring.stages.sink import scoring_dataset, write_pieces
from sf_ray.scoring.stages.source import ScoringJob
from sf_ray.scoring.stages.tally import RunCounts
from sf_ray.storage.location import Location

# Units that travel in one bundle, at most, and bundles for each actor, at least, so that all actors
# are done at about the same time.
_UNITS_A_BUNDLE, _BUNDLES_AN_ACTOR = 64, 8
# Bundles that one task reads, one after another: Ray ends processes that idle, and a new one costs
# seconds.
_BUNDLES_A_READ = 4


@dataclass(frozen=True)
class Scoring:
    """All that decides the scores, and where they lie."""

    encoding: EncodingSpec
    engine: EngineSpec
    score_set: ScoreSet


@dataclass(frozen=True)
class Scored:
    """What a run scored itself.

    Attributes:
        units: How many.
        tokens: Their tokens, in both passes.
        tokens_saved: Those of them that repeat others of their unit, and were not computed again.
    """

    units: int = 0
    tokens: int = 0
    tokens_saved: int = 0


def score_units(
    options: ScoringOptions, corpus: Corpus, scoring: Scoring, todo: ShardUnits
) -> tuple[Corpus, Scored]:
    """Scores units until every one has its piece.

    What Ray loses and cannot make good is planned again from what is committed, on the cluster as
    it is then: a piece that is there is never scored again.

    Args:
        options: Of the run.
        corpus: The corpus.
        scoring: What decides the scores.
        todo: Its units without scores.

    Returns:
        The corpus without the shards that could not be read to their end, and what was scored.

    Raises:
        ClusterError: Three times in a row nothing got done.
        SfRayError: What is wrong with a shard, with the model or with storage.
    """
    patience = Patience(count_units(todo))
    metrics = RunMetrics(
        Location(options.model).public_uri,
        corpus.location.public_uri,
        _count_rows(todo),
        count_units(todo),
    )
    tries: list[ScoringProgress] = []
    while True:
        problem = ClusterError("some units have no scores after scoring")
        try:
            _score_once(options, corpus, scoring, todo, tries, metrics)
        except ClusterError as error:
            problem = ClusterError(str(error))  # without its traceback, which holds the actors
        if options.on_bad_shard == "skip":
            known = corpus.skipped
            corpus = corpus.without(scoring.score_set.bad_shards())
            for shard in corpus.skipped:
                if shard not in known:
                    say(
                        f"note: skipping shard {shard.relative}: {shard.reason}",
                        stage="score",
                        shard=shard.relative,
                    )
            if not corpus.shards:
                raise SfRayError(
                    f"{corpus.location.public_uri}: no shard can be read to its end, e.g. "
                    f"{corpus.skipped[0].relative}: {corpus.skipped[0].reason}"
                )
        todo = scoring.score_set.missing(scoring.score_set.units(corpus))
        if not todo:
            return corpus, _scored([progress.counts for progress in tries])
        left = count_units(todo)
        patience.after_try(left, problem)
        count_retries("scoring")
        say(
            f"note: {problem}; going on with the {left:,} units that have no scores",
            stage="score",
            units=left,
        )


def _count_rows(units: ShardUnits) -> int:
    return sum(unit.rows for _, shard_units in units for unit in shard_units)


def _scored(tries: Sequence[RunCounts]) -> Scored:
    """Adds up, and says what is worth knowing."""
    scored = Scored(
        sum(counts.units for counts in tries),
        sum(counts.unit_tokens for counts in tries),
        sum(counts.tokens_saved for counts in tries),
    )
    if scored.tokens_saved:
        say(
            f"note: {scored.tokens_saved:,} of {scored.tokens:,} tokens "
            f"({scored.tokens_saved / scored.tokens:.1%}) repeat what other sequences of their "
            "unit begin with; they were computed once",
            stage="score",
            tokens=scored.tokens,
            tokens_saved=scored.tokens_saved,
        )
    if splits := sum(counts.oom_splits for counts in tries):
        say(
            f"note: the device ran out of memory {splits} times; those batches were halved and "
            "scored; a lower --token-budget saves the tries",
            stage="score",
            oom_splits=splits,
        )
    return scored


def _score_once(
    options: ScoringOptions,
    corpus: Corpus,
    scoring: Scoring,
    todo: ShardUnits,
    tries: list[ScoringProgress],
    metrics: RunMetrics,
) -> None:
    # Ray ends an actor when nobody holds it any more: those of an execution that was stopped hang
    # in the cycles of its traceback, and keep the CPUs that the new ones wait for.
    gc.collect()
    units = count_units(todo)
    pool = ActorPool.of(options, scoring.engine.device, units, options.actors)
    units_a_bundle = max(1, min(_UNITS_A_BUNDLE, units // (pool.max_size * _BUNDLES_AN_ACTOR)))
    plans = [plan for shard, shard_units in todo for plan in group_reads(shard, shard_units)]
    job = ScoringJob(
        corpus.location,
        scoring.score_set.pieces,
        share_reads(plans, units_a_bundle * _BUNDLES_A_READ),
        units_a_bundle,
        options.on_bad_shard == "skip",
        options.on_bad_line == "skip",
    )

    def check(counts: RunCounts) -> None:
        check_bad_fraction(
            corpus, scoring.encoding.format, counts.bad, counts.examples, options.max_bad_fraction
        )

    stalled = ClusterError(
        f"nothing has moved for {duration(options.stall_s)}: the cluster may lack what a scoring "
        "actor needs, an actor may wait for a node that is gone, or storage may hang; look at "
        "`ray status`, or raise --stall-s"
    )
    with ScoringProgress(_count_rows(todo), units, check, metrics) as progress:
        tries.append(progress)
        engine = replace(scoring.engine, threads=pool.threads)
        scored = scoring_dataset(job, scoring.encoding, engine, pool, progress.tally)
        with watched(lambda: progress.counts.signs_of_life, options.stall_s, stalled):
            write_pieces(scored, job.pieces, pool.write_cpus)
    check(progress.counts)
