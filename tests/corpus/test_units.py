from hypothesis import given
from hypothesis import strategies as st

from sf_ray.corpus.units import Shard, Unit, group_reads, share_reads, units_of
from sf_ray.storage.listing import File


@given(st.lists(st.integers(0, 60), max_size=12), st.integers(1, 50))
def test_units_cover_every_row_once_and_keep_their_size(groups: list[int], unit_rows: int) -> None:
    units = units_of(groups, unit_rows)
    assert [row for u in units for row in range(u.start, u.stop)] == list(range(sum(groups)))
    assert all(0 < u.stop - u.start <= unit_rows for u in units)


def test_small_row_groups_join_and_large_ones_are_cut_evenly() -> None:
    assert units_of([3, 3, 3], 6) == [Unit(0, 6), Unit(6, 9)]
    assert units_of([10], 4) == [Unit(0, 3), Unit(3, 6), Unit(6, 10)]
    assert units_of([2, 10, 2], 4) == [
        Unit(0, 2),
        Unit(2, 5),
        Unit(5, 8),
        Unit(8, 12),
        Unit(12, 14),
    ]
    assert units_of([], 4) == []


def test_a_piece_is_named_after_shard_content_and_rows() -> None:
    names = [
        Shard(File("x", "a/1.parquet", size, version), (3,), 0).piece(Unit(0, 3))
        for size, version in ((9, "1"), (9, "2"), (8, "1"), (9, "1"))
    ]
    assert len(set(names[:3])) == 3
    assert names[3] == names[0]
    for name in names:
        assert name.startswith("a/1.")
        assert name.endswith(".000000000000-000000000003.parquet")


def test_one_huge_row_group_is_not_read_again_for_each_unit() -> None:
    shard = Shard(File("x", "x", 1, "1"), (100_000,), 0)
    units = units_of(shard.row_groups, 1000)
    reads = group_reads(shard, units)
    assert len(units) == 100
    assert len(reads) == 2
    assert [unit for read in reads for unit in read.units] == units


def test_small_shards_are_read_together() -> None:
    shards = [Shard(File("x", f"{i}", 1, "1"), (3,), 3 * i) for i in range(7)]
    plans = [plan for s in shards for plan in group_reads(s, units_of(s.row_groups, 2))]
    tasks = share_reads(plans, 4)
    assert [plan for task in tasks for plan in task] == plans
    assert [sum(len(plan.units) for plan in task) for task in tasks] == [4, 4, 4, 2]
