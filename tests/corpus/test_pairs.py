import json

import pytest

from sf_ray.corpus.examples import Example, Problem
from sf_ray.corpus.formats import resolve_format
from sf_ray.corpus.media import MEDIA
from sf_ray.corpus.messages import chat_of
from tests.support.chats import ANSWER, USER, turn

NAN = float("nan")
PAIRS: dict[str, dict[str, object]] = {
    "alpaca": {"instruction": "Q", "output": "A"},
    "instruction-response": {"instruction": "Q", "response": "A"},
    "question-answer": {"question": "Q", "answer": "A"},
}
ROWS = PAIRS | {
    "prompt-completion": {"prompt": "Q", "completion": "A"},
    "messages": {"messages": [USER, ANSWER]},
    "sharegpt": {"conversations": [USER, ANSWER]},
}


def rendered(row: dict[str, object]) -> Example | Problem:
    return resolve_format(list(row)).render(row)


def text(row: dict[str, object]) -> str:
    example = rendered(row)
    assert isinstance(example, Example)
    return example.text


@pytest.mark.parametrize("row", PAIRS.values(), ids=PAIRS)
def test_a_passage_stands_before_the_question_and_an_input_behind_it(
    row: dict[str, object],
) -> None:
    assert text(row | {"context": "C", "input": "I", "system": "S"}) == "S\nC\nQ\nI\nA"


@pytest.mark.parametrize("row", PAIRS.values(), ids=PAIRS)
@pytest.mark.parametrize(
    "history",
    [
        [["q", "a"]],
        [("q", "a")],
        '[["q", "a"]]',
        [turn("user", "q"), turn("assistant", "a")],
        [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}],
    ],
)
def test_earlier_rounds_are_context_of_the_answer(row: dict[str, object], history: object) -> None:
    example = rendered(row | {"history": history, "system": "S"})
    assert isinstance(example, Example)
    assert example.text == "S\nq\na\nQ\nA"
    assert example.turns == [4]


@pytest.mark.parametrize("history", [[["q"]], [["q", "a", "x"]], [["q", 7]], [7], ["q", "a"]])
def test_a_history_of_something_else_is_refused(history: object) -> None:
    problem = rendered(PAIRS["alpaca"] | {"history": history})
    assert isinstance(problem, Problem)
    assert (problem.status, "history" in problem.reason) == ("bad_row", True)


OPTIONAL = ("input", "system", "context", "history", "tools", "functions", *MEDIA)


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("absent", [None, NAN, "", []], ids=repr)
def test_optional_fields_that_hold_nothing_change_nothing(
    row: dict[str, object], absent: object
) -> None:
    fields = OPTIONAL if absent != [] else ("history", "tools", "functions", *MEDIA)
    for field in fields:
        assert rendered(row | {field: absent}) == rendered(row)


@pytest.mark.parametrize(
    ("row", "field"),
    [(row, field) for row in ROWS.values() for field in row],
    ids=[f"{name}-{field}" for name, row in ROWS.items() for field in row],
)
@pytest.mark.parametrize("value", [None, NAN, 7, True, b"\xff", "\ud83d", {"a": 1}], ids=repr)
def test_a_required_field_without_text_is_a_bad_row(
    row: dict[str, object], field: str, value: object
) -> None:
    problem = rendered(row | {field: value})
    assert isinstance(problem, Problem)
    assert problem.status == "bad_row"


@pytest.mark.parametrize("row", PAIRS.values(), ids=PAIRS)
@pytest.mark.parametrize("field", ["input", "system", "context"])
@pytest.mark.parametrize("value", [7, True, b"\xff", "\ud83d", ["x"], {"a": 1}], ids=repr)
def test_an_optional_text_that_is_none_is_a_bad_row(
    row: dict[str, object], field: str, value: object
) -> None:
    problem = rendered(row | {field: value})
    assert isinstance(problem, Problem)
    assert (problem.status, repr(field) in problem.reason) == ("bad_row", True)


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("value", ["a.png", ["a.png"], [{"path": None, "bytes": b"x"}]])
def test_an_image_beside_the_text_is_an_unsupported_part(
    row: dict[str, object], value: object
) -> None:
    for field in MEDIA:
        problem = rendered(row | {field: value})
        assert isinstance(problem, Problem)
        assert (problem.status, repr(field) in problem.reason) == ("unsupported_part", True)
        assert rendered(row | {field: [{"path": None, "bytes": None}]}) == rendered(row)


@pytest.mark.parametrize("form", [list, json.dumps])
def test_a_prompt_and_its_completion_may_be_messages(form: type[list[object]]) -> None:
    before = [USER, ANSWER, USER]
    example = rendered({"prompt": form(before), "completion": [ANSWER], "tools": [{"name": "f"}]})
    chat = chat_of([*before, ANSWER], tools=[{"name": "f"}])
    assert isinstance(example, Example)
    assert isinstance(chat, Example)
    assert (example.messages, example.tools) == (chat.messages, chat.tools)
    assert example.turns == [3]  # an answer in the prompt is not trained on


def test_json_behind_a_prompt_of_text_is_what_the_completion_says() -> None:
    said = json.dumps([ANSWER])
    example = rendered({"prompt": "Write a chat: ", "completion": said})
    assert example == Example.pair("Write a chat: ", said)


def test_one_side_may_be_text_and_the_other_messages() -> None:
    expected = rendered({"prompt": [USER], "completion": [ANSWER]})
    assert rendered({"prompt": "what", "completion": [ANSWER]}) == expected
    assert rendered({"prompt": [USER], "completion": "one word"}) == expected


def test_a_completion_without_an_answer_is_refused() -> None:
    problem = rendered({"prompt": [USER], "completion": [USER]})
    assert isinstance(problem, Problem)
    assert problem.status == "no_assistant_turn"
