from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ray.exceptions import RayError

from sf_ray.encoding import EncodedRow, TokenSequence
from sf_ray.errors import SfRayError
from sf_ray.ifd import Status
from sf_ray.stages import PieceSink, _rows_of, _unit_row, parallel_map, user_errors
from sf_ray.storage import Location
from sf_ray.tables import SCORE_SCHEMA, encoded_table, score_table, sequences_of


def encoded(lengths: list[int]) -> pa.Table:
    def sequence(length: int) -> TokenSequence:
        return TokenSequence(np.arange(length, dtype=np.int32), 1)

    return encoded_table(
        [EncodedRow(Status.OK, 1, n, False, sequence(n), sequence(n + 1)) for n in lengths]
    )


def test_units_come_out_of_merged_and_sliced_blocks_as_they_went_in() -> None:
    tables = [encoded([3, 4]), encoded([]), encoded([5, 0, 7])]
    units = [_unit_row("s", i, f"p{i}", table) for i, table in enumerate(tables)]
    block = pa.concat_tables(units)
    for whole in (block, block.combine_chunks()):
        for i, table in enumerate(tables):
            assert _rows_of(whole.slice(i, 1)).equals(table)


def test_sequences_survive_the_table() -> None:
    sequences = sequences_of(_rows_of(_unit_row("s", 0, "p", encoded([3, 0, 5]))))
    assert [len(s.ids) for s in sequences] == [3, 0, 5, 4, 1, 6]
    assert sequences[2].ids.tolist() == [0, 1, 2, 3, 4]
    assert sequences_of(encoded([])) == []


def test_the_sink_puts_each_unit_of_a_block_and_may_do_so_twice(tmp_path: Path) -> None:
    losses = np.array([1.0, np.nan, 0.5, 0.25])
    tables = [score_table("s", start, encoded([3, 3]), losses) for start in (0, 2)]
    block = pa.concat_tables(
        [_unit_row("s", 0, f"a/p{i}.parquet", t) for i, t in enumerate(tables)]
    )
    for _ in range(2):
        PieceSink(Location(str(tmp_path))).write([block], None)
    for i, table in enumerate(tables):
        written = pq.read_table(tmp_path / f"a/p{i}.parquet")
        assert written.equals(table)
        assert written.schema.equals(SCORE_SCHEMA)
        assert written["row"].to_pylist() == [2 * i, 2 * i + 1]
        assert written["status"].to_pylist() == ["ok", "non_finite"]
        assert written["ifd"].to_pylist() == [np.exp(-0.5), None]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "ray::x\n  File y\nsf_ray.errors.SfRayError: shard a is broken\n\nmore",
            "shard a is broken",
        ),
        ("The actor died\nOSError: disk full", "a Ray task failed: OSError: disk full"),
    ],
)
def test_a_task_that_fails_says_why(text: str, message: str) -> None:
    with pytest.raises(SfRayError) as error, user_errors():
        raise RayError(text)
    assert str(error.value) == message


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_a_function_is_applied_to_every_item() -> None:
    assert list(parallel_map(str, [])) == []
    items = [(Location("a"), n) for n in range(7)]
    assert sorted(parallel_map(lambda item: (item[1], item[0].uri), items)) == [
        (n, "a") for n in range(7)
    ]
