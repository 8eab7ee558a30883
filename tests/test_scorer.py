"""The Scorer: scores of pairs and chats, held against the definition of one pass for each turn."""

import random
from pathlib import Path

import numpy as np
import pytest

from bench.support.corpora import WORDS
from sf_ray import Scorer, SfRayError
from sf_ray.corpus.examples import Example, Problem
from sf_ray.corpus.messages import chat_of
from sf_ray.corpus.status import Status
from sf_ray.encoding.templates import JinjaRenderer, Template
from tests.support.chats import ANSWER, JINJA, USER, turn
from tests.support.engines import load
from tests.support.naive import mean_loss, naive_chat


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
    renderer = JinjaRenderer(tokenizer, Template("chat", jinja), [], 99)
    example = chat_of(long)
    assert isinstance(example, Example)
    assert renderer.turns([(example, 3)]).problems[0] == Problem(
        Status.TEMPLATE_ERROR, "message 3: line 2 of the template: TemplateError: too long"
    )


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
