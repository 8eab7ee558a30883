"""Scores encoded units with an engine. Knows no Ray and no files."""

from collections.abc import Callable, Sequence

import pyarrow as pa

from sf_ray.encoding.encoded_table import sequences_of
from sf_ray.engine.engine import Engine
from sf_ray.engine.flops import Work
from sf_ray.engine.pending import Pending
from sf_ray.scoring.loss_differences import loss_differences
from sf_ray.scoring.score_table import score_table
from sf_ray.scoring.token_losses import DIFFERENCES


class UnitScorer:
    """Scores units with one engine."""

    def __init__(self, engine: Engine, token_losses: bool = False) -> None:
        """
        Args:
            engine: The engine.
            token_losses: Whether score tables have the column `DIFFERENCES` beside their own.
        """
        self._engine = engine
        self._token_losses = token_losses

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
        sequences = sequences_of(encoded)
        if not self._token_losses:
            means = self._engine.begin(sequences, on_batch)
            return Pending(lambda: score_table(shard, start, encoded, means.result()), means.usage)
        pending = self._engine.begin_tokens(sequences, on_batch)

        def result() -> pa.Table:
            losses = pending.result()
            assert losses.tokens is not None
            scores = score_table(shard, start, encoded, losses.means)
            has_score = scores["ifd"].is_valid().to_numpy()
            differences = loss_differences(encoded, sequences, losses.tokens, has_score)
            return scores.append_column(DIFFERENCES, differences)

        return Pending(result, pending.usage)
