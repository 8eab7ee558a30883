"""Scores encoded units with an engine. Knows no Ray and no files."""

from collections.abc import Callable, Sequence

import pyarrow as pa

from sf_ray.encoding.encoded_table import sequences_of
from sf_ray.engine.engine import Engine
from sf_ray.engine.flops import Work
from sf_ray.engine.pending import Pending
from sf_ray.scoring.score_table import score_table


class UnitScorer:
    """Scores units with one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def notes(self) -> Sequence[str]:
        """Lines for people about this engine with this model on this device."""
        return self._engine.notes

    def work(self, encoded: pa.Table) -> Work:
        """The work of scoring a unit's encoded rows, without doing it."""
        return self._engine.work(sequences_of(encoded))

    def begin(
        self,
        shard: str,
        start: int,
        encoded: pa.Table,
        on_batch: Callable[[int, int], None] | None = None,
    ) -> Pending[pa.Table]:
        """Begins to score a unit; its result is the score table.

        The rows of a unit are batched together and with no others, so that their scores depend on
        nothing outside the unit. The next unit may begin before this result is taken.

        Args:
            shard: Relative path of the shard.
            start: Row number in the shard of the unit's first row.
            encoded: Rows of `encoded_table`.
            on_batch: Called after each batch with the numbers of its sequences and tokens.

        Raises:
            EngineFailedError: Raised by the result: the model cannot score one of the rows.
        """
        losses = self._engine.begin(sequences_of(encoded), on_batch)
        return Pending(lambda: score_table(shard, start, encoded, losses.result()), losses.usage)
