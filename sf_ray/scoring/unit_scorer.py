"""Encoded units -> score tables, with an engine."""

from collections.abc import Callable, Sequence

import pyarrow as pa

from sf_ray.encoding.encoded_table import sequences_of
from sf_ray.engine.engine import Engine
from sf_ray.engine.flops import Work
from sf_ray.engine.pending import Pending
from sf_ray.scoring.score_table import score_table


class UnitScorer:
    """Scores units with an engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def notes(self) -> Sequence[str]:
        """What people should know of the engine with this model, on this device."""
        return self._engine.notes

    def work(self, encoded: pa.Table) -> Work:
        """What scoring a unit's encoded rows takes, without doing it."""
        return self._engine.work(sequences_of(encoded))

    def begin(
        self,
        shard: str,
        start: int,
        encoded: pa.Table,
        on_batch: Callable[[int, int], None] | None = None,
    ) -> Pending[pa.Table]:
        """Begins with a unit's encoded rows as one batching pool; it comes to its score table.

        The next unit may begin before the result of this one is taken.

        Raises:
            EngineFailedError: By the result: the model cannot score one of them.
        """
        losses = self._engine.begin(sequences_of(encoded), on_batch)
        return Pending(lambda: score_table(shard, start, encoded, losses.result()), losses.usage)
