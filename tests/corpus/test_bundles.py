import pyarrow as pa

from sf_ray.corpus.bundles import rewrap_unit, unwrap_bundle, unwrap_unit, wrap_bundle, wrap_unit
from sf_ray.corpus.units import ReadPlan, Unit
from sf_ray.storage.files import File

PLAN = ReadPlan(File("s", "s", 1, "1"), "a/p", (), range(1), 0)


def numbered(rows: int) -> pa.Table:
    schema = pa.schema([("n", pa.int64()), ("ids", pa.list_(pa.int32()))])
    return pa.table({"n": range(rows), "ids": [[i] * i for i in range(rows)]}, schema=schema)


def test_units_come_out_of_merged_and_sliced_blocks_as_they_went_in() -> None:
    tables = [numbered(2), numbered(0), numbered(3)]
    units = [wrap_unit(PLAN, Unit(9 * i, 9 * i + 9), table) for i, table in enumerate(tables)]
    block = pa.concat_tables([wrap_bundle(units[:2]), wrap_bundle(units[2:])])
    for whole in (block, block.combine_chunks()):
        out = [unwrap_bundle(whole.slice(i, 1)) for i in range(2)]
        assert [len(bundle) for bundle in out] == [2, 1]
        unpacked = [unit for bundle in out for unit in bundle]
        assert [unit.num_rows for unit in unpacked] == [1, 1, 1]
        for unit, row, table in zip(unpacked, units, tables, strict=True):
            assert unit["piece"] == row["piece"]
            assert unwrap_unit(unit).equals(table)


def test_a_unit_can_have_other_rows() -> None:
    unit = rewrap_unit(wrap_unit(PLAN, Unit(3, 5), numbered(2)), pa.table({"score": [1.5, None]}))
    assert unwrap_unit(unit)["score"].to_pylist() == [1.5, None]
    assert unit["piece"].to_pylist() == ["a/p.000000000003-000000000005.parquet"]
    assert unit["start"].to_pylist() == [3]
