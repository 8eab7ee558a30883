from typing import Any

import pytest

from sf_ray.corpus.examples import Example, Problem
from sf_ray.corpus.messages import chat_of
from tests.support.chats import ANSWER, USER, turn


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
        ([turn("user", [{"type": "text", "text": 5}]), ANSWER], "unsupported_part", "'text'"),
        ([turn("user", 5), ANSWER], "bad_row", "its content is int"),
        ([turn("user", b"\xff"), ANSWER], "bad_row", "not valid UTF-8"),
        (["hello", ANSWER], "bad_row", "it is str, expected an object"),
        ("hello", "bad_row", "the messages are str"),
        (None, "bad_row", "the messages are null"),
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


def test_a_greeting_before_the_first_question_is_context() -> None:
    example = chat_of([ANSWER, USER, ANSWER])
    assert isinstance(example, Example)
    assert example.turns == [2]


def test_copies_have_the_same_digest_and_nothing_else_has() -> None:
    chats = [
        [USER, ANSWER],
        [USER, turn("assistant", "one  word")],
        [turn("user", "whatone"), ANSWER],
    ]
    digests = [chat.digest for chat in map(chat_of, chats) if isinstance(chat, Example)]
    assert len({*digests}) == len(digests) == 3
    assert Example.pair("what", "one word").digest == digests[0]
