from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import pyarrow as pa
import pytest

from sf_ray.corpus.status import Status
from sf_ray.encoding.encoded_rows import EncodedRow
from sf_ray.encoding.encoded_table import encoded_table
from sf_ray.engine.engine import Engine
from sf_ray.engine.pending import Pending, Usage
from sf_ray.engine.sequences import TokenSequence
from sf_ray.scoring.unit_scorer import UnitScorer


class LengthEngine:
    """The loss of a span is its length; nothing is computed before the result is taken."""

    notes = ("a note",)

    def __init__(self) -> None:
        self.results = 0

    def begin(
        self, sequences: Sequence[TokenSequence], on_batch: Callable[[int, int], None] | None
    ) -> Pending[np.ndarray]:
        def result() -> np.ndarray:
            self.results += 1
            if on_batch:
                on_batch(len(sequences), sum(len(sequence.ids) for sequence in sequences))
            return np.array([float(n) for sequence in sequences for n in sequence.lengths])

        return Pending(result, Usage(tokens=7))


def encoded(lengths: list[int]) -> pa.Table:
    def sequence(length: int, start: int) -> TokenSequence:
        return TokenSequence.scored_from(np.arange(length, dtype=np.int32), start)

    return encoded_table(
        [
            EncodedRow(Status.OK, 2, n, False, (sequence(n + 2, 2),), (sequence(n, 1),))
            for n in lengths
        ]
    )


def test_a_unit_becomes_its_score_table_when_the_result_is_taken() -> None:
    engine, batches = LengthEngine(), []
    scorer = UnitScorer(cast(Engine, engine))
    assert list(scorer.notes) == ["a note"]
    pending = scorer.begin("s", 40, encoded([3, 5]), lambda *batch: batches.append(batch))
    other = scorer.begin("s", 42, encoded([4]))
    assert engine.results == 0
    scores = pending.result()
    assert other.result()["row"].to_pylist() == [42]
    assert batches == [(4, 5 + 3 + 7 + 5)]
    assert pending.usage.tokens == 7
    assert scores["row"].to_pylist() == [40, 41]
    assert scores["loss_conditioned"].to_pylist() == [3.0, 5.0]
    assert scores["loss_direct"].to_pylist() == [2.0, 4.0]
    assert scores["ifd"].to_pylist() == pytest.approx([np.e, np.e])
