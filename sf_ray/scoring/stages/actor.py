"""The Ray part: units in, score pieces out.

    UnitSource (CPU tasks: read, render, encode) -> ScoreUnits (actors: model) -> PieceSink

What travels between them are `bundles` of whole units.
"""

import os
from collections.abc import Iterator, Sequence
from time import monotonic
from typing import Any

import pyarrow as pa
import ray
import ray.data

from sf_ray.corpus.bundles import rewrap_unit, unwrap_bundle, unwrap_unit, wrap_bundle
from sf_ray.encoding.encoded_table import without_rows
from sf_ray.engine.pending import Pending, one_ahead
from sf_ray.errors import EngineFailedError, SfRayError
from sf_ray.runtime.log import say
from sf_ray.scoring.engine_spec import EngineSpec
from sf_ray.scoring.stages.tally import UnitCounts, UnitState
from sf_ray.storage.files import is_there
from sf_ray.storage.location import Location

# Starts of an actor that end before the model is loaded.
_STARTS = 3
# The tally answers at once; its node may be busy.
_TALLY_S = 120.0
# Units that are scored faster than this are committed together.
_HOLD_S = 2.0
# Units that are scored faster than this are reported together.
_REPORT_S = 0.2


# A unit, what to be careful with, and what the engine does with it; None where it does nothing yet.
_Begun = tuple[pa.Table, UnitState, Pending[pa.Table] | None]


class ScoreUnits:
    """An actor that holds the model and scores units.

    Ray may start it, or hand it a bundle, again and again; the `Tally` remembers, and tells what to
    be careful with.
    """

    def __init__(self, rules: EngineSpec, pieces: Location, tally: Any) -> None:
        self._pieces, self._tally = pieces, tally
        self._unreported: dict[str, UnitCounts] = {}
        self._reported = monotonic()
        context = ray.get_runtime_context()
        starts = self._ask("actor_starting", context.get_actor_id())
        if starts > _STARTS:
            raise SfRayError(
                f"a scoring actor died {_STARTS} times while it loaded the model, last on node "
                f"{ray.util.get_node_ip_address()}; most often memory ran out: use a smaller "
                "model, or fewer actors a node (--actors, --cpus-per-actor, --gpus-per-actor)"
            )
        self._scorer = rules.start()
        for note in self._scorer.notes:
            say(f"note: {note}", stage="score")
        self._ask("actor_ready", context.get_actor_id())

    def __call__(self, bundle: pa.Table) -> Iterator[pa.Table]:
        """Encoded units -> their score tables, as soon as some seconds' worth are done."""
        assert bundle.num_rows == 1, "a batch is one bundle"
        scored, since = [], monotonic()
        for table in self._score(unwrap_bundle(bundle)):
            scored.append(table)
            if monotonic() - since >= _HOLD_S:
                yield wrap_bundle(scored)
                scored, since = [], monotonic()
        self._report()
        if scored:
            yield wrap_bundle(scored)

    def _score(self, units: Sequence[pa.Table]) -> Iterator[pa.Table]:
        """Scores units in order; those that need care have the device to themselves."""
        pieces = [unit["piece"][0].as_py() for unit in units]
        cares = self._ask("bundle_started", pieces)
        # What was started before may have been committed by a task that was lost since.
        todo = (
            (unit, care)
            for unit, piece, care in zip(units, pieces, cares, strict=True)
            if care is UnitState.NEW or not is_there(self._pieces.join(piece))
        )
        return one_ahead(todo, self._begin, self._finish, lambda each: each[1] is not UnitState.NEW)

    def _begin(self, what: tuple[pa.Table, UnitState]) -> _Begun:
        """Begins with a unit; not where the process ended in it again and again."""
        unit, care = what
        shard, start = (unit[name][0].as_py() for name in ("shard", "start"))
        encoded = unwrap_unit(unit)
        if care is UnitState.HOPELESS:
            raise SfRayError(
                f"scoring rows {start} to {start + encoded.num_rows} of shard {shard} ends the "
                "process, though none of them does alone; most often memory runs out: lower "
                "--token-budget, or have more memory for each actor"
            )
        if care is UnitState.SUSPECT:
            return unit, care, None
        return unit, care, self._scorer.begin(shard, start, encoded, self._count_batch)

    def _finish(self, begun: _Begun) -> pa.Table:
        """The score table of a unit; where the engine fails, the others of its rows are scored."""
        unit, care, pending = begun
        shard, start, piece = (unit[name][0].as_py() for name in ("shard", "start", "piece"))
        table = None
        if pending:
            try:
                table = pending.result()
            except EngineFailedError as error:
                self._engine_failed(piece, error)
        if pending is None or table is None:
            encoded = self._without_bad_rows(piece, shard, start, unwrap_unit(unit))
            pending = self._scorer.begin(shard, start, encoded, self._count_batch)
            table = pending.result()
        self._unreported[piece] = UnitCounts.of(table, pending.usage)
        # With care, at once: who dies next shall not be blamed on a unit that is done.
        if care is not UnitState.NEW or monotonic() - self._reported >= _REPORT_S:
            self._report()
        return rewrap_unit(unit, table)

    def _report(self) -> None:
        if self._unreported:
            self._tally.units_scored.remote(self._unreported)
        self._unreported, self._reported = {}, monotonic()

    def _without_bad_rows(self, piece: str, shard: str, start: int, encoded: pa.Table) -> pa.Table:
        """Finds the rows that the engine cannot score, by halves; their scores are thrown away."""
        reason = "the process ends"
        while found := self._ask("next_range", piece, encoded.num_rows):
            first, stop = found
            try:
                rows = encoded.slice(first, stop - first)
                self._scorer.begin(shard, start + first, rows).result()
            except EngineFailedError as error:
                reason = str(error)
                self._engine_failed(piece, error)
            else:
                self._ask("range_passed", piece)
        bad: list[int] = self._ask("bad_rows", piece)
        if bad:
            say(
                f"note: the engine fails on {len(bad)} rows of {shard}, first on row "
                f"{start + bad[0]} ({reason}); they get the status engine_error",
                stage="score",
                shard=shard,
                unit=piece,
                rows=len(bad),
            )
        return without_rows(encoded, bad)

    def _engine_failed(self, piece: str, error: EngineFailedError) -> None:
        if error.device_is_lost:
            # Nothing runs on this device any more in this process: Ray starts another one, which
            # goes on with the search.
            self._ask("unit_failed", piece)
            say(f"note: {error}; the scoring actor starts again", stage="score", unit=piece)
            os._exit(1)

    def _count_batch(self, sequences: int, tokens: int) -> None:
        self._tally.batch_scored.remote(sequences, tokens)

    def _ask(self, method: str, *arguments: Any) -> Any:
        return ray.get(getattr(self._tally, method).remote(*arguments), timeout=_TALLY_S)
