import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sf_ray.locations import Location
from sf_ray.planning import plan_corpus
from sf_ray.reading import read_units, values_of
from sf_ray.units import group_reads, units_of


@given(
    row_groups=st.lists(st.integers(1, 40), min_size=1, max_size=5), unit_rows=st.integers(1, 30)
)
def test_units_are_read_as_they_were_planned(
    tmp_path_factory: pytest.TempPathFactory, row_groups: list[int], unit_rows: int
) -> None:
    folder = tmp_path_factory.mktemp("read")
    rows = sum(row_groups)
    table = pa.table({"text": [f"row {i}" for i in range(rows)], "other": range(rows)})
    with pq.ParquetWriter(folder / "x.parquet", table.schema) as writer:
        start = 0
        for rows in row_groups:
            writer.write_table(table.slice(start, rows))
            start += rows
    shard = plan_corpus(Location(str(folder))).shards[0]
    units = units_of(shard.row_groups, unit_rows)
    for chosen in (units, units[1::2]):  # all of them, and what a killed run left
        read = [
            (unit, part)
            for plan in group_reads(shard, chosen)
            for unit, part in zip(
                plan.units, read_units(Location(str(folder)), plan, ["text"]), strict=True
            )
        ]
        assert [unit for unit, _ in read] == chosen
        for unit, part in read:
            assert part.column_names == ["text"]
            assert part["text"].to_pylist() == [f"row {i}" for i in range(unit.start, unit.stop)]


def test_one_broken_cell_does_not_take_the_others_with_it() -> None:
    broken = pa.array([b"good", b"\xff\xfe", None]).view(pa.string())
    assert values_of(pa.chunked_array([broken])) == ["good", b"\xff\xfe", None]
    words = pa.chunked_array([pa.array(["a", "b", "a"]).dictionary_encode()])
    assert values_of(words) == ["a", "b", "a"]
