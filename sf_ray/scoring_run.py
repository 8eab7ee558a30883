"""Scoring units on a cluster until they all have scores, whatever is lost on the way."""

from dataclasses import dataclass

from sf_ray.cluster import size_pool
from sf_ray.config import ScoringOptions
from sf_ray.console import duration, say
from sf_ray.errors import ClusterError, SfRayError
from sf_ray.examples import Format
from sf_ray.models import Model
from sf_ray.planning import Corpus
from sf_ray.progress import ScoringProgress
from sf_ray.rubbish import check_bad_fraction
from sf_ray.rules import EncodeRules, EngineRules, ModelSpec
from sf_ray.score_sets import ScoreSet, ShardUnits, count_units
from sf_ray.stages import Job, scoring_dataset, write_pieces
from sf_ray.stopping import watched
from sf_ray.tally import Counts
from sf_ray.tasks import FRUITLESS
from sf_ray.units import group_reads, share_reads

# Units that travel in one bundle, at most, and bundles for each actor, at least, so that all actors
# are done at about the same time.
_UNITS_A_BUNDLE, _BUNDLES_AN_ACTOR = 64, 8
# Bundles that one task reads, one after another: Ray ends processes that idle, and a new one costs
# seconds.
_BUNDLES_A_READ = 4


@dataclass(frozen=True)
class Scoring:
    """All that decides the scores, and where they lie."""

    format: Format
    model: Model
    device: str
    score_set: ScoreSet


def score_units(
    options: ScoringOptions, corpus: Corpus, scoring: Scoring, todo: ShardUnits
) -> Corpus:
    """Scores units until every one has its piece.

    What Ray loses and cannot make good is planned again from what is committed, on the cluster as
    it is then: a piece that is there is never scored again.

    Args:
        options: Of the run.
        corpus: The corpus.
        scoring: What decides the scores.
        todo: Its units without scores.

    Returns:
        The corpus without the shards that could not be read to their end.

    Raises:
        ClusterError: Three times in a row nothing got done.
        SfRayError: What is wrong with a shard, with the model or with storage.
    """
    encode = EncodeRules(
        scoring.format, _model_spec(options, scoring), options.max_length, options.alignment
    )
    encode.check()
    fruitless = 0
    while True:
        before = count_units(todo)
        problem = ClusterError("some units have no scores after scoring")
        try:
            _score_once(options, corpus, scoring, encode, todo)
        except ClusterError as error:
            problem = error
        if options.on_bad_shard == "skip":
            known = corpus.skipped
            corpus = corpus.without(scoring.score_set.bad_shards())
            for shard in corpus.skipped:
                if shard not in known:
                    say(f"note: skipping shard {shard.relative}: {shard.reason}")
            if not corpus.shards:
                raise SfRayError(
                    f"{corpus.location.public_uri}: no shard can be read to its end, e.g. "
                    f"{corpus.skipped[0].relative}: {corpus.skipped[0].reason}"
                )
        todo = scoring.score_set.missing(scoring.score_set.units(corpus))
        if not todo:
            return corpus
        left = count_units(todo)
        fruitless = 0 if left < before else fruitless + 1
        if fruitless == FRUITLESS:
            raise problem
        say(f"note: {problem}; going on with the {left:,} units that have no scores")


def _model_spec(options: ScoringOptions, scoring: Scoring) -> ModelSpec:
    return ModelSpec(
        options.model,
        scoring.model.fingerprint,
        options.storage_options,
        options.trust_remote_code,
    )


def _score_once(
    options: ScoringOptions,
    corpus: Corpus,
    scoring: Scoring,
    encode: EncodeRules,
    todo: ShardUnits,
) -> None:
    dtype = scoring.score_set.identity["dtype"]
    units = count_units(todo)
    pool, threads = size_pool(
        scoring.device,
        units,
        options.actors,
        options.gpus_per_actor,
        options.cpus_per_actor,
        options.threads_per_actor,
    )
    units_a_bundle = max(1, min(_UNITS_A_BUNDLE, units // (pool.max_size * _BUNDLES_AN_ACTOR)))
    plans = [plan for shard, shard_units in todo for plan in group_reads(shard, shard_units)]
    job = Job(
        corpus.location,
        scoring.score_set.pieces,
        share_reads(plans, units_a_bundle * _BUNDLES_A_READ),
        units_a_bundle,
        options.on_bad_shard == "skip",
    )
    rows = sum(unit.rows for _, shard_units in todo for unit in shard_units)

    def check(counts: Counts) -> None:
        check_bad_fraction(
            corpus, scoring.format, counts.bad, counts.examples, options.max_bad_fraction
        )

    stalled = ClusterError(
        f"nothing has moved for {duration(options.stall_s)}: the cluster may lack what a scoring "
        "actor needs, an actor may wait for a node that is gone, or storage may hang; look at "
        "`ray status`, or raise --stall-s"
    )
    with ScoringProgress(rows, units, check) as progress:
        engine = EngineRules(
            _model_spec(options, scoring), scoring.device, dtype, options.token_budget, threads
        )
        scored = scoring_dataset(job, encode, engine, pool, progress.tally)
        with watched(lambda: progress.counts.signs_of_life, options.stall_s, stalled):
            write_pieces(scored, job.pieces, pool.write_cpus)
    check(progress.counts)
    if saved := progress.counts.tokens_saved:
        tokens = progress.counts.unit_tokens
        say(
            f"note: {saved:,} of {tokens:,} tokens ({saved / tokens:.1%}) repeat what other "
            "sequences of their unit begin with; they were computed once"
        )
    if splits := progress.counts.oom_splits:
        say(
            f"note: the device ran out of memory {splits} times; those batches were halved and "
            "scored; a lower --token-budget saves the tries"
        )
