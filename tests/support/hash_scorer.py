"""A scorer that stands in for the model alone: encoding is real, losses are hashes of token ids.

Equal sequences have equal losses, and each model has its own; all tokens of a span have its loss.
In types other than float32 each loss is off by up to `ERROR_NATS`, always by the same.
`bench.support.free_scorer` also replaces the encoding, and can be made to fail.
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from sf_ray.encoding.encoded_table import sequences_of
from sf_ray.engine.flops import Work
from sf_ray.engine.pending import Pending, Usage
from sf_ray.scoring.engine_spec import EngineSpec
from sf_ray.scoring.loss_differences import loss_differences
from sf_ray.scoring.score_table import score_table
from sf_ray.scoring.token_losses import DIFFERENCES

ERROR_NATS = 0.01
# Seconds that scoring a unit takes in float32.
UNIT_S = 0.0


@dataclass(frozen=True)
class HashEngineSpec(EngineSpec):
    """Starts the scorer."""

    def start(self) -> "HashScorer":  # type: ignore[override]
        error_nats = 0 if self.dtype == "float32" else ERROR_NATS
        return HashScorer(self.model.fingerprint, error_nats, self.token_losses)


class HashScorer:
    """Gives losses from 1 to 2 nats behind a prompt, from 1.5 to 2.5 without one."""

    notes = ()

    def __init__(self, salt: str, error_nats: float, token_losses: bool = False) -> None:
        self._salt, self._error_nats = salt.encode(), error_nats
        self._token_losses = token_losses

    def work(self, encoded: pa.Table) -> Work:
        return Work.plain(sequences_of(encoded))

    def begin(
        self,
        shard: str,
        start: int,
        encoded: pa.Table,
        on_batch: Callable[[int, int], None] | None = None,
    ) -> Pending[pa.Table]:
        if not self._error_nats:
            time.sleep(UNIT_S)
        sequences = sequences_of(encoded)
        losses = [
            np.nan if stop == first else self._loss(sequence.ids[:stop].tobytes(), first)
            for sequence in sequences
            for first, stop in sequence.spans
        ]
        means = np.array(losses, np.float64)
        table = score_table(shard, start, encoded, means)
        if self._token_losses:
            tokens = np.repeat(means, sequences.span_lengths).astype(np.float32)
            has_score = table["ifd"].is_valid().to_numpy()
            differences = loss_differences(encoded, sequences, tokens, has_score)
            table = table.append_column(DIFFERENCES, differences)
        return Pending(lambda: table, Usage())

    def _loss(self, ids: bytes, first: int) -> float:
        digest = hashlib.blake2b(ids, digest_size=16, key=self._salt[:64]).digest()
        uniform, error = (
            int.from_bytes(half, "little") / 2**64 for half in (digest[:8], digest[8:])
        )
        return uniform + (1 if first > 1 else 1.5) + self._error_nats * (2 * error - 1)
