import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sf_ray.corpus.examples import Example, Problem
from sf_ray.corpus.messages import chat_of
from sf_ray.corpus.rows import rows_of
from tests.support.chats import ANSWER, USER, turn

NAN = float("nan")


@pytest.mark.parametrize(
    ("chat", "status", "words"),
    [
        ([USER], "no_assistant_turn", "none of its 1 messages"),
        ([], "no_assistant_turn", "none of its 0 messages"),
        ([USER, ANSWER, USER], "ends_in_user_turn", "'user'"),
        ([USER, ANSWER, turn("tool", "x")], "ends_in_user_turn", "'tool'"),
        ([ANSWER], "no_prompt", "nothing stands before"),
        ([turn("system", ""), ANSWER], "no_prompt", "nothing stands before"),
        ([turn("narrator", "x"), ANSWER], "unknown_role", "message 0: unknown role 'narrator'"),
        ([{"content": "x"}, ANSWER], "unknown_role", "unknown role None"),
        ([USER, turn("assistant", "")], "empty_turn", "message 1: the assistant's turn is empty"),
        ([turn("user", None), ANSWER], "empty_turn", "message 0"),
        ([turn("user", " \n"), ANSWER], "empty_turn", "message 0"),
        ([turn("user", [{"type": "image_url"}]), ANSWER], "unsupported_part", "'image_url'"),
        ([turn("user", [{"type": "text", "text": None}]), ANSWER], "unsupported_part", "'text'"),
        ([turn("user", [{"type": None, "image": "x"}]), ANSWER], "unsupported_part", "'image'"),
        ([turn("user", [{"type": "text", "text": 5}]), ANSWER], "bad_row", "a part of its content"),
        ([turn("user", [None]), ANSWER], "bad_row", "a part of its content is null"),
        ([turn("user", 5), ANSWER], "bad_row", "its content is int"),
        ([turn("user", b"\xff"), ANSWER], "bad_row", "not valid UTF-8"),
        (["hello", ANSWER], "bad_row", "it is str, expected an object"),
        ("hello", "bad_row", "the messages are text that is no JSON"),
        ("5", "bad_row", "the messages are int"),
        ({"role": "user", "content": "x"}, "bad_row", "the messages are an object"),
        ({"role": ["user"], "content": []}, "bad_row", "lists of different lengths"),
        (["one text only"], "no_assistant_turn", "none of its 1 messages"),
        ([[USER], [ANSWER]], "bad_row", "message 0: it is list, expected an object"),
        ([USER | {"images": ["a.png"]}, ANSWER], "unsupported_part", "message 0: 'images'"),
        (None, "bad_row", "the messages are null"),
        (NAN, "bad_row", "the messages are null"),
        ([USER, ANSWER | {"weight": 0}], "no_assistant_turn", "all of its answers have the weight"),
        ([USER, ANSWER | {"weight": float("inf")}], "bad_row", "its weight is infinite"),
        ([USER, ANSWER | {"train": "no"}], "bad_row", "message 1: its train is str"),
    ],
)
def test_what_is_no_chat_says_why(chat: object, status: str, words: str) -> None:
    problem = chat_of(chat)
    assert isinstance(problem, Problem)
    assert problem.status == status
    assert words in problem.reason


def plain(chat: object, **more: Any) -> str:
    example = chat_of(chat, **more)
    assert isinstance(example, Example)
    return example.before(len(example.messages))


def test_both_ways_to_write_a_chat_are_the_same() -> None:
    openai = [turn("system", "s"), USER, ANSWER, turn("tool", "t"), ANSWER]
    sharegpt = [
        {"from": name, "value": message["content"]}
        for name, message in zip(
            ("system", "human", "function_call", "observation", "gpt"), openai, strict=True
        )
    ]
    assert chat_of(openai) == chat_of(sharegpt)
    assert plain(openai) == "s\nwhat\none word\nt\none word\n"


def test_parts_of_text_are_one_text() -> None:
    parts = [{"type": "text", "text": "wh"}, {"type": "text", "text": "at"}]
    assert plain([turn("user", parts), ANSWER]) == plain([USER, ANSWER])


def test_tools_and_their_calls_are_text_like_any_other() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    chat = [
        USER,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        turn("tool", "3"),
        ANSWER,
    ]
    line = '{"name": "add", "arguments": {"a": 1}}'
    assert plain(chat, tools=[{"name": "add"}]) == (
        f'{{"name": "add"}}\nwhat\n{line}\n3\none word\n'.replace(
            '{"name": "add"}\n', '[{"name": "add"}]\n', 1
        )
    )
    written = [USER, turn("function_call", line), turn("observation", "3"), ANSWER]
    assert plain(written) == plain(chat)
    # Arrow gives every message all keys that any has: nulls are none.
    filled = [message | {"tool_calls": message.get("tool_calls")} for message in chat]
    assert chat_of(filled) == chat_of(chat)
    assert plain([USER, ANSWER], tools="[]") == plain([USER, ANSWER])


