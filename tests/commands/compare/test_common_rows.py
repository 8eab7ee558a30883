from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sf_ray.commands.compare.common_rows import CommonBlock, common_blocks
from sf_ray.commands.compare.join import Comparison, compare_sets
from sf_ray.corpus.units import Unit, shard_id, units_of
from sf_ray.errors import SfRayError
from sf_ray.scoring.score_set import ScoreSet, mark_bad
from sf_ray.scoring.stored_set import ShardVersion, StoredSet, stored_set_of
from sf_ray.storage.files import put_table
from tests.support.score_sets import (
    ENCODING,
    keep_footers_of,
    random_rows,
    shard_of,
    somewhere,
    table_of,
    two_sets,
    whole,
    write_set,
)

X = ShardVersion("x.parquet", "0" * 12)


def set_of(*units: Unit) -> StoredSet:
    """A set that has scores of units of one shard."""
    return StoredSet(ScoreSet(somewhere(), "id", {}), "m", {X: units}, None)


def test_common_rows_are_cut_wherever_either_set_is_cut() -> None:
    a, b = set_of(Unit(0, 4), Unit(4, 10)), set_of(Unit(0, 6), Unit(8, 12))
    assert common_blocks(a, b) == [
        CommonBlock(X, Unit(0, 4), Unit(0, 6), 0, 4),
        CommonBlock(X, Unit(4, 10), Unit(0, 6), 4, 6),
        CommonBlock(X, Unit(4, 10), Unit(8, 12), 8, 10),
    ]


@given(st.sets(st.integers(0, 20)), st.sets(st.integers(0, 20)))
def test_common_rows_are_those_of_both_sets(edges_a: set[int], edges_b: set[int]) -> None:
    def units(edges: set[int]) -> list[Unit]:
        starts = sorted(edges)
        return [Unit(start, stop) for start, stop in zip(starts[::2], starts[1::2], strict=False)]

    def rows(of_units: list[Unit]) -> set[int]:
        return {row for unit in of_units for row in range(unit.start, unit.stop)}

    units_a, units_b = units(edges_a), units(edges_b)
    blocks = common_blocks(set_of(*units_a), set_of(*units_b))
    common = [row for block in blocks for row in range(block.start, block.stop)]
    assert common == sorted(rows(units_a) & rows(units_b))
    for block in blocks:
        assert block.unit_a.start <= block.start < block.stop <= block.unit_a.stop
        assert block.unit_b.start <= block.start < block.stop <= block.unit_b.stop


def test_shards_are_named_by_their_pieces_whatever_their_suffix() -> None:
    rows = {name: random_rows(8, 0) for name in ("a/b.parquet", "c.jsonl")}
    compared = stored_set_of(write_set(somewhere(), rows, whole(rows)))
    assert [shard.relative for shard in compared.units] == ["a/b.parquet", "c.jsonl"]
    assert list(compared.units.values()) == [[Unit(0, 4), Unit(4, 8)]] * 2
    assert compared.rows == 16
    assert compared.missing_units is None


def compared(a: ScoreSet, b: ScoreSet, **more: Any) -> Comparison:
    return compare_sets(a, b, [0.1], 1.0, **more)


def test_a_side_that_is_not_complete_is_refused_and_compared_when_asked() -> None:
    a, b = two_sets()
    keep_footers_of(b, shard_of("x.parquet", 40), shard_of("y.parquet", 9))
    with pytest.raises(
        SfRayError, match="SCORES_B .*model b.*without scores: 3;.*sf-ray score.*--partial"
    ):
        compared(a, b)
    found = compared(a, b, is_partial=True)
    assert found.rows == 40
    assert "units of B without scores, which are left out: 3" in found.notes
    assert "nothing beside the scores of A tells whether they are complete" in found.notes


def test_a_shard_that_was_skipped_is_not_missed() -> None:
    a, b = two_sets()
    bad = shard_of("y.parquet", 9)
    keep_footers_of(b, shard_of("x.parquet", 40), bad)
    mark_bad(b.pieces, bad.stem, "cut off")
    assert compared(a, b).b.missing_units == 0


def test_of_a_shard_in_two_versions_the_last_one_counts() -> None:
    a, b = two_sets()
    rows = random_rows(12, 3)
    new = shard_of("x.parquet", 12, "2")
    for score_set in (a, b):
        for unit in units_of((12,), 4):
            put_table(score_set.pieces.join(new.piece(unit)), table_of(rows, unit), ENCODING)
        keep_footers_of(score_set, new)
    found = compared(a, b)
    assert (found.a.rows, found.b.rows, found.rows) == (12, 12, 12)
    assert found.consistency.ifd == 1


def test_scores_of_different_corpora_are_refused() -> None:
    a, _ = two_sets()
    rows = {"y.parquet": random_rows(8, 0)}
    b = write_set(somewhere(), rows, whole(rows))
    with pytest.raises(SfRayError, match=r"different corpora.*x\.parquet and y\.parquet"):
        compared(a, b)
    other = shard_of("x.parquet", 41)
    assert other.shard_id != shard_id(shard_of("x.parquet", 40).file)
    put_table(
        b.pieces.join(other.piece(Unit(0, 4))), table_of(random_rows(4, 0), Unit(0, 4)), ENCODING
    )
    with pytest.raises(SfRayError, match=r"x\.parquet was scored in other versions"):
        compared(a, b)
