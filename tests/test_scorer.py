"""The Scorer: scores of pairs and chats, held against the definition of one pass for each turn."""

import pickle
import random
import re
from pathlib import Path

import numpy as np
import pytest

from bench.support.corpora import WORDS
from sf_ray import Score, Scorer, SfRayError
from sf_ray.corpus.examples import Example, Problem
from sf_ray.corpus.messages import chat_of
from sf_ray.corpus.status import Status
from sf_ray.encoding.templates import JinjaRenderer, Template
from sf_ray.scorer import ScoreList
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


def score(ifd: float | None) -> Score:
    status = "empty_answer" if ifd is None else "ok"
    return Score(status, 3, 5, False, 1.0, 1.0, 2.7, 2.7, ifd, None)


def cells(html: str) -> list[list[str]]:
    """The cells of the last table of a page, without the line of names."""
    table = html.rpartition("<table")[2]
    lines = re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)
    return [re.findall(r"<td[^>]*>(.*?)</td>", line, re.DOTALL) for line in lines][1:]


def test_a_notebook_shows_scores_beside_their_texts(tiny_model: Path) -> None:
    nasty = "<script>alert(1)</script>\u202e\x1b[2J$x$\n" + "y" * 200
    pairs = [("What is it?\n", "one word"), (nasty, nasty), ("empty", "")]
    scores = Scorer(str(tiny_model), max_length=256).score(pairs)
    assert isinstance(scores, list)
    assert scores == [*scores]
    html = scores._repr_html_()
    assert "3 scores" in html
    assert "<svg" in html
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;\\u202e\\x1b[2J$x$\\n" in html
    assert "tex2jax_ignore" in html  # dollars are no formulas
    first, _, empty = cells(html)
    assert first[-2:] == ["What is it?\\n", "one word"]
    assert first[2] == f"{scores[0].ifd:.4f}"
    assert empty[1:3] == ["empty_answer", ""]
    scores.reverse()  # a list can be put in another order: texts stay with their scores
    assert cells(scores._repr_html_())[2][-2:] == ["What is it?\\n", "one word"]


def test_a_notebook_shows_any_number_of_scores() -> None:
    assert "0 scores" in ScoreList()._repr_html_()
    none = ScoreList([score(None)] * 3)._repr_html_()
    assert "<svg" not in none
    assert len(cells(none)) == 3
    assert "1 score<" in ScoreList([score(0.5)])._repr_html_()
    many = ScoreList([score(number / 1e5) for number in range(100_000)])._repr_html_()
    assert "100,000 scores" in many
    assert "and 99,990 more" in many
    assert len(cells(many)) == 10
    assert len(many) < 60_000


def test_two_histograms_of_a_notebook_share_no_names() -> None:
    def ids(html: str) -> set[str]:
        return {*re.findall(r' id="([^"]+)"', html)}

    one, other = (ScoreList([score(ifd)])._repr_html_() for ifd in (0.2, 0.4))
    assert ids(one)
    assert "<style" not in one  # which would be that of the whole notebook
    assert not ids(one) & ids(other)


def test_scores_that_were_pickled_still_show_their_texts(tiny_model: Path) -> None:
    scores = Scorer(str(tiny_model)).score([("What?\n", "one word")])
    assert cells(pickle.loads(pickle.dumps(scores))._repr_html_()) == cells(scores._repr_html_())