@pytest.mark.parametrize(
    ("name", "role"),
    [
        *[(name, "user") for name in ("USER", "Human ", "prompter")],
        *[(name, "assistant") for name in ("GPT", "chatgpt", "Bing", "bard", "ai")],
        *[(name, "tool") for name in ("function", "Observation", "ipython")],
        ("System", "system"),
    ],
)
def test_names_of_roles_have_no_case(name: str, role: str) -> None:
    example = chat_of([USER, {"from": name, "value": "x"}, USER, ANSWER])
    assert isinstance(example, Example)
    assert example.messages[1].role == role


CALL = {"name": "look_up", "arguments": '{"city": "Bremen", "unit": null, "n": 1.0}'}
CALLS = [USER, {"role": "assistant", "content": None, "tool_calls": [{"function": CALL}]}]
LINE = '{"name": "look_up", "arguments": {"city": "Bremen", "unit": null, "n": 1.0}}'
# What a message of `CALLS` may have beside or in place of `tool_calls`, and mean the same.
SAME_CALLS: dict[str, dict[str, Any]] = {
    "as they are": {},
    "the older form": {"tool_calls": None, "function_call": CALL},
    "the older form, and an empty list": {"tool_calls": [], "function_call": CALL},
    "both": {"function_call": CALL},
    "an empty struct": {"function_call": {"name": None, "arguments": None}},
    "JSON text": {"tool_calls": json.dumps([{"function": CALL}])},
    "each as JSON text": {"tool_calls": [json.dumps({"function": CALL})]},
    "without a function": {"tool_calls": [CALL | {"function": None}]},
    "an object of lists": {"tool_calls": {"function": [CALL], "id": [None]}},
    "parameters": {"tool_calls": [{"name": "look_up", "parameters": CALL["arguments"]}]},
    "no arguments": {"tool_calls": [CALL | {"function": {"name": "look_up", "arguments": NAN}}]},
    "no image": {"images": [], "image": None, "audio": NAN},
    "NaN": {"function_call": NAN, "reasoning_content": NAN, "weight": NAN, "tool_call_id": NAN},
}


@pytest.mark.parametrize("changes", SAME_CALLS.values(), ids=SAME_CALLS)
def test_calls_are_read_in_every_form_and_their_written_nulls_stay(changes: dict[str, Any]) -> None:
    example = chat_of([USER, CALLS[1] | changes])
    assert isinstance(example, Example)
    assert example.messages[1].text == LINE


def test_nulls_of_arrow_structs_are_dropped() -> None:
    call = {"name": "f", "arguments": {"city": "Bremen", "unit": None, "n": NAN}}
    example = chat_of([USER, {"role": "assistant", "tool_calls": [{"function": call}]}])
    assert isinstance(example, Example)
    assert example.messages[1].text == '{"name": "f", "arguments": {"city": "Bremen"}}'


NO_TEXT = [7, True, ["x"], {"a": 1}, b"\xff", "\ud83d"]


@pytest.mark.parametrize("value", NO_TEXT, ids=repr)
@pytest.mark.parametrize(
    "of_field",
    [
        lambda value: chat_of([USER, ANSWER], system=value),
        lambda value: chat_of([turn(value, "x"), ANSWER]),
        lambda value: chat_of([turn("user", [{"type": "text", "text": value}]), ANSWER]),
        lambda value: chat_of([USER, ANSWER | {"reasoning_content": value}]),
        lambda value: chat_of([USER, turn("tool", "x") | {"tool_call_id": value}, ANSWER]),
        lambda value: chat_of([USER, ANSWER | {"tool_calls": [CALL | {"id": value}]}]),
        lambda value: chat_of([USER, ANSWER | {"tool_calls": [CALL | {"name": value}]}]),
    ],
    ids=["system", "role", "part", "reasoning", "answers", "id", "name"],
)
def test_what_is_no_text_is_refused(of_field: Callable[[object], object], value: object) -> None:
    problem = of_field(value)
    assert isinstance(problem, Problem)
    # A name that is not known is text.
    assert problem.status == "bad_row"


@pytest.mark.parametrize("value", [7, True, b"\xff", "\ud83d", [b"\xff"], [{"a": float("inf")}]])
def test_tools_that_are_no_json_are_refused(value: object) -> None:
    for problem in (chat_of([USER, ANSWER], tools=value), chat_of([USER, ANSWER], functions=value)):
        assert isinstance(problem, Problem)
        assert problem.status == "bad_row"


