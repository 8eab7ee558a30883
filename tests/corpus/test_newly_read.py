from typing import Any

import pyarrow as pa
import pytest

from sf_ray.corpus.formats import SampleRow, resolve_format
from sf_ray.corpus.newly_read import newly_read
from tests.support.chats import ANSWER, USER

CALL = {"name": "f", "arguments": '{"a": 1}'}
PADDED = dict.fromkeys(("weight", "train", "function_call", "reasoning_content", "tool_calls"))


def of_chat(*more: dict[str, Any]) -> list[str]:
    row = {"messages": [USER, *(ANSWER | fields for fields in more)]}
    return newly_read(resolve_format(["messages"]), None, [SampleRow("a", 0, row)])


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, []),
        (PADDED, []),
        ({"weight": 1, "train": True}, []),
        ({"tool_calls": [{"function": CALL}]}, []),
        ({"tool_calls": [{"function": CALL | {"arguments": {"a": None}}}]}, []),
        (
            {"tool_calls": [{"function": CALL | {"arguments": '{"a": null}'}}]},
            ["nulls in arguments"],
        ),
        ({"weight": 0}, ["weight"]),
        ({"train": False}, ["train"]),
        ({"reasoning_content": "Hm."}, ["reasoning_content"]),
        ({"function_call": CALL}, ["function_call"]),
    ],
)
def test_what_older_versions_read_otherwise_is_named(
    fields: dict[str, Any], expected: list[str]
) -> None:
    assert of_chat(fields, {}) == expected


def test_so_are_columns_of_arrow_json_and_prompts_that_are_json_text() -> None:
    chat = resolve_format(["messages"])
    schema = pa.schema({"messages": pa.list_(pa.json_()), "other": pa.string()})
    assert newly_read(chat, schema, []) == ["arrow.json"]
    schema = pa.schema({"messages": pa.string(), "other": pa.json_()})
    assert newly_read(chat, schema, []) == []
    pairs = resolve_format(["prompt", "completion"])
    rows = [{"prompt": '[{"role": "user", "content": "Q"}]'}, {"prompt": "[1]"}, {"prompt": "Q"}]
    found = [newly_read(pairs, None, [SampleRow("a", 0, row)]) for row in rows]
    assert found == [["messages in text"], [], []]
