"""Rows picked out of batches of every Arrow type, at any depth of nesting."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sf_ray.output.writers.arrow_rows import filter_rows, take_rows, uncopyable
from tests.support.arrow_types import arrays, cells, interval_field


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_picked_rows_have_the_values_and_the_type_they_had(data: st.DataObject) -> None:
    length = data.draw(st.integers(0, 12))
    column = data.draw(arrays(length, 3))
    # The middle of a larger array: what is picked must not depend on where its memory begins.
    start = data.draw(st.integers(0, length))
    field = pa.field("a", column.type, metadata={"b": "c"})
    schema = pa.schema([field], metadata={"d": "e"})
    batch = pa.RecordBatch.from_arrays([column], schema=schema).slice(start)
    assert not uncopyable(schema)
    bits = data.draw(st.lists(st.booleans(), min_size=len(batch), max_size=len(batch)))
    mask = np.array(bits, bool)
    before = cells(batch)

    kept = filter_rows(batch, mask)
    kept.validate(full=True)
    assert kept.schema.equals(schema, check_metadata=True)
    assert cells(kept) == [before[i] for i in np.flatnonzero(mask)]

    order = data.draw(st.permutations(range(len(batch))))
    cut = data.draw(st.integers(0, len(batch)))
    table = pa.Table.from_batches([batch.slice(0, cut), batch.slice(cut)])
    taken = take_rows(table, np.array(order, np.int64))
    taken.validate(full=True)
    assert taken.schema.equals(schema, check_metadata=True)
    read = [cell for part in taken.to_batches() for cell in cells(part)]
    assert read == [before[i] for i in order]


def test_text_that_is_not_utf8_is_picked_as_it_is() -> None:
    stored = pa.array([b"\xff" * 20, b"b", b"\xfe" * 20], pa.binary_view())
    text = pa.Array.from_buffers(pa.string_view(), 3, stored.buffers())
    kept = filter_rows(pa.record_batch({"a": text}), np.array([True, False, True]))
    assert kept["a"].cast(pa.binary_view()).to_pylist() == [b"\xff" * 20, b"\xfe" * 20]


def test_picked_views_leave_the_other_text_behind() -> None:
    batch = pa.record_batch({"a": pa.array(["x" * 1000] * 1000, pa.string_view())})
    kept = filter_rows(batch, np.arange(1000) < 3)
    assert sum(buffer.size for buffer in kept["a"].buffers() if buffer) < 4000


def test_more_rows_than_one_batch_can_count_come_in_several() -> None:
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([30_000], pa.int16()), ["a"])
    table = pa.Table.from_batches([pa.record_batch({"a": runs})] * 2)
    taken = take_rows(table, np.arange(60_000)[::-1])
    assert taken.num_rows == 60_000
    assert max(len(chunk) for chunk in taken["a"].chunks) < 1 << 15


@pytest.mark.parametrize("unit", ["months", "days"])
def test_a_type_that_python_cannot_hold_is_named(unit: str) -> None:
    schema = pa.schema([("good", pa.string_view()), ("bad", pa.list_(interval_field("x", unit)))])
    (reason,) = uncopyable(schema)
    assert reason.startswith("column 'bad' is list<x: ")
    assert "cannot copy the type" in reason
