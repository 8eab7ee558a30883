"""How fast a scoring actor is on this cluster: one is started, and scores parts of some units.

Knows what an actor needs of the cluster, and neither corpus nor pieces.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import monotonic, perf_counter
from typing import TYPE_CHECKING

import pyarrow as pa

from sf_ray.commands.model_actor import model_actor
from sf_ray.commands.plan.draw import StoredUnit
from sf_ray.commands.plan.estimate import MeasuredSpeed, TimedPart, WorkSaved
from sf_ray.encoding.encoded_table import sequences_of
from sf_ray.engine.flops import Work
from sf_ray.runtime.actor_pool import ActorPool
from sf_ray.runtime.log import duration, say
from sf_ray.scoring.engine_spec import EngineSpec

if TYPE_CHECKING:
    from sf_ray.scoring.unit_scorer import UnitScorer

# A trial takes this share of the time, and shows how many rows fit into the rest. It begins with so
# few rows that they are soon done.
_TRIAL_SHARE, _TRIAL_ROWS = 1 / 16, 4
# The fewest parts that are timed: the interval of the rate follows from how parts differ. And the
# most rounds in which all parts are scored.
_PARTS, _ROUNDS = 6, 4


@dataclass(frozen=True)
class _Measurement:
    """What the actor sends back.

    Attributes:
        parts: The parts that it scored.
        computed: For each whole unit, the work that the engine would do.
    """

    parts: list[TimedPart]
    computed: list[Work]


def measure(
    engine: EngineSpec,
    pool: ActorPool,
    units: Sequence[StoredUnit],
    of_units: int,
    seconds: float,
    stall_s: float,
) -> MeasuredSpeed:
    """Measures the speed of one actor.

    Args:
        engine: How the actor holds the model.
        pool: What Ray reserves for the actor.
        units: Encoded units, each with at least one row.
        of_units: Number of units that they were drawn from.
        seconds: How long the actor scores.
        stall_s: Seconds to wait for the actor to start.

    Raises:
        ClusterError: The actor does not start, or is lost.
        SfRayError: The model cannot be loaded.
    """
    asked = monotonic()
    instead = ", or give a speed with --tokens-per-s"
    with model_actor(engine, pool, stall_s, instead) as actor:
        start_s = monotonic() - asked
        for note in actor.notes:
            say(f"note: {note}")
        say(f"measuring for about {duration(seconds)}")
        measurement = actor.call(_measure, seconds, *(unit.encoded for unit in units))
    whole_units = [
        WorkSaved(unit.plain, computed)
        for unit, computed in zip(units, measurement.computed, strict=True)
    ]
    read = [unit.read for unit in units]
    return MeasuredSpeed(start_s, measurement.parts, whole_units, of_units, read)


def _measure(scorer: "UnitScorer", seconds: float, *units: pa.Table) -> _Measurement:
    """Scores parts of encoded units for about `seconds`; runs in the actor.

    Each pool gets an equal share of the time that is left: a part is cut from it, with as many
    rows as fit at the rate so far. Where all parts are done before the time is over, they are
    scored again, and their times are averaged.
    """
    computed = [scorer.work(unit) for unit in units]
    pools = list(_pools(units))
    end = perf_counter() + seconds
    rows, rows_s = _trial(scorer, pools[0], seconds * _TRIAL_SHARE)
    parts: list[pa.Table] = []
    times_s: list[float] = []
    for pool in pools:
        share_s = (end - perf_counter()) / (len(pools) - len(parts))
        parts.append(pool.slice(0, max(1, int(rows / rows_s * share_s))))
        times_s.append(_scoring_s(scorer, parts[-1]))
        rows, rows_s = rows + parts[-1].num_rows, rows_s + times_s[-1]
    rounds = 1
    while rounds < _ROUNDS and perf_counter() + sum(times_s) / rounds < end:
        again_s = [_scoring_s(scorer, part) for part in parts]
        times_s = [past + now for past, now in zip(times_s, again_s, strict=True)]
        rounds += 1
    timed = [
        TimedPart(
            part.num_rows,
            time_s / rounds,
            WorkSaved(Work.plain(sequences_of(part)), scorer.work(part)),
        )
        for part, time_s in zip(parts, times_s, strict=True)
    ]
    return _Measurement(timed, computed)


def _trial(scorer: "UnitScorer", pool: pa.Table, enough_s: float) -> tuple[int, float]:
    """Warms up on more and more rows; returns the last number of rows, and their seconds."""
    rows = _TRIAL_ROWS
    while True:
        part = pool.slice(0, rows)
        taken_s = _scoring_s(scorer, part)
        if taken_s >= enough_s or rows >= pool.num_rows:
            return part.num_rows, taken_s
        rows *= 2


def _scoring_s(scorer: "UnitScorer", part: pa.Table) -> float:
    start = perf_counter()
    scorer.begin("", 0, part).result()
    return float(perf_counter() - start)


def _pools(units: Sequence[pa.Table]) -> Iterator[pa.Table]:
    """Cuts units into pools of which parts are taken: at least `_PARTS`, where rows suffice."""
    pools_a_unit = -(-_PARTS // len(units))
    for unit in units:
        count = min(pools_a_unit, unit.num_rows)
        edges = [unit.num_rows * i // count for i in range(count + 1)]
        for start, stop in itertools.pairwise(edges):
            yield unit.slice(start, stop - start)
