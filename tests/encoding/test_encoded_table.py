import numpy as np
import pyarrow as pa

from sf_ray.corpus.bundles import UnitRows, bundle_of, units_of_bundle
from sf_ray.corpus.status import Status
from sf_ray.encoding.encoded_rows import EncodedRow
from sf_ray.encoding.encoded_table import encoded_table, sequences_of
from sf_ray.engine.sequences import TokenSequence


def encoded(lengths: list[int]) -> pa.Table:
    def sequence(length: int) -> TokenSequence:
        return TokenSequence.scored_from(np.arange(length, dtype=np.int32), 1)

    return encoded_table(
        [EncodedRow(Status.OK, 1, n, False, (sequence(n),), (sequence(n + 1),)) for n in lengths]
    )


def test_sequences_survive_the_table() -> None:
    (unit,) = units_of_bundle(bundle_of([UnitRows("s", 0, "p", encoded([3, 0, 5]))]))
    sequences = sequences_of(unit.rows)
    assert sequences.lengths.tolist() == [3, 4, 0, 1, 5, 6]
    assert sequences.scored.tolist() == [2, 3, 0, 0, 4, 5]
    assert list(sequences)[4].ids.tolist() == [0, 1, 2, 3, 4]
    assert len(sequences_of(encoded([]))) == 0