@pytest.mark.parametrize("absent", [None, NAN, "", " ", "[]", "null", []], ids=repr)
def test_where_there_are_no_tools_the_older_functions_are_tools(absent: object) -> None:
    function = {"name": "add", "parameters": None}
    wrapped = [{"type": "function", "function": {"name": "add"}}]
    example = chat_of([USER, ANSWER], tools=absent, functions=[function])
    assert example == chat_of([USER, ANSWER], tools=wrapped)
    assert chat_of([USER, ANSWER], tools=absent) == chat_of([USER, ANSWER])


@pytest.mark.parametrize("tool", [{"name": "add"}, '{"name": "add"}'])
def test_a_definition_may_be_json_text(tool: object) -> None:
    assert plain([USER, ANSWER], tools=[tool]).startswith('[{"name": "add"}]\n')


@pytest.mark.parametrize("key", ["weight", "train", "training", "loss"])
@pytest.mark.parametrize("value", [0, 0.0, False])
def test_an_answer_that_is_not_trained_on_is_context(key: str, value: object) -> None:
    example = chat_of([USER, ANSWER | {key: value}, USER, ANSWER])
    assert isinstance(example, Example)
    assert example.turns == [3]
    assert example.text == plain([USER, ANSWER, USER, ANSWER]).rstrip()


def test_texts_in_turns_are_a_chat() -> None:
    assert chat_of(["what", "one word"]) == chat_of([USER, ANSWER])
    assert chat_of(["what", '{"a": 1}']) == chat_of([USER, turn("assistant", '{"a": 1}')])


TEXTS = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12).filter(
    str.strip
)
ARGUMENTS = st.dictionaries(TEXTS, TEXTS | st.integers(-9, 9), max_size=2)


@st.composite
def chats(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Chats in OpenAI's form, without keys for what is not there."""
    messages: list[dict[str, Any]] = []
    if draw(st.booleans()):
        messages.append(turn("system", draw(TEXTS)))
    for number in range(draw(st.integers(1, 3))):
        messages.append(turn("user", draw(TEXTS)))
        answer: dict[str, Any] = turn("assistant", draw(TEXTS))
        if draw(st.booleans()):
            arguments = json.dumps(draw(ARGUMENTS))
            function = {"name": "f", "arguments": arguments}
            call = {"id": f"c{number}", "type": "function", "function": function}
            answer["tool_calls"] = [call]
        if draw(st.booleans()):
            answer["reasoning_content"] = draw(TEXTS)
        messages.append(answer)
    return messages


def with_all_keys(chat: list[dict[str, Any]], absent: object = None) -> list[dict[str, Any]]:
    """The messages with the keys of all others and of other forms, as Arrow has them."""
    keys = ("role", "from", "content", "value", "tool_calls", "function_call", "weight")
    keys = (*keys, "reasoning_content", "tool_call_id")
    return [dict.fromkeys(keys, absent) | message for message in chat]


def in_arrow(messages: pa.Array) -> object:
    """The only value of an array, as a row of a table has it."""
    (row,) = rows_of(pa.table({"messages": messages}))
    assert isinstance(row, dict)
    return row["messages"]


def of_json_type(*texts: str) -> pa.Array:
    """Texts of the type in which `datasets` stores values of mixed types."""
    return pa.ExtensionArray.from_storage(pa.json_(), pa.array(texts, pa.string()))


FORMS: dict[str, Callable[[list[dict[str, Any]]], object]] = {
    "JSON text": json.dumps,
    "JSON text of each": lambda chat: list(map(json.dumps, chat)),
    "all keys, null": with_all_keys,
    "all keys, NaN": lambda chat: with_all_keys(chat, NAN),
    "an object of lists": lambda chat: {
        key: [message[key] for message in with_all_keys(chat)] for key in with_all_keys(chat)[0]
    },
    "Arrow structs": lambda chat: in_arrow(pa.array([with_all_keys(chat)])),
    "arrow.json of each": lambda chat: in_arrow(
        pa.ListArray.from_arrays([0, len(chat)], of_json_type(*map(json.dumps, chat)))
    ),
    "arrow.json of all": lambda chat: in_arrow(of_json_type(json.dumps(chat))),
    "ShareGPT": lambda chat: [
        {key: value for key, value in message.items() if key not in ("role", "content")}
        | {"from": message["role"].upper(), "value": message["content"]}
        for message in chat
    ],
    "parts without a type": lambda chat: [
        message | {"content": [{"type": None, "text": message["content"]}]} for message in chat
    ],
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@given(chat=chats())
def test_every_form_of_a_chat_is_the_same_example(
    form: Callable[[list[dict[str, Any]]], object], chat: list[dict[str, Any]]
) -> None:
    expected = chat_of(chat)
    assert isinstance(expected, Example)
    assert chat_of(form(chat)) == expected
