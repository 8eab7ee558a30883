"""Scores units on a cluster until every one has its piece, whatever is lost on the way.

    UnitSource (CPU tasks)  ->  ScoreUnits (actors)  ->  PieceSink (CPU tasks)
    read, render, encode        the model                put pieces

Between the stages travel bundles of whole units.
"""

import gc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray
import ray.data

from sf_ray.config.options import ScoringOptions
from sf_ray.corpus.planning import Corpus, say_skipped
from sf_ray.corpus.units import Place, group_reads, share_reads
from sf_ray.encoding.specs import EncodingSpec
from sf_ray.errors import ClusterError, SfRayError
from sf_ray.runtime.actor_pool import ActorPool
from sf_ray.runtime.log import duration, say
from sf_ray.runtime.metrics import count_retries
from sf_ray.runtime.signals import watched
from sf_ray.runtime.tasks import set_context, until_done, user_errors
from sf_ray.scoring.bad_rows import check_bad_fraction
from sf_ray.scoring.engine_spec import EngineSpec
from sf_ray.scoring.partial_sets import RowSet
from sf_ray.scoring.score_set import ScoreSet, ShardUnits, count_units
from sf_ray.scoring.stages.actor import ScoreUnits
from sf_ray.scoring.stages.progress import RunMetrics, ScoringProgress
from sf_ray.scoring.stages.sink import PieceSink, refuse_unseen
from sf_ray.scoring.stages.source import ScoringJob, UnitSource
from sf_ray.scoring.stages.tally import RunCounts, Scored
from sf_ray.storage.location import Location
from sf_ray.text.printable import printable

# Units that travel in one bundle, at most.
_UNITS_A_BUNDLE = 64
# Bundles for each actor, at least, so that all actors are done at about the same time.
_BUNDLES_AN_ACTOR = 8
# Bundles that one task reads, one after another, at most. Ray ends processes that idle, and to
# start a new one takes seconds.
_BUNDLES_A_READ = 4


@dataclass(frozen=True)
class Scoring:
    """Everything that decides the scores, and where they lie.

    Attributes:
        encoding: How rows become token ids.
        engine: How actors hold the model.
        score_set: The identity, and the place of the pieces.
        rows: The rows that are to have scores; None for all rows of the corpus.
    """

    encoding: EncodingSpec
    engine: EngineSpec
    score_set: ScoreSet
    rows: RowSet | None = None

    def missing(self, corpus: Corpus) -> ShardUnits:
        """The units with rows that are to have scores, and without all of their files."""
        units = self.score_set.units(corpus)
        return self.score_set.missing(
            units if self.rows is None else self.rows.units(units), self.engine.token_losses
        )

    def count_rows(self, units: ShardUnits) -> int:
        """Rows of some units that are to have scores."""
        places = [Place(shard, unit) for shard, shard_units in units for unit in shard_units]
        if self.rows is not None:
            return self.rows.count(places)
        return sum(unit.rows for _, unit in places)


def score_units(
    options: ScoringOptions, corpus: Corpus, scoring: Scoring, todo: ShardUnits
) -> tuple[Corpus, Scored]:
    """Scores units until every one has its piece.

    What Ray loses and cannot make good is planned again from the pieces that are committed, on the
    cluster as it is then. A unit whose piece is committed is never scored again.

    Args:
        options: Options of the run.
        corpus: The corpus.
        scoring: What decides the scores.
        todo: Units of the corpus without scores.

    Returns:
        The corpus without the shards that could not be read to their end, and what was scored.

    Raises:
        ClusterError: Three attempts in a row scored no unit.
        SfRayError: Something is wrong with a shard, with the model or with storage.
    """
    metrics = RunMetrics(
        printable(Location(options.model).public_uri),
        printable(corpus.name),
        scoring.count_rows(todo),
        count_units(todo),
    )
    attempts: list[ScoringProgress] = []
    nodes: dict[str, str] = {}

    def attempt(todo: ShardUnits) -> None:
        nodes.update(_score_once(options, corpus, scoring, todo, attempts, metrics))

    def missing() -> ShardUnits:
        nonlocal corpus
        if options.on_bad_shard == "skip":
            corpus = _without_bad_shards(corpus, scoring.score_set)
        left = scoring.missing(corpus)
        refuse_unseen(scoring.score_set, left, nodes, scoring.engine.token_losses)
        return left

    def before_retry(units: int, problem: ClusterError) -> None:
        count_retries("scoring")
        say(
            f"note: {problem}; going on with the {units:,} units that have no scores",
            stage="score",
            units=units,
        )

    unfinished = "some units have no scores after scoring"
    until_done(todo, attempt, missing, count_units, before_retry, unfinished)
    return corpus, _scored([progress.counts for progress in attempts])


