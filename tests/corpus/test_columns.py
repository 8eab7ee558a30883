from typing import Any

import pytest

from sf_ray.corpus.columns import as_in_json, in_words, unused_text
from sf_ray.corpus.formats import SampleRow, resolve_format

ROW: dict[str, Any] = {"instruction": "Q", "output": "A"}


def sample_of(*rows: dict[str, Any]) -> list[SampleRow]:
    return [SampleRow("a.jsonl", number, row) for number, row in enumerate(rows)]


def test_columns_of_text_that_the_format_does_not_use_are_named() -> None:
    deep: object = "x"
    for _ in range(100_000):
        deep = [deep]
    rows = [
        ROW
        | {
            "deep": deep,
            "title": None,
            "tags": ["x"],
            "n": 1,
            "empty": " ",
            "input": "I",
            "history": [],
        },
        ROW | {"title": "T", "meta": {"by": [None, "me"]}, "numbers": [1], "nothing": {"a": None}},
    ]
    found = resolve_format(list(rows[0] | rows[1]), sample=sample_of(*rows))
    assert unused_text(found, sample_of(*rows)) == [
        "tags (lists)",
        "title (text)",
        "meta (objects)",
    ]
    nested = resolve_format(["data", "id"], columns={"messages": "data.chat"})
    assert unused_text(nested, sample_of({"data": {"chat": [], "by": "me"}, "id": "1"})) == [
        "id (text)"
    ]


def test_many_names_are_counted() -> None:
    assert in_words(["a (text)", "b (text)"]) == "a (text), b (text)"
    assert in_words([str(i) for i in range(14)]).endswith("10, 11 and 2 more")


@pytest.mark.parametrize(
    ("field", "value"), [("context", ["no", "text"]), ("history", "no list"), ("history", 3)]
)
def test_a_column_of_another_kind_is_not_taken_for_a_known_field(field: str, value: object) -> None:
    rows = sample_of(ROW | {field: value}, ROW)
    found = resolve_format([*ROW, field], sample=rows)
    assert field not in found.columns
    assert as_in_json(found, rows).render(rows[0].row) == found.render(ROW)


def test_a_field_of_json_counts_though_no_sampled_row_has_it_and_the_identity_stays() -> None:
    rows = sample_of(ROW, ROW | {"history": [], "context": None, "images": []})
    found = as_in_json(resolve_format([*ROW, "history", "images"], sample=rows), rows)
    assert set(found.columns) == {"instruction", "output", "input", "system"}
    later = found.render(ROW | {"context": "C", "history": [["q", "a"]]})
    assert later == resolve_format([*ROW, "context", "history"]).render(
        ROW | {"context": "C", "history": [["q", "a"]]}
    )
    used = sample_of(ROW | {"context": "C"})
    with_context = as_in_json(resolve_format([*ROW, "context"], sample=used), used)
    assert with_context.columns["context"] == "context"


def test_a_column_is_never_two_fields() -> None:
    row = {"context": "Q", "output": "A", "input": "I"}
    found = resolve_format(list(row), columns={"instruction": "context"})
    assert "context" not in found.columns
    in_json = as_in_json(found, sample_of(row))
    expected = resolve_format(["instruction", "output", "input"]).render(
        {"instruction": "Q", "output": "A", "input": "I"}
    )
    assert found.render(row) == in_json.render(row) == expected
    twice = as_in_json(
        resolve_format(["input", "output"], columns={"instruction": "input"}), sample_of(row)
    )
    assert "input" not in twice.columns
