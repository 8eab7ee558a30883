import json

import pytest

from sf_ray.corpus.readers.json_shapes import problem_of

ROW = {"instruction": "Say a.", "input": "", "output": "a"}
CHAT = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
COLUMNS = {name: {"0": "x", "1": "y"} for name in ROW}


def rows_of(text: str) -> int:
    return sum(bool(line.strip()) for line in text.split("\n"))


def problem(text: str, is_whole: bool = True) -> str:
    return problem_of(text.encode(), is_whole, rows_of(text), "a.json") or ""


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"version": "1", "data": [ROW, ROW]}, "an array in `data`"),
        ({"rows": [CHAT]}, "an array in `rows`"),
        ({"train": [ROW], "test split": [ROW]}, """'.train[], .["test split"][]'"""),
        ({"anything": [{"q": "x", "a": "y"}]}, "an array in `anything`"),
        (COLUMNS, "a table column by column, as pandas writes it"),
        ({"q": {"0": "x"}, "a": {"0": "y"}}, "a table column by column"),
        ({"q": ["x", "y"], "a": ["z", None]}, "a table column by column"),
        ({"columns": ["a"], "index": [0], "data": [["x"]]}, "its columns, index and values apart"),
        ({"schema": {"fields": []}, "data": [ROW]}, "an array in `data`"),
        ({"0": ROW, "1": ROW}, "one object of rows by name"),
        ({"cells": [], "nbformat": 4}, "a Jupyter notebook"),
        ([ROW, ROW], "one JSON array, while a row is one line; give it a name that ends in .json"),
    ],
)
def test_one_value_that_is_the_whole_file_is_named(
    value: object, words: str, indent: int | None
) -> None:
    assert words in problem(json.dumps(value, indent=indent))


@pytest.mark.parametrize(
    "value",
    [
        ROW, CHAT, {}, {"conversations": ["q", "a"]}, {"q": "x", "refs": [{"title": "t"}]},
        {"prompt": CHAT["messages"], "completion": CHAT["messages"]},
        {"q": {"text": "x"}, "a": {"text": "y"}}, {"chat": CHAT["messages"]},
    ],
)  # fmt: skip
def test_one_row_is_a_shard_too(value: object) -> None:
    assert not problem(json.dumps(value))
    assert not problem(json.dumps(value) + "\n" + json.dumps(ROW))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("".join(json.dumps(row, indent=2) + "\n" for row in (ROW, CHAT)), "holds objects over se"),
        ("{\n}\n" + json.dumps(ROW), "holds objects over several lines"),
        (json.dumps(ROW, indent=2), "is one object over several lines"),
        (json.dumps(ROW) * 3, "follow each other without a line break"),
        (f"{json.dumps(ROW)} {json.dumps(ROW)}\n" * 3, "follow each other without a line break"),
        (f"{json.dumps(ROW)},\n" * 3, "a comma stands behind each of its objects"),
        (f"{json.dumps(ROW)}\r" * 3, r"carriage return alone (\r)"),
        (f"\ufeff{json.dumps(ROW)}\r\r" * 3, r"carriage return alone (\r)"),
        ("instruction,output\nx,y\n", "is no JSON: it begins with 'instruction,output'"),
        ("- instruction: x\n  output: y\n", "is no JSON"),
    ],
)
def test_rows_that_do_not_stand_one_a_line_are_named(text: str, words: str) -> None:
    assert words in problem(text)


@pytest.mark.parametrize(
    "text",
    [
        f"{json.dumps(ROW)}\r\n" * 3,
        '{"a": 1\n' + json.dumps(ROW),
        '{"a": 1} {"b": 2}\n' + json.dumps(ROW),
        "{'a': 1}\n" + json.dumps(ROW),
        "x\n" + json.dumps(ROW),
        "[1]\n" + json.dumps(ROW),
        "x",
        '{"a": 1',
        "[" * 100_000,
    ],
)
def test_one_broken_line_is_no_problem_of_the_whole_file(text: str) -> None:
    assert not problem(text)


@pytest.mark.parametrize(
    ("value", "indent", "words"),
    [
        ({"version": 1.5, "name": 'a "b"', "data": [ROW] * 9}, 1, "an array in `data`"),
        ({"data": [ROW] * 9}, None, "an array in `data`"),
        ([ROW] * 9, 1, "one JSON array"),
        (CHAT, 1, "is one object over several lines"),
        (CHAT, None, ""),
        (ROW, None, ""),
    ],
)
def test_the_beginning_of_a_large_file_is_enough(
    value: object, indent: int | None, words: str
) -> None:
    text = json.dumps(value, indent=indent)[:-20]
    found = problem(text, is_whole=False)
    assert words in found
    assert bool(found) == bool(words)


def test_a_beginning_of_blanks_has_no_shape() -> None:
    assert problem_of(b" \n" * 1000, False, 1, "a.jsonl") is None