def _without_bad_shards(corpus: Corpus, score_set: ScoreSet) -> Corpus:
    """The corpus without the shards that are marked bad by now.

    Raises:
        SfRayError: No shard is left.
    """
    left = corpus.without(score_set.bad_shards())
    say_skipped(left.skipped, corpus.skipped, stage="score")
    if not left.shards:
        raise SfRayError(
            f"{corpus.name}: no shard can be read to its end, e.g. "
            f"{printable(left.skipped[0].relative)}: {left.skipped[0].reason}"
        )
    return left


def _scored(attempts: Sequence[RunCounts]) -> Scored:
    """Adds up the work of all attempts, and says how much was saved and where memory ran out."""
    scored = Scored(
        sum(counts.units for counts in attempts),
        sum(counts.unit_tokens for counts in attempts),
        sum(counts.tokens_saved for counts in attempts),
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
    if splits := sum(counts.oom_splits for counts in attempts):
        say(
            f"note: the device ran out of memory {splits} times; those batches were halved and "
            "scored; a lower --token-budget saves the tries",
            stage="score",
            oom_splits=splits,
        )
    return scored


def share_units(units: int, actors: int, cpus: int) -> tuple[int, int]:
    """Decides how many units travel together.

    Args:
        units: Units to score.
        actors: Actors that score them, at most.
        cpus: CPUs of the cluster.

    Returns:
        Units of one bundle, and bundles that one task reads: as few as give every CPU a task, where
        there are enough. A GPU that waited for two readers would not care how many cores idle.
    """
    units_a_bundle = max(1, min(_UNITS_A_BUNDLE, units // (actors * _BUNDLES_AN_ACTOR)))
    bundles = -(-units // units_a_bundle)
    return units_a_bundle, max(1, min(_BUNDLES_A_READ, bundles // cpus))


def _score_once(
    options: ScoringOptions,
    corpus: Corpus,
    scoring: Scoring,
    todo: ShardUnits,
    attempts: list[ScoringProgress],
    metrics: RunMetrics,
) -> dict[str, str]:
    """One attempt. Its progress joins `attempts` first: the work of a failed attempt counts too.

    Returns:
        Name of a piece -> address of the node that says it wrote the piece.
    """
    # Ray ends an actor when nothing refers to it any more. The actors of an attempt that was
    # stopped hang in the cycles of its traceback, and keep the CPUs that the new ones wait for.
    gc.collect()
    units = count_units(todo)
    pool = ActorPool.of(options, scoring.engine.device, units, options.actors)
    cpus = int(ray.cluster_resources().get("CPU", 1))
    units_a_bundle, bundles_a_read = share_units(units, pool.max_size, cpus)
    plans = [plan for shard, shard_units in todo for plan in group_reads(shard, shard_units)]
    job = ScoringJob(
        corpus.location,
        scoring.score_set.marks,
        share_reads(plans, units_a_bundle * bundles_a_read),
        units_a_bundle,
        options.on_bad_shard == "skip",
        options.on_bad_line == "skip",
        scoring.rows,
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
    with ScoringProgress(scoring.count_rows(todo), units, check, metrics) as progress:
        attempts.append(progress)
        engine = replace(scoring.engine, threads=pool.threads)
        pieces = scoring.score_set.pieces
        scored = scoring_dataset(job, pieces, scoring.encoding, engine, pool, progress.tally)
        with (
            watched(lambda: progress.counts.signs_of_life, options.stall_s, stalled),
            user_errors(),
        ):
            sink = PieceSink(pieces)
            scored.write_datasink(
                sink,
                ray_remote_args={"num_cpus": pool.write_cpus},
                # A task writes faster than an actor scores. More of them would each be a process of
                # their own, whose start takes as long as writing a million rows.
                concurrency=pool.max_size,
            )
    check(progress.counts)
    return sink.nodes


def scoring_dataset(
    job: ScoringJob,
    pieces: Location,
    encoding: EncodingSpec,
    engine: EngineSpec,
    pool: ActorPool,
    tally: Any,
) -> ray.data.Dataset:
    """The dataset of bundles of scored units; nothing runs until it is written to `pieces`."""
    set_context()
    return ray.data.read_datasource(
        UnitSource(job, encoding, tally),
        override_num_blocks=len(job.tasks),
        num_cpus=pool.read_cpus,
    ).map_batches(
        ScoreUnits, fn_constructor_args=(engine, pieces, tally), **pool.map_batches_options
    )
