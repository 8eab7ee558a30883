"""When held rows are enough for a row group."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sf_ray.output.writers.held_rows import HeldRows, RowGroupSize


def groups_of(sizes: list[int], enough: RowGroupSize) -> list[list[int]]:
    groups: list[list[int]] = []
    rows = HeldRows(
        lambda batches: groups.append([n for batch in batches for n in batch["n"].to_pylist()]),
        enough,
    )
    first = 0
    for size in sizes:
        rows.write(pa.record_batch({"n": pa.array(range(first, first + size), pa.int64())}))
        first += size
    rows.finish()
    return groups


@given(st.lists(st.integers(0, 9)), st.integers(1, 7))
def test_row_groups_have_as_many_rows_as_were_asked_for(sizes: list[int], most: int) -> None:
    groups = groups_of(sizes, RowGroupSize(rows=most))
    assert [row for group in groups for row in group] == list(range(sum(sizes)))
    assert all(len(group) == most for group in groups[:-1])
    assert all(0 < len(group) <= most for group in groups)


@given(st.lists(st.integers(0, 9)), st.integers(1, 70))
def test_row_groups_are_full_with_the_row_that_reaches_the_bytes(
    sizes: list[int], most: int
) -> None:
    groups = groups_of(sizes, RowGroupSize(bytes=most))
    assert [row for group in groups for row in group] == list(range(sum(sizes)))
    rows = -(-most // 8)  # of 8 bytes each
    assert all(len(group) == rows for group in groups[:-1])
    assert all(0 < len(group) <= rows for group in groups)


def test_rows_without_bytes_are_rows_too() -> None:
    batch = pa.RecordBatch.from_arrays([pa.nulls(5)], ["n"])
    groups: list[int] = []
    rows = HeldRows(lambda batches: groups.append(sum(b.num_rows for b in batches)))
    rows.write(batch)
    rows.finish()
    assert groups == [5]


@pytest.mark.parametrize("enough", [RowGroupSize(rows=3), RowGroupSize(bytes=24)])
def test_no_rows_are_no_row_group(enough: RowGroupSize) -> None:
    assert groups_of([], enough) == groups_of([0, 0], enough) == []
