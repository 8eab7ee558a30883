"""`sf-ray plan`: what scoring a corpus will take, before anything is written.

Joins what `drawing` counts and `measuring` measures with what is to be scored, and prints it.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from math import ceil

import ray
from rich.console import Console

from sf_ray.commands.plan.draw import Place, Reading, count_segments, encode_whole
from sf_ray.commands.plan.estimate import Drawn, Measured, PlannedActors, price
from sf_ray.commands.plan.measure import measure
from sf_ray.commands.plan.text import Plan, Setting, Whole, lines_of
from sf_ray.commands.setup import (
    ScoringSpec,
    Specs,
    check_places,
    find_encoding,
    join_cluster,
    list_corpus,
    location_of,
    scoring_spec_of,
    without_bad,
)
from sf_ray.config.options import PlanOptions
from sf_ray.corpus.plan_cache import sample_of
from sf_ray.corpus.planning import Corpus, SkippedShard
from sf_ray.corpus.status import BAD
from sf_ray.corpus.units import units_of
from sf_ray.engine.flops import cost_of_config
from sf_ray.errors import SfRayError
from sf_ray.runtime.actor_pool import ActorPool
from sf_ray.runtime.log import say
from sf_ray.runtime.signals import stoppable
from sf_ray.scoring.engine_spec import EngineSpec
from sf_ray.scoring.score_set import ShardUnits, count_units, score_set_of
from sf_ray.storage.location import Location

Skipped = tuple[SkippedShard, ...]


def plan(options: PlanOptions, specs: Specs = Specs()) -> Skipped:  # noqa: B008 - frozen
    """Says what scoring a corpus will take; returns the shards left out."""
    with stoppable():
        found, skipped = make_plan(options, specs)
    if options.json:
        print(json.dumps(found.as_json(), ensure_ascii=False))
    else:
        _print(found)
    return skipped


def make_plan(options: PlanOptions, specs: Specs) -> tuple[Plan, Skipped]:
    """All that a plan says, and the shards left out.

    Raises:
        SfRayError: As a run does; or no row that was drawn can be scored.
    """
    place = options.scores
    if place is None and options.output is not None:
        place = f"{options.output.rstrip('/')}/scores"
    check_places(options, place, options.output)
    scores = location_of(options, place) if place else None
    corpus, _ = list_corpus(options, scores, {})
    encoding = find_encoding(options, corpus, sample_of(scores, corpus), specs)
    join_cluster(options, encoding)
    spec = scoring_spec_of(options, encoding, specs)
    corpus, units, missing = _units(options, corpus, spec, scores)
    todo = [(shard, unit) for shard, shard_units in missing for unit in shard_units]
    whole = Whole(
        input=corpus.location.public_uri,
        shards=len(corpus.shards),
        skipped_shards=len(corpus.skipped),
        rows=corpus.rows,
        bytes=corpus.bytes,
        units=count_units(units),
        units_done=count_units(units) - len(todo),
        rows_to_do=sum(unit.rows for _, unit in todo),
    )
    if not todo:
        return Plan(whole), corpus.skipped
    reading = Reading(
        corpus.location,
        encoding.for_workers(),
        options.on_bad_shard == "skip",
        options.on_bad_line == "skip",
    )
    cost = cost_of_config(encoding.model.resolve().path, options.trust_remote_code)
    drawn = _draw(options, reading, todo)
    setting, actors = _setting(options, spec.engine, len(todo))
    speed = options.tokens_per_s or _measure(options, reading, todo, spec.engine, actors)
    found = price(drawn, cost, speed, setting.pool, options.price_per_hour)
    if needed := setting.missing_cpus(found):
        say(
            f"note: reading and encoding would need {needed:,.1f} CPUs more than this cluster has "
            "beside the actors; with no more, scoring takes longer than this plan says"
        )
    return Plan(whole, setting, drawn, speed, found), corpus.skipped


def _units(
    options: PlanOptions, corpus: Corpus, spec: ScoringSpec, scores: Location | None
) -> tuple[Corpus, ShardUnits, ShardUnits]:
    """The corpus without known bad shards, its units, and those without scores."""
    if scores is None:
        units = [(one, units_of(one.row_groups, options.unit_rows)) for one in corpus.shards]
        return corpus, units, units
    score_set = score_set_of(scores, spec.identity)
    corpus = without_bad(options, corpus, score_set)
    return corpus, score_set.units(corpus), score_set.missing(score_set.units(corpus))


def _draw(options: PlanOptions, reading: Reading, todo: Sequence[Place]) -> Drawn:
    """Rows of the units that are to be scored, counted."""
    stretches = count_segments(reading, todo, options.sample, options.seed, options.stall_s)
    drawn = Drawn(stretches, sum(unit.rows for _, unit in todo))
    statuses = ", ".join(f"{rows:,} {status}" for status, rows in drawn.statuses.items())
    if not any(counts.both.tokens for counts in stretches):
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


def _setting(options: PlanOptions, engine: EngineSpec, units: int) -> tuple[Setting, ActorPool]:
    """What a run over so many units would score with, on the cluster as it is now."""
    actors = ActorPool.of(options, engine.device, units, options.actors)
    cpus = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
    machines = actors.max_size * actors.num_gpus
    if not machines:
        of_a_node = int(min(filter(None, cpus), default=1) / actors.num_cpus)
        machines = ceil(actors.max_size / max(1, of_a_node))
    setting = Setting(
        model=Location(options.model).public_uri,
        dtype=engine.dtype,
        pool=PlannedActors(engine.device, actors.max_size, machines, units),
        cpus_beside=max(0.0, sum(cpus) - actors.max_size * actors.num_cpus),
    )
    return setting, actors


def _measure(
    options: PlanOptions,
    reading: Reading,
    todo: Sequence[Place],
    engine: EngineSpec,
    actors: ActorPool,
) -> Measured:
    """The speed of an actor on some of the units."""
    units = encode_whole(reading, todo, options.seed, options.stall_s)
    engine = replace(engine, threads=actors.threads)
    speed = units and measure(engine, actors, units, len(todo), options.measure_s, options.stall_s)
    if not speed or not any(one.computed.tokens for one in speed.timed):
        raise SfRayError(
            "none of the rows that an actor was to be measured on can be scored; take others with "
            "--seed, or give a speed with --tokens-per-s"
        )
    return speed


def _print(found: Plan) -> None:
    console = Console()
    lines = lines_of(found)
    width = max(len(name) for name, _ in lines)
    for name, text in lines:
        console.print(f"{name:{width}}  {text}", soft_wrap=True, highlight=False, markup=False)
