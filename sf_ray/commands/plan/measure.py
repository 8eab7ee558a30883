"""How fast a scoring actor is on this cluster: one is started, and scores parts of some units.

Knows what an actor needs of the cluster, and neither corpus nor pieces.
"""

import itertools
from collections.abc import Iterator, Sequence
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from sf_ray.commands.model_actor import model_actor
from sf_ray.commands.plan.estimate import Measured, Timed
from sf_ray.encoding.encoded_table import sequences_of
from sf_ray.engine.flops import Work
from sf_ray.runtime.actor_pool import ActorPool
from sf_ray.runtime.log import duration, say
from sf_ray.scoring.engine_spec import EngineSpec

if TYPE_CHECKING:
    from sf_ray.scoring.unit_scorer import UnitScorer

# The first rows tell how many fit into the time: as many as take this share of it.
_TRIAL_SHARE, _TRIAL_ROWS = 1 / 16, 4
# Parts that are timed, at least, where there are rows enough: from how they differ follows how
# sure the rate is. Where units are done sooner than the time, they are scored again.
_PARTS, _ROUNDS = 6, 4


def _measured(
    scorer: "UnitScorer", seconds: float, *units: pa.Table
) -> tuple[list[Timed], list[Work]]:
    """Scores parts of encoded units for about so many seconds.

    Args:
        scorer: The model.
        seconds: How long.
        units: Each at least one row.

    Returns:
        The parts, and what the engine would compute for each whole unit.
    """
    works = [scorer.work(unit) for unit in units]
    pools = list(_pools(units))
    end = perf_counter() + seconds
    rows, taken_s = _trial(scorer, pools[0], seconds * _TRIAL_SHARE)
    parts: list[pa.Table] = []
    times: list[float] = []
    for pool in pools:
        for_this_s = (end - perf_counter()) / (len(pools) - len(parts))
        parts.append(pool.slice(0, max(1, int(rows / taken_s * for_this_s))))
        times.append(_seconds(scorer, parts[-1]))
        rows, taken_s = rows + parts[-1].num_rows, taken_s + times[-1]
    rounds = 1
    while rounds < _ROUNDS and perf_counter() + sum(times) / rounds < end:
        again = [_seconds(scorer, part) for part in parts]
        times = [past + taken for past, taken in zip(times, again, strict=True)]
        rounds += 1
    timed = [
        Timed(part.num_rows, taken / rounds, Work.plain(sequences_of(part)), scorer.work(part))
        for part, taken in zip(parts, times, strict=True)
    ]
    return timed, works


def _trial(scorer: "UnitScorer", pool: pa.Table, enough_s: float) -> tuple[int, float]:
    """Warms up; returns some rows, and the seconds that they took."""
    rows = _TRIAL_ROWS
    while True:
        part = pool.slice(0, rows)
        taken_s = _seconds(scorer, part)
        if taken_s >= enough_s or rows >= pool.num_rows:
            return part.num_rows, taken_s
        rows *= 2


def _seconds(scorer: "UnitScorer", part: pa.Table) -> float:
    start = perf_counter()
    scorer.begin("", 0, part).result()
    return float(perf_counter() - start)


def _pools(units: Sequence[pa.Table]) -> Iterator[pa.Table]:
    """Where parts begin: of few units several, far from each other."""
    of_each = -(-_PARTS // len(units))
    for unit in units:
        count = min(of_each, unit.num_rows)
        edges = [unit.num_rows * i // count for i in range(count + 1)]
        for start, stop in itertools.pairwise(edges):
            yield unit.slice(start, stop - start)


def measure(
    rules: EngineSpec,
    pool: ActorPool,
    units: Sequence[tuple[Work, Any]],
    of_units: int,
    seconds: float,
    stall_s: float,
) -> Measured:
    """Measures one actor.

    Args:
        rules: How it holds the model.
        pool: What Ray reserves for it.
        units: Work by the plain method, and a reference to the encoded rows, of some units.
        of_units: How many there are.
        seconds: How long it scores for.
        stall_s: How long to wait for it to start.

    Raises:
        ClusterError: It does not start, or is lost.
        SfRayError: The model cannot be loaded.
    """
    asked = monotonic()
    instead = ", or give a speed with --tokens-per-s"
    with model_actor(rules, pool, stall_s, instead) as actor:
        start_s = monotonic() - asked
        for note in actor.notes:
            say(f"note: {note}")
        say(f"measuring for about {duration(seconds)}")
        timed, computed = actor.call(_measured, seconds, *(encoded for _, encoded in units))
    plain = [work for work, _ in units]
    return Measured(start_s, timed, list(zip(plain, computed, strict=True)), of_units)
