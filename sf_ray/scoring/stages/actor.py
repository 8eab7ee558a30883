"""The second stage: Ray actors that hold the model score bundles of encoded units.

What an actor must remember beyond its own death, it asks of the `Tally`.
"""

import os
from collections.abc import Iterator, Sequence
from time import monotonic
from typing import Any, NamedTuple

import pyarrow as pa
import ray
import ray.data

from sf_ray.corpus.bundles import UnitRows, bundle_of, units_of_bundle
from sf_ray.encoding.encoded_table import without_rows
from sf_ray.engine.pending import Pending, one_ahead
from sf_ray.errors import EngineFailedError, SfRayError
from sf_ray.runtime.log import say
from sf_ray.scoring.engine_spec import EngineSpec
from sf_ray.scoring.score_set import files_of
from sf_ray.scoring.stages.failures import UnitState
from sf_ray.scoring.stages.tally import UnitCounts
from sf_ray.storage.files import is_there
from sf_ray.storage.location import Location
from sf_ray.text.printable import printable

# Starts of an actor that end before the model is loaded, after which the run fails.
_STARTS = 3
# Seconds to wait for an answer of the tally, which answers at once unless its node is busy.
_TALLY_S = 120.0
# Units that are scored within this many seconds are committed together.
_HOLD_S = 2.0
# Units that are scored within this many seconds are reported together.
_REPORT_S = 0.2


class _BegunUnit(NamedTuple):
    """A unit that is in work.

    Attributes:
        unit: With its encoded rows.
        state: How careful to be with it.
        pending: The score table that the engine works on; None where nothing was begun.
    """

    unit: UnitRows
    state: UnitState
    pending: Pending[pa.Table] | None


