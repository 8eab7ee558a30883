import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sf_ray.config.quotas import NULL
from sf_ray.corpus.planning import plan_corpus
from sf_ray.corpus.readers.json_lines import LINES
from sf_ray.corpus.units import Place, Unit, units_of
from sf_ray.errors import SfRayError, UsageError
from sf_ray.selection import group_column
from sf_ray.selection.group_column import column_of, find_column, group_problem
from sf_ray.storage.location import Location

COLUMNS = {
    "text": (pa.array(["b", "a", "b", "c", "a"]), "b a b c a"),
    "gaps": (pa.array(["b", None, "b", None, "null"]), "b null b null null"),
    "large": (pa.array(["b", "a", None, "c", "a"], pa.large_string()), "b a null c a"),
    "coded": (pa.array(["b", "a", None, "c", "a"]).dictionary_encode(), "b a null c a"),
    "whole": (pa.array([3, 1, None, 3, 2]), "3 1 null 3 2"),
    "truth": (pa.array([True, False, None, True, True]), "true false null true true"),
    "broken": (pa.array([b"\xff", b"a", b"a", b"a", b"a"]).cast(pa.string(), safe=False), ""),
    "nothing": (pa.nulls(5), "null null null null null"),
    "a.b": (pa.array(["x", "y", "x", "y", "x"]), "x y x y x"),
    "a.c": (None, "1 null null 2 1"),
}
NESTED = pa.array([{"b": "no", "c": 1}, None, {"b": "no", "c": None}, {"c": 2}, {"c": 1}])


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    table = pa.table({name: one for name, (one, _) in COLUMNS.items() if one is not None})
    pq.write_table(table.append_column("a", NESTED), tmp_path / "x.parquet", row_group_size=3)
    return tmp_path


@pytest.mark.parametrize("name", COLUMNS)
def test_rows_have_the_values_of_the_column(corpus: Path, name: str) -> None:
    plan = plan_corpus(Location(str(corpus)))
    (shard,) = plan.shards
    places = [(shard, unit) for unit in units_of(shard.row_groups, 2)]
    assert len(places) == 3
    column = find_column(plan.schema, name)
    counts = column.count(plan.location, places)
    values = sorted(counts)
    codes = column.codes(plan.location, places, {value: at for at, value in enumerate(values)})
    expected = COLUMNS[name][1].split() or ["\\xff", "a", "a", "a", "a"]
    assert [values[code] for code in codes] == expected
    assert counts == {value: expected.count(value) for value in expected}
    assert column.codes(plan.location, [], {}).tolist() == []


def test_a_column_of_too_many_values_is_refused(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_column, "MOST_VALUES", 2)
    plan = plan_corpus(Location(str(corpus)))
    places = [(plan.shards[0], unit) for unit in units_of((3, 2), 5)]
    with pytest.raises(SfRayError, match="'text' has more than 2 values, e.g. 'b', 'a', 'c'"):
        find_column(plan.schema, "text").count(plan.location, places)


def test_rows_of_a_shard_without_the_column_have_no_value(tmp_path: Path) -> None:
    tables = {
        "0": pa.table({"text": ["a"]}),
        "1": pa.table({"text": ["a"]}),
        "2": pa.table({"meta": [{"source": "web"}], "text": ["a"]}),
        "3": pa.table({"meta": [{"id": 7}]}),
        "4": pa.table({"meta.source": ["book"]}),
    }
    for name, table in tables.items():
        pq.write_table(table, tmp_path / f"{name}.parquet")
    corpus = plan_corpus(Location(str(tmp_path)))
    places = [Place(shard, Unit(0, 1)) for shard in corpus.shards]
    column = column_of(corpus, "meta.source")
    assert column.count(corpus.location, places) == {NULL: 3, "web": 1, "book": 1}
    with pytest.raises(UsageError, match="the corpus has no column 'nowhere'; it has text"):
        column_of(corpus, "nowhere")


def test_why_a_column_makes_no_groups_is_said() -> None:
    schema = pa.schema([("a", pa.list_(pa.string())), ("b", pa.int8()), ("b", pa.string())])
    assert "has the type list" in group_problem(schema, "a")
    assert "2 columns of the name 'b'" in group_problem(schema, "b")
    assert group_problem(schema, "absent") == group_problem(LINES, "a") == ""


@pytest.mark.parametrize("is_json", [True, False])
def test_long_values_have_short_names_and_stay_groups_of_their_own(
    tmp_path: Path, is_json: bool
) -> None:
    values = ["x" * 100_000 + str(i % 4) for i in range(12)]
    if is_json:
        lines = [json.dumps({"source": value}) for value in values]
        (tmp_path / "x.jsonl").write_text("\n".join(lines) + "\n")
    else:
        pq.write_table(pa.table({"source": values}), tmp_path / "x.parquet")
    plan = plan_corpus(Location(str(tmp_path)))
    column = column_of(plan, "source")
    places = [Place(shard, unit) for shard in plan.shards for unit in units_of(shard.row_groups, 5)]
    counts = column.count(plan.location, places)
    assert sorted(counts.values()) == [3, 3, 3, 3]
    assert all(len(name) < 200 for name in counts)
