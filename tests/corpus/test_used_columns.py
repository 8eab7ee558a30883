import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sf_ray.corpus.formats import resolve_format
from sf_ray.corpus.planning import plan_corpus
from sf_ray.corpus.readers.json_lines import LINES
from sf_ray.corpus.used_columns import different_columns, find_fields, text_problem, top_level
from sf_ray.storage.location import Location

TEXT = pa.string()


def test_columns_may_name_fields_inside_them() -> None:
    assert top_level(["data.messages", "a.b", "data.id", "c"], ["data", "a.b", "c"]) == [
        "data",
        "a.b",
        "c",
    ]
    inside = pa.struct([("messages", pa.list_(TEXT)), ("twice", TEXT), ("twice", TEXT)])
    schema = pa.schema([("data", inside), ("a.b", TEXT), ("a", TEXT)])
    assert [len(find_fields(schema, path)) for path in ("data", "data.messages", "a.b")] == [1] * 3
    assert len(find_fields(schema, "data.twice")) == 2
    assert [find_fields(schema, path) for path in ("b", "data.b", "a.c")] == [[]] * 3


@pytest.mark.parametrize(
    "text_type",
    [
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.dictionary(pa.int32(), pa.string()),
        pa.dictionary(pa.int8(), pa.large_string()),
        pa.null(),
        pa.json_(),
        pa.json_(pa.large_string()),
        pa.list_(pa.struct([("role", pa.string())])),
    ],
)
def test_a_used_column_may_have_any_type_that_holds_text(text_type: pa.DataType) -> None:
    row_format = resolve_format(["instruction", "input", "output"])
    schema = pa.schema([("output", text_type), ("other", pa.int8()), ("instruction", text_type)])
    assert text_problem(schema, row_format) == ""  # in any order, without the optional column
    assert text_problem(schema.append(pa.field("input", text_type)), row_format) == ""


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ([("instruction", TEXT)], "it has no column 'output'"),
        ([("instruction", TEXT), ("output", pa.int64())], "column 'output' has the type int64"),
        ([("instruction", TEXT), ("output", pa.float64())], "column 'output' has the type double"),
        ([("instruction", TEXT), ("output", pa.binary())], "column 'output' has the type binary"),
        ([("instruction", TEXT), ("output", TEXT), ("input", pa.bool_())], "column 'input'"),
        ([("instruction", TEXT), ("output", TEXT), ("output", TEXT)], "2 columns .*'output'"),
        ([("instruction", TEXT), ("output", TEXT), *[("input", TEXT)] * 3], "3 columns .*'input'"),
        ([("instruction", TEXT), ("output", TEXT), ("id", TEXT), ("id", TEXT)], ""),
        ([("instruction", TEXT), ("output", TEXT), ("input", pa.float64())], ""),  # all are NaN
    ],
)
def test_what_is_wrong_with_a_used_column_is_said(
    columns: list[tuple[str, pa.DataType]], words: str
) -> None:
    problem = text_problem(pa.schema(columns), resolve_format(["instruction", "input", "output"]))
    assert bool(problem) == bool(words)
    assert re.search(words, problem)


def test_fields_of_what_is_no_struct_show_only_in_values() -> None:
    row_format = resolve_format(["data"], columns={"messages": "data.messages"})
    assert text_problem(pa.schema([("data", pa.json_())]), row_format) == ""
    assert text_problem(LINES, row_format) == ""
    empty = pa.schema([("data", pa.struct([("id", TEXT)]))])
    assert text_problem(empty, row_format) == "it has no column 'data.messages'"


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        ({"a": pa.string()}, {"a": pa.large_string()}, ""),
        ({"a": pa.string()}, {"a": pa.dictionary(pa.int32(), pa.string())}, ""),
        ({"a": pa.list_(pa.string())}, {"a": pa.large_list(pa.large_string())}, ""),
        (
            {"a": pa.struct([("b", pa.list_(pa.string()))])},
            {"a": pa.struct([("b", pa.list_(pa.large_string()))])},
            "",
        ),
        (
            {"a": pa.map_(pa.string(), pa.string())},
            {"a": pa.map_(pa.large_string(), pa.string())},
            "",
        ),
        ({"a": pa.int32()}, {"a": pa.int64()}, "column 'a' is int32 and int64"),
        ({"a": TEXT}, {"a": TEXT, "b": TEXT}, "column 'b' is absent and string"),
        ({"a": TEXT, "b": TEXT}, {"b": TEXT, "a": TEXT}, "in another order"),
        ({"a": TEXT}, {"a": pa.null()}, "column 'a' is string and null"),
    ],
)
def test_shards_fit_into_one_file_if_parquet_stores_them_alike(
    tmp_path: Path, one: dict[str, pa.DataType], other: dict[str, pa.DataType], words: str
) -> None:
    for name, types in (("0.parquet", one), ("1.parquet", one), ("2.parquet", other)):
        arrays = {column: pa.nulls(1, kind) for column, kind in types.items()}
        pq.write_table(pa.table(arrays), tmp_path / name)
    different = different_columns(plan_corpus(Location(str(tmp_path))))
    assert bool(different) == bool(words)
    assert words in different
    assert not different or different.startswith("0.parquet and 2.parquet differ: ")
