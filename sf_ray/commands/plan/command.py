"""`sf-ray plan`: what scoring a corpus will take, before anything is written.

Looks up which units have no scores, lets `draw` count some of their rows and `measure` time an
actor, and prints the estimate. Writes nothing.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import ray

from sf_ray.commands.locations import location_of
from sf_ray.commands.plan.draw import Reading, count_segments, encode_whole
from sf_ray.commands.plan.estimate import (
    DrawnRows,
    MeasuredSpeed,
    PlannedActors,
    estimate_scoring,
)
from sf_ray.commands.plan.measure import measure
from sf_ray.commands.plan.text import (
    CorpusProgress,
    Plan,
    PlannedScoring,
    ScoringSetting,
    lines_of,
)
from sf_ray.commands.setup import (
    ScoringSpec,
    Specs,
    check_places,
    find_encoding,
    join_cluster,
    list_corpus,
    scoring_spec_of,
    without_bad,
)
from sf_ray.commands.shared_places import Places, check_shared, corpus_files, model_files
from sf_ray.commands.usable import usable_shards
from sf_ray.config.options import PlanOptions
from sf_ray.corpus.plan_cache import sample_of
from sf_ray.corpus.planning import Corpus, SkippedShards
from sf_ray.corpus.status import BAD
from sf_ray.corpus.units import Place, units_of
from sf_ray.engine.flops import cost_of_config
from sf_ray.errors import SfRayError
from sf_ray.runtime.actor_pool import ActorPool
from sf_ray.runtime.console import SafeConsole, emit
from sf_ray.runtime.log import say
from sf_ray.runtime.signals import stoppable
from sf_ray.scoring.score_set import ShardUnits, count_units, score_set_of
from sf_ray.storage.location import Location
from sf_ray.text.printable import printable, printable_json


def plan(options: PlanOptions, specs: Specs = Specs()) -> SkippedShards:  # noqa: B008 - frozen
    """Says what scoring a corpus will take; returns the shards left out."""
    with stoppable():
        made, skipped = make_plan(options, specs)
    if options.json:
        emit(printable_json(json.dumps(made.as_json(), ensure_ascii=False)))
    else:
        _print(made)
    return skipped


def make_plan(options: PlanOptions, specs: Specs) -> tuple[Plan, SkippedShards]:
    """Makes the plan, and lists the shards left out.

    Raises:
        SfRayError: What would stop a run too; or no drawn row can be scored.
    """
    place = options.scores
    if place is None and options.output is not None:
        place = f"{options.output.rstrip('/')}/scores"
    check_places(options, place, options.output)
    scores = location_of(options, place) if place else None
    corpus, _ = list_corpus(options, scores, {})
    encoding = find_encoding(options, corpus, sample_of(scores, corpus), specs)
    corpus = usable_shards(options, corpus, encoding.format)
    join_cluster(options, encoding)
    spec = scoring_spec_of(options, encoding, specs)
    work = _work_to_do(options, corpus, spec, scores)
    if work.todo:
        check_shared(Places(corpus_files(work.corpus) | model_files("--model", options.model)))
    plan = Plan(work.progress, _plan_scoring(options, work, spec) if work.todo else None)
    return plan, work.corpus.skipped


class _WorkToDo(NamedTuple):
    """A corpus, and what of it has no scores.

    Attributes:
        corpus: Without the shards that an earlier run has marked bad.
        todo: The units without scores, in the order of the corpus.
        progress: How much that is.
    """

    corpus: Corpus
    todo: Sequence[Place]
    progress: CorpusProgress


def _work_to_do(
    options: PlanOptions, corpus: Corpus, spec: ScoringSpec, scores: Location | None
) -> _WorkToDo:
    units: ShardUnits
    missing: ShardUnits
    if scores is None:
        units = [(shard, units_of(shard.row_groups, options.unit_rows)) for shard in corpus.shards]
        missing = units
    else:
        score_set = score_set_of(scores, spec.identity)
        corpus = without_bad(options, corpus, score_set)
        units = score_set.units(corpus)
        missing = score_set.missing(units)
    todo = [Place(shard, unit) for shard, shard_units in missing for unit in shard_units]
    progress = CorpusProgress(
        input=corpus.name,
        shards=len(corpus.shards),
        skipped_shards=len(corpus.skipped),
        rows=corpus.rows,
        bytes=corpus.bytes,
        units=count_units(units),
        units_done=count_units(units) - len(todo),
        rows_to_do=sum(unit.rows for _, unit in todo),
    )
    return _WorkToDo(corpus, todo, progress)


def _plan_scoring(options: PlanOptions, work: _WorkToDo, spec: ScoringSpec) -> PlannedScoring:
    """Counts, measures and estimates the scoring of the units without scores."""
    encoding = spec.encoding
    reading = Reading(
        work.corpus.location,
        encoding.for_workers(),
        options.on_bad_shard == "skip",
        options.on_bad_line == "skip",
    )
    cost = cost_of_config(encoding.model.resolve().path, options.trust_remote_code)
    drawn = _draw(options, reading, work.todo)
    pool = ActorPool.of(options, spec.engine.device, len(work.todo), options.actors)
    setting = _setting(options, spec, pool, len(work.todo))
    speed = options.tokens_per_s or _measure(options, reading, work.todo, spec, pool)
    estimate = estimate_scoring(drawn, cost, speed, setting.actors, options.price_per_hour)
    scoring = PlannedScoring(setting, drawn, speed, estimate)
    if scoring.feeding and scoring.feeding.gpus_wait:
        say(
            f"note: {scoring.feeding}, and scoring takes longer than this plan says; add nodes "
            "with CPUs, or use fewer GPUs (--actors)"
        )
    return scoring


def _draw(options: PlanOptions, reading: Reading, todo: Sequence[Place]) -> DrawnRows:
    """Counts some rows of the units to be scored.

    Raises:
        SfRayError: No drawn row can be scored.
    """
    segments = count_segments(reading, todo, options.sample, options.seed, options.stall_s)
    drawn = DrawnRows(segments, sum(unit.rows for _, unit in todo))
    statuses = ", ".join(f"{rows:,} {status}" for status, rows in drawn.statuses.items())
    if not any(segment.both.tokens for segment in segments):
        raise SfRayError(
            f"none of {drawn.rows:,} sampled rows can be scored"
            + (f": {statuses}" if statuses else ", as their shards cannot be read")
            + "; look at --format, --columns and --max-length, or sample others with --seed"
        )
    bad = sum(rows for status, rows in drawn.statuses.items() if status in BAD)
    if bad > options.max_bad_fraction * drawn.rows:
        say(
            f"note: {bad / drawn.rows:.1%} of the sampled rows cannot be used ({statuses}); a run "
            f"stops where that holds for more than {options.max_bad_fraction:.1%} of all "
            "(--max-bad-fraction)"
        )
    return drawn


def _setting(
    options: PlanOptions, spec: ScoringSpec, pool: ActorPool, units: int
) -> ScoringSetting:
    """What a run would score with, on the cluster as it is now."""
    node_cpus = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
    # Without GPUs nodes are paid for, and a large one has room for several actors.
    machines = pool.max_size * pool.num_gpus or pool.count_nodes(node_cpus)
    return ScoringSetting(
        model=Location(options.model).public_uri,
        dtype=spec.engine.dtype,
        actors=PlannedActors(spec.engine.device, pool.max_size, machines, units),
        cpus_beside=max(0.0, sum(node_cpus) - pool.max_size * pool.num_cpus),
    )


def _measure(
    options: PlanOptions,
    reading: Reading,
    todo: Sequence[Place],
    spec: ScoringSpec,
    pool: ActorPool,
) -> MeasuredSpeed:
    """Measures the speed of an actor on some of the units to be scored.

    Raises:
        SfRayError: None of their rows can be scored.
    """
    units = encode_whole(reading, todo, options.seed, options.stall_s)
    engine = replace(spec.engine, threads=pool.threads)
    speed = units and measure(engine, pool, units, len(todo), options.measure_s, options.stall_s)
    if not speed or not any(part.work.computed.tokens for part in speed.parts):
        raise SfRayError(
            "none of the rows that an actor was to be measured on can be scored; take others with "
            "--seed, or give a speed with --tokens-per-s"
        )
    return speed


def _print(made: Plan) -> None:
    console = SafeConsole()
    lines = lines_of(made)
    width = max(len(line.name) for line in lines)
    for name, text in lines:
        console.print(f"{name:{width}}  {printable(text)}", soft_wrap=True)
