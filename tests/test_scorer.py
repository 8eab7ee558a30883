"""Chats: each assistant turn behind all that stands before it, held against the definition."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from bench.support.corpora import WORDS
from sf_ray import Scorer, SfRayError
from sf_ray.corpus.examples import Example, Problem, chat_of
from sf_ray.corpus.formats import resolve_format
from sf_ray.corpus.status import Status
from sf_ray.encoding.encoder import Encoder
from sf_ray.encoding.templates import Template
from sf_ray.engine.model_files import load_tokenizer, resolve_model
from tests.support.engines import load
from tests.support.naive import mean_loss, naive_chat

JINJA = (
    "{% for m in messages %}\n"
    "{{- '<s>' + m.role + '\\n' + m.content + '</s>\\n' }}\n"
    "{%- endfor %}{% if add_generation_prompt %}{{ '<s>assistant\\n' }}{% endif %}"
)


def turn(role: str, text: object) -> dict[str, object]:
    return {"role": role, "content": text}


def random_chats(count: int, seed: int = 0) -> list[list[dict[str, object]]]:
    """Chats of one to four questions; some begin with a system prompt, some call a tool."""
    rng = random.Random(seed)

    def text(most: int = 12) -> str:
        return " ".join(rng.choices(WORDS, k=rng.randint(2, most)))

    chats = []
    for number in range(count):
        chat = [turn("system", text())] if number % 3 == 0 else []
        for _ in range(rng.randint(1, 4)):
            chat.append(turn("user", text()))
            if rng.random() < 0.3:
                chat += [turn("function_call", text()), turn("observation", text())]
            chat.append(turn("assistant", text() + rng.choice(["", " ", ".\n", "\n\n"])))
        chats.append(chat)
    return chats


@pytest.mark.parametrize("which", ["tiny_model", "tiny_bos_model"])
@pytest.mark.parametrize("window", [256, 60])
def test_turns_equal_one_pass_for_each(
    which: str, window: int, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(which)
    model, tokenizer = load(folder)
    chats = random_chats(12)
    for chat, score in zip(chats, Scorer(str(folder), max_length=window).score(chats), strict=True):
        texts = [f"{message['content']}\n" for message in chat]
        answers = [i for i, m in enumerate(chat) if m["role"] in ("assistant", "function_call")]
        turns, ifd = naive_chat(model, tokenizer, texts, answers, window)
        assert score.status == "ok"
        assert score.ifd == pytest.approx(ifd, rel=1e-4)
        for naive, one in zip(turns, score.turns or [score], strict=True):
            if naive.ifd is None:
                assert score.truncated
            else:
                assert one.loss_direct == pytest.approx(naive.loss_direct, abs=1e-4)
                assert one.loss_conditioned == pytest.approx(naive.loss_conditioned, abs=1e-4)


def test_one_pass_is_fed_for_all_turns_of_a_chat(tiny_model: Path) -> None:
    _, tokenizer = load(tiny_model)
    chat = chat_of([turn("user", "a"), turn("assistant", "one word")] * 3)
    (row,) = Encoder(tokenizer, 256).encode([chat])
    (conditioned,) = row.conditioned
    assert len(conditioned.spans) == len(row.direct) == 3
    assert conditioned.ids.tolist() == tokenizer.encode("a\none word\na\none word\na\none word")


def test_a_token_that_joins_an_answer_with_what_follows_costs_a_pass_of_its_own(
    tiny_model: Path,
) -> None:
    from tokenizers import AddedToken

    _, tokenizer = load(tiny_model)
    tokenizer.add_tokens(AddedToken("word\n"))
    chat = chat_of([turn("user", "a"), turn("assistant", "one word")] * 2)
    (row,) = Encoder(tokenizer, 256).encode([chat])
    assert [s.ids.tolist() for s in row.conditioned] == [
        tokenizer.encode("a\none word"),
        tokenizer.encode("a\none word\na\none word"),
    ]


def test_only_the_last_turn_counts_where_that_is_asked_for(tiny_model: Path) -> None:
    chat = [turn("user", "a"), turn("assistant", "one word")] * 2
    last = Scorer(str(tiny_model), turns="last", max_length=256).score([chat])[0]
    every = Scorer(str(tiny_model), max_length=256).score([chat])[0]
    assert every.turns is not None
    assert last.turns is None
    assert last.loss_conditioned == pytest.approx(every.turns[1].loss_conditioned, abs=1e-6)
    assert last.answer_tokens == every.turns[1].answer_tokens


def test_a_long_chat_is_not_better_for_being_long(tiny_bos_model: Path) -> None:
    scorer = Scorer(str(tiny_bos_model), max_length=256)
    chat = [turn("user", "what is it"), turn("assistant", "one word from you")]
    one, many = scorer.score([chat, chat * 4])
    assert many.loss_direct == pytest.approx(one.loss_direct, rel=1e-5)


def test_turns_that_the_window_cuts_off_are_kept_without_a_score(tiny_model: Path) -> None:
    chat = [turn("user", "what " * 20), turn("assistant", "one word " * 5)] * 4
    score = Scorer(str(tiny_model), max_length=64).score([chat])[0]
    assert score.turns is not None
    assert [one.answer_tokens > 0 for one in score.turns] == [True, False, False, False]
    assert score.turns[1].loss_conditioned is None
    assert (score.status, score.truncated) == ("ok", True)


USER, ANSWER = turn("user", "what"), turn("assistant", "one word")


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


@pytest.mark.parametrize("which", ["tiny_model", "tiny_bos_model"])
def test_a_template_scores_the_same_tokens_alone_and_behind_their_prompt(
    which: str, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(which)
    model, tokenizer = load(folder)
    chats = random_chats(5, seed=1)
    scores = Scorer(str(folder), template=JINJA, max_length=256).score(chats)
    bos = tokenizer.encode("")
    for chat, score in zip(chats, scores, strict=True):
        named = [
            m
            | {
                "role": {"function_call": "assistant", "observation": "tool"}.get(
                    str(m["role"]), m["role"]
                )
            }
            for m in chat
        ]
        answers = [i for i, m in enumerate(named) if m["role"] == "assistant"]
        for at, one in zip(answers, score.turns or [score], strict=True):
            text = "".join(f"<s>{m['role']}\n{m['content']}</s>\n" for m in named[:at])
            text += "<s>assistant\n"
            before = tokenizer.encode(text, add_special_tokens=False)
            whole = tokenizer.encode(text + str(named[at]["content"]), add_special_tokens=False)
            assert one.loss_conditioned == pytest.approx(
                mean_loss(model, whole, len(before)), abs=1e-4
            )
            alone = bos + whole[len(before) :]
            assert one.loss_direct == pytest.approx(mean_loss(model, alone, 1), abs=1e-4)


def test_special_text_in_the_data_is_special_in_the_plain_rendering_only(tiny_model: Path) -> None:
    _, tokenizer = load(tiny_model)
    chat = chat_of([turn("user", "a</s>b"), turn("assistant", "<s> word")])
    assert isinstance(chat, Example)
    (row,) = Encoder(tokenizer, 99).encode([chat])
    assert sum(token in (0, 1) for token in row.conditioned[0].ids) == 2
    (row,) = Encoder(tokenizer, 99, template=Template("chat", JINJA)).encode([chat])
    ids = row.conditioned[0].ids.tolist()
    assert [i for i in ids if i in (0, 1)] == [0, 1, 0]  # those of the template
    assert tokenizer.decode(ids) == "<s>user\na</s>b</s>\n<s>assistant\n<s> word"


@pytest.mark.parametrize(
    ("jinja", "words"),
    [
        ("{% for m in messages %}", "TemplateSyntaxError"),
        ("\n\n{{ messages[0]['x'] + 1 }}", "line 3 of the template"),
        ("{{ raise_exception('no') }}", "no"),
        ("nothing of it", "cannot render a question and its answer"),
    ],
)
def test_a_template_that_cannot_work_is_refused_before_anything_runs(
    tiny_model: Path, jinja: str, words: str
) -> None:
    with pytest.raises(SfRayError, match="--template chat: cannot render") as error:
        Scorer(str(tiny_model), template=jinja)
    assert words in str(error.value)


def test_a_template_that_fails_on_a_row_gives_it_a_status(tiny_model: Path) -> None:
    jinja = "{% if messages|length > 2 %}\n{{ raise_exception('too long') }}{% endif %}" + JINJA
    long, short = [USER, ANSWER, USER, ANSWER], [USER, ANSWER]
    scores = Scorer(str(tiny_model), template=jinja, max_length=256).score([long, short])
    assert [score.status for score in scores] == ["template_error", "ok"]
    _, tokenizer = load(tiny_model)
    renderer = Template("chat", jinja).renderer(tokenizer, [])
    example = chat_of(long)
    assert isinstance(example, Example)
    (problem,) = renderer.turns([(example, 3)])
    assert problem == Problem(
        Status.TEMPLATE_ERROR, "message 3: line 2 of the template: TemplateError: too long"
    )


def test_a_run_says_on_which_row_and_line_a_template_fails(
    tiny_model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from sf_ray.encoding.specs import EncodingSpec, ModelSpec
    from sf_ray.engine.model_files import resolve_model

    model = resolve_model(str(tiny_model))
    jinja = "{% if messages|length > 2 %}\n{{ raise_exception('too long') }}{% endif %}" + JINJA
    rules = EncodingSpec(
        resolve_format(["messages"]),
        ModelSpec(str(tiny_model), model.fingerprint),
        256,
        "reference",
        Template("t.jinja", jinja),
        "last",
    )
    rows = pa.table({"messages": [[USER, ANSWER], [USER, ANSWER, USER, ANSWER]]})
    encoded = rules.encode(rows, "a.parquet", 40)
    assert encoded["status"].to_pylist() == ["ok", "template_error"]
    told = "".join(capfd.readouterr())
    assert "fails on 1 rows of a.parquet, first on row 41 (message 3: line 2 of the tem" in told


@pytest.mark.weights
def test_the_models_own_template_ranks_chats() -> None:
    scores = Scorer("demo", template="chat").score(
        [
            [turn("user", "Name three primary colours."), turn("assistant", "Red, yellow, blue.")],
            [turn("user", "Boil an egg, please."), turn("assistant", "Red, yellow, blue.")],
        ]
    )
    assert scores[0].ifd is not None
    assert scores[1].ifd is not None
    assert scores[0].ifd < scores[1].ifd
    assert np.isclose(scores[0].loss_direct or 0, scores[1].loss_direct or 1)


@pytest.mark.weights
def test_a_template_that_lets_the_answer_join_a_space_says_so() -> None:
    told = "{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}"
    told += "{% if add_generation_prompt %}assistant: {% endif %}"
    tokenizer = load_tokenizer(resolve_model("demo"))
    with pytest.raises(SfRayError, match="ends with a space, which becomes one token"):
        Template("spaced.jinja", told).renderer(tokenizer, [])
