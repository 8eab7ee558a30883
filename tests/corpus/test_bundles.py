import pyarrow as pa

from sf_ray.corpus.bundles import UnitRows, bundle_of, units_of_bundle
from sf_ray.corpus.units import ReadPlan, Unit
from sf_ray.storage.listing import File

PLAN = ReadPlan(File("s", "s", 1, "1"), "a/p", (), range(1), 0)


def numbered(rows: int) -> pa.Table:
    schema = pa.schema([("n", pa.int64()), ("ids", pa.list_(pa.int32()))])
    return pa.table({"n": range(rows), "ids": [[i] * i for i in range(rows)]}, schema=schema)


def test_units_come_out_of_merged_and_sliced_blocks_as_they_went_in() -> None:
    tables = [numbered(2), numbered(0), numbered(3)]
    units = [UnitRows.of(PLAN, Unit(9 * i, 9 * i + 9), table) for i, table in enumerate(tables)]
    block = pa.concat_tables([bundle_of(units[:2]), bundle_of(units[2:])])
    for whole in (block, block.combine_chunks()):
        bundles = [units_of_bundle(whole.slice(i, 1)) for i in range(2)]
        assert [len(bundle) for bundle in bundles] == [2, 1]
        unpacked = [unit for bundle in bundles for unit in bundle]
        for after, before in zip(unpacked, units, strict=True):
            assert (after.shard, after.start, after.piece) == ("s", before.start, before.piece)
            assert after.rows.equals(before.rows)


def test_a_bundle_is_one_row_however_many_units_it_holds() -> None:
    units = [UnitRows.of(PLAN, Unit(i, i + 1), numbered(1)) for i in range(3)]
    assert [bundle_of(units[:n]).num_rows for n in (1, 3)] == [1, 1]


def test_a_unit_goes_in_and_out_of_a_bundle_without_a_copy() -> None:
    rows = numbered(3)
    (unit,) = units_of_bundle(bundle_of([UnitRows.of(PLAN, Unit(0, 3), rows)]))
    before, after = (table["n"].chunk(0).buffers()[1].address for table in (rows, unit.rows))
    assert before == after


def test_a_unit_can_have_other_rows() -> None:
    unit = UnitRows.of(PLAN, Unit(3, 5), numbered(2)).with_rows(pa.table({"score": [1.5, None]}))
    assert unit.rows["score"].to_pylist() == [1.5, None]
    assert unit.piece == "a/p.000000000003-000000000005.parquet"
    assert unit.start == 3
