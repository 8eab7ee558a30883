from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sf_ray.corpus.bundles import unwrap_unit, wrap_bundle, wrap_unit
from sf_ray.corpus.status import Status
from sf_ray.corpus.units import ReadPlan, Unit
from sf_ray.encoding.encoded_table import encoded_table, sequences_of
from sf_ray.encoding.encoder import EncodedRow
from sf_ray.engine.sequences import TokenSequence
from sf_ray.scoring.score_table import SCORE_SCHEMA, score_table
from sf_ray.scoring.stages.sink import PieceSink
from sf_ray.storage.files import File
from sf_ray.storage.location import Location


def encoded(lengths: list[int]) -> pa.Table:
    def sequence(length: int) -> TokenSequence:
        return TokenSequence.scored_from(np.arange(length, dtype=np.int32), 1)

    return encoded_table(
        [EncodedRow(Status.OK, 1, n, False, (sequence(n),), (sequence(n + 1),)) for n in lengths]
    )


def unit_row(number: int, rows: pa.Table) -> pa.Table:
    plan = ReadPlan(File("s", "s", 1, "1"), f"a/p{number}", (), range(1), 0)
    return wrap_unit(plan, Unit(2 * number, 2 * number + 2), rows)


def test_sequences_survive_the_table() -> None:
    sequences = sequences_of(unwrap_unit(unit_row(0, encoded([3, 0, 5]))))
    assert [len(s.ids) for s in sequences] == [3, 4, 0, 1, 5, 6]
    assert sequences[4].ids.tolist() == [0, 1, 2, 3, 4]
    assert sequences_of(encoded([])) == []


def test_the_sink_puts_each_unit_of_a_block_and_may_do_so_twice(tmp_path: Path) -> None:
    losses = np.array([0.5, 1.0, 0.25, np.nan])
    tables = [score_table("s", start, encoded([3, 3]), losses) for start in (0, 2)]
    bundles = [wrap_bundle([unit_row(i, table)]) for i, table in enumerate(tables)]
    for blocks in (bundles, [wrap_bundle([unit_row(i, t) for i, t in enumerate(tables)])]):
        PieceSink(Location(str(tmp_path))).write(blocks, None)
        for i, table in enumerate(tables):
            name = f"a/p{i}.{2 * i:012d}-{2 * i + 2:012d}.parquet"
            written = pq.read_table(tmp_path / name)
            assert written.equals(table)
            assert written.schema.equals(SCORE_SCHEMA)
            assert written["row"].to_pylist() == [2 * i, 2 * i + 1]
            assert written["status"].to_pylist() == ["ok", "non_finite"]
            assert written["ifd"].to_pylist() == [np.exp(-0.5), None]
