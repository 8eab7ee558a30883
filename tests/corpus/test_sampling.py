from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sf_ray.corpus.planning import plan_corpus
from sf_ray.corpus.sampling import field_names, sample_rows, spread_segments
from sf_ray.errors import BadRowError
from sf_ray.storage.location import Location


def test_a_sample_is_spread_over_the_shards(tmp_path: Path) -> None:
    for number in range(9):
        rows = [b'{"n": %d, "f%d": 1}\n' % (number, number)] * (number % 4)
        (tmp_path / f"{number}.jsonl").write_bytes(b"".join(rows))
    corpus = plan_corpus(Location(str(tmp_path)))
    sample = sample_rows(corpus, per_shard=2, shards=3)
    assert [(row.shard, row.number) for row in sample] == [
        ("1.jsonl", 0), ("3.jsonl", 0), ("3.jsonl", 1), ("7.jsonl", 0), ("7.jsonl", 1)
    ]  # fmt: skip
    assert field_names(corpus, sample) == ["n", "f1", "f3", "f7"]
    assert sample == sample_rows(corpus, per_shard=2, shards=3)


def test_a_sample_of_columns_leaves_out_what_is_no_text(tmp_path: Path) -> None:
    image = pa.array([{"bytes": b"abc", "path": "a.png"}])
    table = pa.table({"text": ["a"], "image": image, "n": [1]})
    pq.write_table(table, tmp_path / "a.parquet")
    corpus = plan_corpus(Location(str(tmp_path)))
    sample = sample_rows(corpus)
    assert sample[0].row == {"text": "a", "n": 1}
    assert field_names(corpus, sample) == ["text", "image", "n"]


def test_broken_lines_and_shards_are_not_sampled_unless_there_are_no_others(
    tmp_path: Path,
) -> None:
    (tmp_path / "a.jsonl").write_text('{"a":\n{"a": 1}\n')
    corpus = plan_corpus(Location(str(tmp_path)))
    assert [(row.number, row.row) for row in sample_rows(corpus)] == [(1, {"a": 1})]
    (tmp_path / "a.jsonl").write_text('{"a":\n{"a":\n')
    corpus = plan_corpus(Location(str(tmp_path)))
    with pytest.raises(BadRowError, match="shard a.jsonl, line 1: not valid JSON"):
        sample_rows(corpus)


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=6),
    st.integers(1, 200),
    st.integers(0, 3),
    st.integers(1, 9),
)
def test_segments_are_in_order_and_as_many_rows_as_wanted(
    shard_rows: list[int], wanted: int, seed: int, most: int
) -> None:
    found = spread_segments(shard_rows, wanted, seed, most)
    assert found == spread_segments(shard_rows, wanted, seed, most)
    rows = [(shard, row) for shard, unit in found for row in range(unit.start, unit.stop)]
    assert rows == sorted(set(rows))
    assert len(rows) == min(wanted, sum(shard_rows))
    assert all(0 <= row < shard_rows[shard] for shard, row in rows)
    assert all(unit.rows for _, unit in found)


def test_segments_are_spread_over_the_corpus_and_differ_by_seed() -> None:
    rows = [10_000] * 8
    found = spread_segments(rows, 1000, 0)
    assert {shard for shard, _ in found} == set(range(8))
    starts = np.array([shard * 10_000 + unit.start for shard, unit in found])
    assert np.diff(starts).max() < 2 * 80_000 / len(found)
    assert found != spread_segments(rows, 1000, 1)
