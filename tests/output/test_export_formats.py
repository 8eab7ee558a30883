import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sf_ray.corpus.examples import Example
from sf_ray.corpus.formats import resolve_format
from sf_ray.output.export_formats import exporter

PAIR = {"instruction": "Add.", "input": "2 and 2", "output": "4", "source": "s"}
TOOLS = (
    '[{"type": "function", "function": {"name": "add", "parameters": {"type": "object", '
    '"properties": {"a": {"type": "number"}}}}}]'
)
WITH_PARAMETERS = {"name": "f", "parameters": {"type": "object", "properties": {}}}
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
    # Not an empty text, which TRL would take for JSON.
    assert row == {"messages": PLAIN_CHAT["messages"], "tools": None}


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


@pytest.mark.parametrize(
    ("tools", "written"),
    [
        ([{"name": "f"}], [WITH_PARAMETERS]),
        (
            [{"type": "function", "function": {"name": "f", "parameters": {}}}],
            [{"type": "function", "function": WITH_PARAMETERS}],
        ),
        ([WITH_PARAMETERS], [WITH_PARAMETERS]),
        ([{"name": "f", "parameters": {"a": {"type": "string"}}}], None),
        ([{"name": "f", "parameters": {"properties": {"a": {"enum": [1, 2]}}}}], None),
        ([{"name": "f", "parameters": {"properties": {"a": "string"}}}], None),
        ([{"description": "no name"}], None),
        ("no JSON", None),
    ],
)
def test_llama_factory_gets_tools_that_it_does_not_end_at(tools: object, written: object) -> None:
    row = export("llama-factory", {**PLAIN_CHAT, "tools": tools})
    if written is None:
        assert row is None
    else:
        assert row is not None
        assert json.loads(str(row["tools"])) == written


@pytest.mark.parametrize("name", ["llama-factory", "trl", "openai", "alpaca"])
def test_a_row_that_did_not_render_is_not_exported(name: str) -> None:
    assert exporter(name, resolve_format(["messages"]))({"messages": None}) is None


NAN = float("nan")


def test_alpaca_has_no_nan_and_keeps_rounds_and_passage() -> None:
    row: dict[str, object] = {"instruction": "Q", "output": "A", "input": NAN, "system": None}
    expected = {"instruction": "Q", "input": "", "output": "A", "system": "", "history": []}
    assert export("alpaca", row | {"history": NAN}) == expected
    rounds = [["q", "a"]]
    assert export("alpaca", row | {"history": rounds}) == expected | {"history": rounds}
    assert export("alpaca", row | {"history": '[["q", "a"]]'}) == expected | {"history": rounds}
    assert export("alpaca", row | {"context": "C"}) == expected | {"instruction": "C\nQ"}
    later = {"question": "Q", "answer": "A", "history": rounds}
    assert export("alpaca", later) == expected | {"history": rounds}


THINKING = {"role": "assistant", "content": "b", "reasoning_content": "Hm."}
WEIGHTLESS = {"role": "assistant", "content": "b", "weight": 0}
USER = {"role": "user", "content": "a"}
LAST = {"role": "assistant", "content": "d"}


@pytest.mark.parametrize(
    ("message", "left_out"),
    [
        (THINKING, {"llama-factory", "alpaca"}),
        (WEIGHTLESS, {"llama-factory", "trl"}),
        (LAST | {"weight": 0.5}, {"llama-factory", "trl"}),
    ],
)
def test_what_a_form_cannot_hold_is_left_out_and_the_others_keep_it(
    message: dict[str, object], left_out: set[str]
) -> None:
    chat = [USER, message, USER, LAST]
    rows = {name: export(name, {"messages": chat}) for name in ("openai", *EXPORTS)}
    assert {name for name, row in rows.items() if row is None} == left_out
    for name in {"openai", "trl"} - left_out:
        row = rows[name]
        assert row is not None
        assert row["messages"] == chat


def test_the_older_form_of_calls_goes_out_in_the_newer_one() -> None:
    call = {"name": "f", "arguments": '{"city": "Bremen", "unit": null}'}
    chat = [
        USER,
        {"role": "assistant", "content": "I look.", "function_call": call},
        {"role": "function", "name": "f", "content": "14"},
        LAST,
    ]
    row = export("openai", {"messages": chat, "functions": [{"name": "f"}]})
    assert row is not None
    assert row["tools"] == [{"type": "function", "function": {"name": "f"}}]
    _, said, tool, _ = row["messages"]  # type: ignore[misc]
    (made,) = said["tool_calls"]
    assert (said["content"], made["function"]) == ("I look.", call)
    assert tool == {"role": "tool", "content": "14", "name": "f", "tool_call_id": made["id"]}


def test_arguments_that_are_no_json_stay_as_they_came() -> None:
    call = {"id": "x", "type": "function", "function": {"name": "f", "arguments": "{city: Bremen"}}
    chat = [USER, {"role": "assistant", "content": "", "tool_calls": [call]}]
    assert export("openai", {"messages": chat}) == {"messages": chat}


def test_answers_in_a_prompt_have_no_weight() -> None:
    row: dict[str, object] = {"prompt": [USER, THINKING, USER], "completion": [LAST]}
    openai = export("openai", row)
    assert openai is not None
    assert openai["messages"] == [USER, THINKING | {"weight": 0}, USER, LAST]
    assert export("trl", row) == row


TEXTS = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=8).filter(str.strip)
EXPORTS = ("trl", "llama-factory", "alpaca")


@st.composite
def rows(draw: st.DrawFn) -> dict[str, Any]:
    """Rows of several formats, with what only some exports can hold."""
    if draw(st.booleans()):
        row = {"instruction": draw(TEXTS), "output": draw(TEXTS), "system": draw(TEXTS | st.none())}
        rounds = draw(st.lists(st.tuples(TEXTS, TEXTS).map(list), max_size=2))
        return row | {"history": rounds, "context": draw(TEXTS | st.none())}
    messages: list[dict[str, Any]] = []
    for number in range(draw(st.integers(1, 3))):
        messages.append({"role": "user", "content": draw(TEXTS)})
        if draw(st.booleans()):
            call = {"name": "f", "arguments": json.dumps(draw(st.dictionaries(TEXTS, TEXTS)))}
            called = {"id": f"c{number}", "type": "function", "function": call}
            messages.append({"role": "assistant", "content": "", "tool_calls": [called]})
            messages.append({"role": "tool", "content": draw(TEXTS), "tool_call_id": f"c{number}"})
        answer = {"role": "assistant", "content": draw(TEXTS)}
        more = st.sampled_from([{}, {}, {"weight": 0}, {"reasoning_content": "Hm."}])
        messages.append(answer | draw(more))
    messages[-1].pop("weight", None)
    row = {"messages": messages}
    return row | ({"tools": [WITH_PARAMETERS]} if draw(st.booleans()) else {})


def read(row: dict[str, Any]) -> Example:
    example = resolve_format(list(row)).render(row)
    assert isinstance(example, Example)
    return example


@given(row=rows())
def test_what_is_exported_is_read_back_as_the_same_example(row: dict[str, Any]) -> None:
    expected = read(row)
    for name in ("openai", *EXPORTS):
        exported = export(name, row)
        if exported is None:
            assert name != "openai"
            continue
        found = read(json.loads(json.dumps(exported, allow_nan=False)))
        assert (found.text, found.tools) == (expected.text, expected.tools)
        # LLaMA-Factory and Alpaca say in their settings which answers are trained on.
        if name in ("openai", "trl"):
            assert (found.digest, found.turns) == (expected.digest, expected.turns)
