"""How the time for measuring is divided; a whole measurement is in test_command."""

from collections.abc import Sequence

import pyarrow as pa
import pytest

from sf_ray.commands.plan.measure import _measure, _pools, _trial
from sf_ray.encoding.encoded_table import _ENCODED_SCHEMA
from sf_ray.engine.flops import Work
from sf_ray.engine.pending import Pending, Usage


def unit_of(rows: int) -> pa.Table:
    """Encoded rows of one sequence each, of which the last token is scored."""
    columns = {
        "status": ["ok"] * rows,
        "ids": [[[1, 2, 3]]] * rows,
        "spans": [[[2, 3]]] * rows,
        "conditioned_tokens": [[1]] * rows,
        "direct_tokens": [[0]] * rows,
    }
    nothing = {name: pa.nulls(rows) for name in _ENCODED_SCHEMA.names if name not in columns}
    return pa.table(columns | nothing).select(_ENCODED_SCHEMA.names).cast(_ENCODED_SCHEMA)


class SteadyScorer:
    """Takes the same time for every row, on a clock of its own; computes half of the tokens."""

    def __init__(self, row_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
        self._row_s = row_s
        self.now_s = 0.0
        self.scored: list[int] = []
        monkeypatch.setattr("sf_ray.commands.plan.measure.perf_counter", lambda: self.now_s)

    def work(self, encoded: pa.Table) -> Work:
        return Work(encoded.num_rows)

    def begin(self, shard: str, start: int, encoded: pa.Table) -> Pending[None]:
        self.scored.append(encoded.num_rows)
        return Pending(lambda: self._pass(encoded.num_rows * self._row_s), Usage())

    def _pass(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.mark.parametrize(("sizes", "pools"), [([60], 6), ([60, 60], 6), ([9] * 6, 6), ([2], 2)])
def test_few_units_give_several_pools_that_cover_them(sizes: Sequence[int], pools: int) -> None:
    units = [unit_of(size) for size in sizes]
    found = list(_pools(units))
    assert len(found) == pools
    assert sum(pool.num_rows for pool in found) == sum(sizes)
    assert all(pool.num_rows for pool in found)


def test_a_trial_grows_until_it_takes_long_enough_or_rows_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scorer = SteadyScorer(0.002, monkeypatch)
    rows, seconds = _trial(scorer, unit_of(1000), 0.03)  # type: ignore[arg-type]
    assert scorer.scored == [4, 8, 16]
    assert (rows, seconds) == (16, pytest.approx(0.032))
    assert _trial(scorer, unit_of(6), 10)[0] == 6  # type: ignore[arg-type]


def test_every_pool_is_measured_within_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = SteadyScorer(0.001, monkeypatch)
    measurement = _measure(scorer, 6, unit_of(20_000), unit_of(20_000))  # type: ignore[arg-type]
    assert scorer.now_s == pytest.approx(6, rel=0.01)
    assert len(measurement.parts) == 6
    for part in measurement.parts:
        assert part.seconds == pytest.approx(part.rows * 0.001)
        assert part.work.plain == Work(2 * part.rows, part.rows, 2.0 * part.rows)
        assert part.work.computed == Work(part.rows)
    assert measurement.computed == [Work(20_000)] * 2


def test_parts_that_are_done_early_are_scored_again(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = SteadyScorer(0.002, monkeypatch)
    measurement = _measure(scorer, 5, unit_of(12))  # type: ignore[arg-type]
    assert [part.rows for part in measurement.parts] == [2] * 6
    assert scorer.scored == [2, *([2] * 6 * 4)]  # the trial, then four rounds
    assert all(part.seconds == pytest.approx(0.004) for part in measurement.parts)
