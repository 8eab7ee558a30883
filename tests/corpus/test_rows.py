from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sf_ray.corpus.fields import BrokenJson
from sf_ray.corpus.planning import plan_corpus
from sf_ray.corpus.rows import read_units, rows_of, values_of
from sf_ray.corpus.sampling import sample_rows
from sf_ray.corpus.units import group_reads, units_of
from sf_ray.storage.location import Location


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


JSON = pa.ExtensionArray.from_storage(
    pa.json_(), pa.array(['{"a": null}', None, "[1", '"x\\ud83d"'], pa.string())
)
VALUES = [{"a": None}, None, BrokenJson(b"[1"), b"x\xed\xa0\xbd"]
PAIRS = [VALUES[:2], VALUES[2:]]


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (JSON, VALUES),
        (
            pa.ExtensionArray.from_storage(
                pa.json_(pa.string_view()), JSON.storage.cast("string_view")
            ),
            VALUES,
        ),
        (
            pa.ExtensionArray.from_storage(
                pa.json_(pa.large_string()), JSON.storage.cast("large_string")
            ),
            VALUES,
        ),
        (pa.DictionaryArray.from_arrays([3, 0, None], JSON), [VALUES[3], VALUES[0], None]),
        (pa.RunEndEncodedArray.from_arrays([1, 2, 3, 4], JSON), VALUES),
        (pa.ListArray.from_arrays([0, 2, 4], JSON), PAIRS),
        (pa.LargeListArray.from_arrays([0, 2, 4], JSON), PAIRS),
        (pa.ListViewArray.from_arrays([0, 2], [2, 2], JSON), PAIRS),
        (pa.FixedSizeListArray.from_arrays(JSON, 2), PAIRS),
        (pa.StructArray.from_arrays([JSON], ["j"]), [{"j": value} for value in VALUES]),
        (
            pa.MapArray.from_arrays([0, 2, 4], list("abcd"), JSON),
            [[("a", VALUES[0]), ("b", None)], [("c", VALUES[2]), ("d", VALUES[3])]],
        ),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_json_is_parsed_at_any_depth(array: pa.Array, expected: list[object]) -> None:
    assert values_of(pa.chunked_array([array])) == expected
    deeper = pa.ListArray.from_arrays([0, len(array)], pa.StructArray.from_arrays([array], ["s"]))
    (found,) = values_of(pa.chunked_array([deeper]))
    assert found == [{"s": value} for value in expected]


def test_json_that_is_no_utf_8_is_bytes_and_takes_nothing_with_it() -> None:
    broken = pa.array([b'"\xff"', b'{"a": 1}'], pa.binary()).view(pa.string())
    json_type = pa.ExtensionArray.from_storage(pa.json_(), broken)
    assert values_of(pa.chunked_array([json_type])) == [b'"\xff"', {"a": 1}]
    inside = pa.StructArray.from_arrays([json_type, pa.array(["x", "y"])], ["j", "s"])
    assert values_of(pa.chunked_array([inside])) == [
        {"j": b'"\xff"', "s": "x"},
        {"j": {"a": 1}, "s": "y"},
    ]


def test_other_extension_types_are_their_storage() -> None:
    opaque = pa.ExtensionArray.from_storage(
        pa.opaque(pa.string(), "money", "bank"), pa.array(["1 EUR", None])
    )
    assert values_of(pa.chunked_array([opaque])) == ["1 EUR", None]


def test_nested_columns_come_out_as_lists_and_dicts() -> None:
    chats = [[{"role": "user", "content": "hello"}], [], None]
    table = pa.table({"messages": chats, "meta": [{"n": [1, 2]}, None, {"n": []}]})
    assert list(rows_of(table)) == table.to_pylist()


def test_one_broken_text_deep_inside_does_not_take_the_others_with_it() -> None:
    kind = pa.struct([("role", pa.string()), ("content", pa.large_string())])
    texts = pa.array([b"good", b"\xff\xfe", None], pa.large_binary()).view(pa.large_string())
    turns = pa.StructArray.from_arrays([pa.array(["user"] * 3), texts], fields=list(kind))
    column = pa.ListArray.from_arrays([0, 1, 2, 3], turns)
    assert values_of(pa.chunked_array([column])) == [
        [{"role": "user", "content": content}] for content in ("good", b"\xff\xfe", None)
    ]


def test_what_python_has_no_value_for_is_none() -> None:
    times = pa.StructArray.from_arrays(
        [pa.array([10**7], pa.date32()), pa.array(["a"])], names=["at", "text"]
    )
    assert values_of(pa.chunked_array([times])) == [{"at": None, "text": "a"}]


def test_half_of_a_surrogate_pair_is_bytes(tmp_path: Path) -> None:
    line = b'{"a": "\\ud83d", "b": ["\\ud83d\\ude00", {"c": "x\\uDE00"}], "d": "\\u00e9"}'
    (tmp_path / "a.jsonl").write_bytes(line)
    (row,) = sample_rows(plan_corpus(Location(str(tmp_path))))
    assert row.row == {
        "a": b"\xed\xa0\xbd",
        "b": ["\U0001f600", {"c": b"x\xed\xb8\x80"}],
        "d": "\u00e9",
    }


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_a_column_that_a_shard_lacks_is_null(tmp_path: Path, suffix: str) -> None:
    table = pa.table({"other": range(5), "text": [f"row {i}" for i in range(5)]})
    if suffix == "parquet":
        pq.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    else:
        with pa.ipc.new_stream(tmp_path / "a.arrow", table.schema) as stream:
            stream.write_table(table, max_chunksize=2)
    location = Location(str(tmp_path))
    (shard,) = plan_corpus(location).shards
    plans = group_reads(shard, units_of(shard.row_groups, 3))
    for columns, expected in (
        (["input", "text"], [{"input": None, "text": f"row {i}"} for i in range(5)]),
        (["data.source"], [{"data": None}] * 5),
    ):
        read = [part for plan in plans for part in read_units(location, plan, columns)]
        assert [row for part in read for row in rows_of(part)] == expected


def test_rows_come_out_few_at_a_time_and_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sf_ray.corpus.rows._ROWS_AT_ONCE", 2)
    sizes: list[int] = []

    def counted(column: pa.ChunkedArray) -> list[object]:
        sizes.append(len(column))
        return values_of(column)

    monkeypatch.setattr("sf_ray.corpus.rows.values_of", counted)
    table = pa.concat_tables([pa.table({"n": range(3)}), pa.table({"n": range(3, 5)})])
    assert [row["n"] for row in rows_of(table) if isinstance(row, dict)] == list(range(5))
    assert max(sizes) == 2
