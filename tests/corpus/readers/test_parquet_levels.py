"""What runs of levels say of rows, and what a dictionary says of its texts."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sf_ray.corpus.readers import parquet_levels
from sf_ray.corpus.readers.parquet_levels import (
    RowRuns,
    longest_delta_text,
    longest_text,
    row_runs,
)
from tests.support.parquet_bytes import delta_packed, varint, with_length


def rows_one_by_one(levels: list[int]) -> RowRuns:
    starts = [i for i, level in enumerate(levels) if not level]
    ends = [*starts[1:], len(levels)] if starts else []
    sizes = [end - start for start, end in zip(starts, ends, strict=True)]
    before = starts[0] if starts else len(levels)
    return RowRuns(before, max(sizes, default=0), sizes[-1] if sizes else 0)


def packed(levels: list[int], width: int) -> bytes:
    bits = [level >> bit & 1 for level in levels for bit in range(width)]
    return np.packbits(np.array(bits, np.uint8), bitorder="little").tobytes()


@given(
    parts=st.lists(
        st.one_of(
            st.tuples(st.integers(1, 40), st.integers(0, 3)),
            st.lists(st.integers(0, 3), min_size=8, max_size=40).map(
                lambda levels: levels[: len(levels) // 8 * 8]
            ),
        ),
        max_size=6,
    ),
    cut=st.integers(0, 9),
    at_once=st.sampled_from([1, 2, 1 << 16]),
)
def test_rows_are_as_long_as_level_by_level(
    parts: list[tuple[int, int] | list[int]], cut: int, at_once: int
) -> None:
    data, levels = b"", []
    for part in parts:
        if isinstance(part, tuple):
            data += varint(part[0] << 1) + bytes([part[1]])
            levels += [part[1]] * part[0]
        else:
            data += varint(len(part) // 8 << 1 | 1) + packed(part, 2)
            levels += part
    values = max(0, len(levels) - cut)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet_levels, "_GROUPS_AT_ONCE", at_once)
        assert row_runs(data, values, 2) == rows_one_by_one(levels[:values])


def test_a_billion_levels_are_counted_from_a_few_bytes() -> None:
    data = varint(3 << 1) + b"\0" + varint(10**9 << 1) + b"\1"
    assert row_runs(data, 10**9 + 3, 1) == RowRuns(0, 10**9 + 1, 10**9 + 1)


def test_more_runs_than_any_writer_makes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_levels, "_MOST_RUNS", 100)
    with pytest.raises(pa.ArrowInvalid, match="too many runs"):
        row_runs((varint(1 << 1) + b"\1") * 101, 1000, 1)


@pytest.mark.parametrize("data", [b"", b"\xff", b"\xff" * 30, b"\x07\xff", b"\x02"])
def test_levels_that_are_cut_end(data: bytes) -> None:
    assert row_runs(data, 5, 1).longest <= 5


def test_the_longest_text_of_a_dictionary() -> None:
    assert longest_text(with_length(b"ab") + with_length(b"abcd") + with_length(b"")) == 4
    assert longest_text(b"") == 0
    assert longest_text(b"\xff\xff\xff\xffabc") == 7  # no more than there is


@pytest.mark.parametrize("count", [129, 150, 400])
def test_the_longest_text_of_those_that_go_on_from_each_other(count: int) -> None:
    lengths = delta_packed(3, 7, count - 1) + delta_packed(5, 2, count - 1)
    assert longest_delta_text(lengths + b"text") == 9


@pytest.mark.parametrize(
    "values",
    [
        b"",
        b"\xff" * 40,
        delta_packed(0, 9, 300)[:-1] + delta_packed(9, 0, 200),
        delta_packed(0, 9, 300) + delta_packed(9, 0, 200),
        delta_packed(0, 9, 300) + delta_packed(9, 0, 300)[:12],
        varint(1 << 20) + varint(4) + varint(1) + varint(0),
        varint(128) + varint(4) + varint(1 << 30) + varint(0),
        varint(128) + varint(4) + varint(100) + varint(0) + varint(0) + bytes([64] * 4) + b"x" * 99,
    ],
    ids=["none", "ones", "cut", "unequal", "short", "a large block", "too many", "too wide"],
)
def test_lengths_that_no_writer_makes_say_nothing(values: bytes) -> None:
    assert longest_delta_text(values) is None