class ScoreUnits:
    """An actor that holds the model and scores units.

    Ray may start it, or hand it a bundle, again and again: the `Tally` remembers what was started
    before.
    """

    def __init__(self, engine: EngineSpec, pieces: Location, tally: Any) -> None:
        """
        Args:
            engine: The model, and how to hold it.
            pieces: The folder of the score pieces.
            tally: Handle of the `Tally` actor.

        Raises:
            SfRayError: The model cannot be loaded, or loading it ended the process three times.
        """
        self._pieces, self._tally = pieces, tally
        self._token_losses = engine.token_losses
        self._unreported: dict[str, UnitCounts] = {}
        self._reported_s = monotonic()
        context = ray.get_runtime_context()
        starts = self._ask("actor_starting", context.get_actor_id())
        if starts > _STARTS:
            raise SfRayError(
                f"a scoring actor died {_STARTS} times while it loaded the model, last on node "
                f"{ray.util.get_node_ip_address()}; most often memory ran out: use a smaller "
                "model, or fewer actors a node (--actors, --cpus-per-actor, --gpus-per-actor)"
            )
        self._scorer = engine.start()
        for note in self._scorer.notes:
            say(f"note: {note}", stage="score")
        self._ask("actor_ready", context.get_actor_id())

    def __call__(self, bundle: pa.Table) -> Iterator[pa.Table]:
        """A bundle of encoded units -> bundles of their scores, one every few seconds."""
        assert bundle.num_rows == 1, "a batch is one bundle"
        scored, since_s = [], monotonic()
        for unit in self._score(units_of_bundle(bundle)):
            scored.append(unit)
            if monotonic() - since_s >= _HOLD_S:
                yield bundle_of(scored)
                scored, since_s = [], monotonic()
        self._report()
        if scored:
            yield bundle_of(scored)

    def _score(self, units: Sequence[UnitRows]) -> Iterator[UnitRows]:
        """Scores units in order; each that was started before has the device to itself."""
        states = self._ask("bundle_started", [unit.piece for unit in units])
        # A unit that was started before may be committed: the task that did so was lost afterwards.
        todo = (
            (unit, state)
            for unit, state in zip(units, states, strict=True)
            if state is UnitState.NEW or not self._is_committed(unit)
        )
        return one_ahead(todo, self._begin, self._finish, lambda item: item[1] is not UnitState.NEW)

    def _is_committed(self, unit: UnitRows) -> bool:
        return all(map(is_there, files_of(self._pieces, unit.piece, self._token_losses)))

    def _begin(self, item: tuple[UnitRows, UnitState]) -> _BegunUnit:
        """Begins to score a unit, unless its bad rows are to be searched for."""
        unit, state = item
        if state is UnitState.HOPELESS:
            raise SfRayError(
                f"scoring rows {unit.start} to {unit.start + unit.rows.num_rows} of shard "
                f"{printable(unit.shard)} ends the process, though none of them does alone; most "
                "often memory runs out: lower --token-budget, or have more memory for each actor"
            )
        if state is UnitState.SUSPECT:
            return _BegunUnit(unit, state, None)
        return _BegunUnit(unit, state, self._begin_scoring(unit))

    def _finish(self, begun: _BegunUnit) -> UnitRows:
        """The scores of a unit; where the engine fails on some rows, those of the other rows."""
        unit, state, pending = begun
        scores = None
        if pending:
            try:
                scores = pending.result()
            except EngineFailedError as error:
                self._engine_failed(unit.piece, error)
        if pending is None or scores is None:
            pending = self._begin_scoring(self._without_bad_rows(unit))
            scores = pending.result()
        self._unreported[unit.piece] = UnitCounts.of(scores, pending.usage)
        # At once for a unit that was started before: if the process dies over the next unit, the
        # tally must not blame the one that is done.
        if state is not UnitState.NEW or monotonic() - self._reported_s >= _REPORT_S:
            self._report()
        return unit.with_rows(scores)

    def _begin_scoring(self, unit: UnitRows) -> Pending[pa.Table]:
        return self._scorer.begin(unit.shard, unit.start, unit.rows, self._count_batch)

    def _report(self) -> None:
        if self._unreported:
            self._tally.units_scored.remote(self._unreported)
        self._unreported, self._reported_s = {}, monotonic()

    def _without_bad_rows(self, unit: UnitRows) -> UnitRows:
        """The unit without the rows that the engine cannot score, which are found by bisection.

        The scores of the ranges that are tried are thrown away: the rows of a unit are scored
        together, so that its scores do not depend on the search.
        """
        reason = "the process ends"
        while bounds := self._ask("next_range", unit.piece, unit.rows.num_rows):
            start, stop = bounds
            try:
                rows = unit.rows.slice(start, stop - start)
                self._scorer.begin(unit.shard, unit.start + start, rows).result()
            except EngineFailedError as error:
                reason = str(error)
                self._engine_failed(unit.piece, error)
            else:
                self._ask("range_passed", unit.piece)
        bad: list[int] = self._ask("bad_rows", unit.piece)
        if bad:
            say(
                f"note: the engine fails on {len(bad)} rows of {printable(unit.shard)}, first on "
                f"row {unit.start + bad[0]} ({reason}); they get the status engine_error",
                stage="score",
                shard=unit.shard,
                unit=unit.piece,
                rows=len(bad),
            )
        return unit.with_rows(without_rows(unit.rows, bad))

    def _engine_failed(self, piece: str, error: EngineFailedError) -> None:
        """Ends the process where the device is lost, because nothing runs on it any more in here.

        Ray then starts another process, which goes on with the search for bad rows.
        """
        if error.device_is_lost:
            self._ask("unit_failed", piece)
            say(f"note: {error}; the scoring actor starts again", stage="score", unit=piece)
            os._exit(1)

    def _count_batch(self, sequences: int, tokens: int) -> None:
        self._tally.batch_scored.remote(sequences, tokens)

    def _ask(self, method: str, *arguments: Any) -> Any:
        """Calls a method of the tally, and waits for what it returns."""
        return ray.get(getattr(self._tally, method).remote(*arguments), timeout=_TALLY_S)
