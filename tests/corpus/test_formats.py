import pytest

from sf_ray.corpus.examples import Example, Problem
from sf_ray.corpus.formats import SampleRow, other_format, resolve_format
from sf_ray.corpus.status import Status
from sf_ray.errors import SfRayError, UsageError


def plain(example: Example | Problem) -> tuple[str, str]:
    assert isinstance(example, Example)
    (turn,) = example.turns
    return example.before(turn), example.messages[turn].text


def test_alpaca_renders_as_the_paper_does() -> None:
    alpaca = resolve_format(["id", "instruction", "input", "output"])
    row = {"instruction": "Add.", "input": "2 and 2", "output": "4"}
    assert plain(alpaca.render(row)) == ("Add.\n2 and 2\n", "4")
    for nothing in ("", None):
        assert plain(alpaca.render(row | {"input": nothing})) == ("Add.\n", "4")


def test_alpaca_needs_no_input_column() -> None:
    alpaca = resolve_format(["instruction", "output"])
    assert plain(alpaca.render({"instruction": "Hi", "output": "Ho"})) == ("Hi\n", "Ho")


def test_prompts_and_completions_are_taken_as_they_are() -> None:
    pairs = resolve_format(["prompt", "completion", "source"])
    assert plain(pairs.render({"prompt": "Q: ", "completion": "A"})) == ("Q: ", "A")


def test_columns_map_other_names_and_imply_the_format() -> None:
    names = ["q", "a"]
    pairs = resolve_format(names, columns={"prompt": "q", "completion": "a"})
    assert pairs.name == "prompt-completion"
    assert plain(pairs.render({"q": "Q", "a": "A"})) == ("Q", "A")


@pytest.mark.parametrize("field", ["instruction", "output"])
@pytest.mark.parametrize("value", [None, 7, b"\xff"])
def test_a_row_without_text_does_not_render(field: str, value: object) -> None:
    alpaca = resolve_format(["instruction", "input", "output"])
    row: dict[str, object] = {"instruction": "a", "input": "", "output": "b"}
    problem = alpaca.render(row | {field: value})
    assert isinstance(problem, Problem)
    assert problem.status is Status.BAD_ROW
    assert repr(field) in problem.reason


def test_an_input_of_another_type_does_not_render_as_its_repr() -> None:
    alpaca = resolve_format(["instruction", "input", "output"])
    problem = alpaca.render({"instruction": "a", "input": 7, "output": "b"})
    assert problem == Problem(Status.BAD_ROW, "'input' is int, expected text")


@pytest.mark.parametrize(
    ("names", "name", "columns", "kind", "words"),
    [
        (["text"], "auto", {}, SfRayError, "no known format fits"),
        (["text"], "alpaca", {}, SfRayError, "--format alpaca does not fit"),
        (
            ["instruction", "output", "prompt", "completion"],
            "auto",
            {},
            SfRayError,
            "ambiguous format",
        ),
        (["q"], "auto", {"prompt": "question"}, SfRayError, "no column 'question'"),
        (["q"], "auto", {"propmt": "q"}, UsageError, "unknown field 'propmt'"),
    ],
)
def test_an_unclear_format_lists_columns_and_what_was_expected(
    names: list[str], name: str, columns: dict[str, str], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind) as error:
        resolve_format(names, name, columns)
    assert words in str(error.value)
    if kind is SfRayError:
        assert names[0] in str(error.value)


def test_a_named_format_resolves_an_ambiguous_corpus() -> None:
    names = ["instruction", "output", "prompt", "completion"]
    assert resolve_format(names, "alpaca").name == "alpaca"


def rows(shard: str, *found: dict[str, object]) -> list[SampleRow]:
    return [SampleRow(shard, number, row) for number, row in enumerate(found)]


CHAT = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"instruction": "Q", "output": "A"}, "alpaca"),
        ({"instruction": "Q", "response": "A"}, "instruction-response"),
        ({"question": "Q", "answer": "A"}, "question-answer"),
        ({"prompt": "Q\n", "completion": "A"}, "prompt-completion"),
        ({"messages": CHAT}, "messages"),
        (
            {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]},
            "sharegpt",
        ),
    ],
)
def test_every_format_is_found_by_its_columns(row: dict[str, object], name: str) -> None:
    found = resolve_format([*row, "source"])
    assert found.name == name
    assert plain(found.render(row)) == ("Q\n", "A")


def test_a_dot_leads_into_a_nested_column() -> None:
    found = resolve_format(["id", "data"], columns={"messages": "data.chat", "tools": "data.tools"})
    assert found.name == "messages"
    assert found.top_columns == ["data.chat", "data.tools"]
    assert plain(found.render({"data": {"chat": CHAT, "tools": None}})) == ("Q\n", "A")
    problem = found.render({"data": None})
    assert problem == Problem(Status.BAD_ROW, "'data.chat' is null")
    assert str(found) == "messages (messages=data.chat, tools=data.tools)"
    dotted = resolve_format(["a.b", "c"], columns={"prompt": "a.b", "completion": "c"})
    assert plain(dotted.render({"a.b": "Q", "c": "A"})) == ("Q", "A")


def test_rows_decide_where_the_columns_fit_several_formats() -> None:
    names = ["instruction", "output", "messages"]
    sample = rows("a", {"instruction": None, "output": None, "messages": CHAT})
    assert resolve_format(names, sample=sample).name == "messages"
    both = rows("a", {"instruction": "Q", "output": "A", "messages": CHAT})
    with pytest.raises(SfRayError, match="fits alpaca and messages; choose with --format"):
        resolve_format(names, sample=both)


def test_mixed_formats_name_a_row_of_each() -> None:
    sample = rows("a.jsonl", {"messages": CHAT}) + rows("b.jsonl", {"question": "Q", "answer": "A"})
    with pytest.raises(SfRayError) as error:
        resolve_format(["messages", "question", "answer"], sample=sample)
    assert "row 0 of a.jsonl is messages" in str(error.value)
    assert "row 0 of b.jsonl is question-answer" in str(error.value)


def test_a_row_of_another_format_is_noticed() -> None:
    alpaca = resolve_format(["instruction", "output"])
    other = other_format(alpaca, {"messages": CHAT})
    assert other is not None
    assert other.name == "messages"
    assert other_format(alpaca, {"instruction": "Q"}) is None
    assert other_format(alpaca, {"instruction": "Q", "output": "A", "messages": CHAT}) is None


def test_a_system_prompt_stands_before_the_question() -> None:
    found = resolve_format(["system", "question", "answer"])
    row: dict[str, object] = {"system": "S", "question": "Q", "answer": "A"}
    assert plain(found.render(row)) == ("S\nQ\n", "A")
    assert plain(found.render(row | {"system": None})) == ("Q\n", "A")


def test_a_row_that_is_nested_too_deeply_is_a_bad_row() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    tools = [{"name": "f", "parameters": {"enum": deep}}]
    problem = resolve_format(["messages", "tools"]).render({"messages": CHAT, "tools": tools})
    assert problem == Problem(Status.BAD_ROW, "its values are nested too deeply")
