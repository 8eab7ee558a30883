import json

import pytest

from sf_ray.corpus.formats import resolve_format
from sf_ray.output.export_formats import exporter

PAIR = {"instruction": "Add.", "input": "2 and 2", "output": "4", "source": "s"}
TOOLS = '[{"type": "function", "function": {"name": "add"}}]'
CALL = '{"name": "add", "arguments": {"a": 2}}'
CHAT = {
    "conversations": [
        {"from": "system", "value": "Be brief."},
        {"from": "human", "value": "2 + 2?"},
        {"from": "function_call", "value": CALL},
        {"from": "observation", "value": "4"},
        {"from": "gpt", "value": "Four."},
    ],
    "tools": TOOLS,
}
PLAIN_CHAT = {
    "messages": [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d"},
    ]
}


def export(name: str, row: dict[str, object]) -> dict[str, object] | None:
    return exporter(name, resolve_format(list(row)))(row)


def test_openai_has_calls_and_what_answers_them() -> None:
    row = export("openai", CHAT)
    assert row is not None
    assert row["tools"] == json.loads(TOOLS)
    system, user, call, tool, answer = row["messages"]  # type: ignore[misc]
    assert (system["role"], user["role"], answer["content"]) == ("system", "user", "Four.")
    function = call["tool_calls"][0]["function"]
    assert json.loads(function["arguments"]) == {"a": 2}
    assert tool == {"role": "tool", "content": "4", "tool_call_id": call["tool_calls"][0]["id"]}


def test_openai_rows_come_out_as_they_went_in() -> None:
    call = {"id": "x1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    messages = [
        {"role": "user", "content": "Q"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "1", "tool_call_id": "x1"},
        {"role": "assistant", "content": "A"},
    ]
    assert export("openai", {"messages": messages}) == {"messages": messages}


def test_llama_factory_reads_roles_that_alternate() -> None:
    assert export("llama-factory", CHAT) == {
        "conversations": CHAT["conversations"][1:],
        "system": "Be brief.",
        "tools": TOOLS,
    }
    pair = export("llama-factory", PAIR)
    assert pair is not None
    assert pair["conversations"] == [
        {"from": "human", "value": "Add.\n2 and 2"},
        {"from": "gpt", "value": "4"},
    ]
    twice = {"messages": [*PLAIN_CHAT["messages"], {"role": "assistant", "content": "e"}]}
    assert export("llama-factory", twice) is None


def test_trl_trains_on_the_completion_of_a_pair_and_on_whole_chats() -> None:
    assert export("trl", PAIR) == {
        "prompt": [{"role": "user", "content": "Add.\n2 and 2"}],
        "completion": [{"role": "assistant", "content": "4"}],
    }
    row = export("trl", PLAIN_CHAT)
    assert row == {"messages": PLAIN_CHAT["messages"], "tools": ""}


def test_alpaca_keeps_the_input_apart_and_earlier_turns_as_history() -> None:
    fields = {"instruction": "Add.", "input": "2 and 2", "output": "4"}
    assert export("alpaca", PAIR) == fields | {"system": "", "history": []}
    assert export("alpaca", PLAIN_CHAT) == {
        "instruction": "c",
        "input": "",
        "output": "d",
        "system": "",
        "history": [["a", "b"]],
    }
    assert export("alpaca", CHAT) is None  # has tools


@pytest.mark.parametrize("name", ["llama-factory", "trl", "openai", "alpaca"])
def test_a_row_that_did_not_render_is_not_exported(name: str) -> None:
    assert exporter(name, resolve_format(["messages"]))({"messages": None}) is None
