from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from sf_ray.corpus.examples import Example, Message, Problem
from sf_ray.corpus.messages import chat_of
from sf_ray.corpus.status import Status
from sf_ray.encoding.encoded_rows import EncodedRow
from sf_ray.encoding.encoded_table import encoded_table
from sf_ray.encoding.encoder import Encoder
from sf_ray.encoding.fast_text_encoder import choose_text_encoder
from sf_ray.encoding.text_encoder import TextEncoder, backend_of
from sf_ray.encoding.turns import Window
from sf_ray.errors import SfRayError
from tests.support.chats import turn
from tests.support.engines import load
from tests.support.reference_encoder import encoded_example


@pytest.fixture(scope="module")
def plain(tiny_model: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture(scope="module")
def with_bos(tiny_bos_model: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_bos_model)


def encode(
    tokenizer: Any, prompt: str, answer: str, window: int = 64, how: str = "reference"
) -> Any:
    (row,) = Encoder(tokenizer, window, how).encode([Example.pair(prompt, answer)])
    return row


def test_the_answer_starts_where_the_prompt_alone_ends(plain: Any, with_bos: Any) -> None:
    for tokenizer in (plain, with_bos):
        row = encode(tokenizer, "what is it\n", "one word")
        assert row.conditioned[0].ids.tolist() == tokenizer.encode("what is it\none word")
        assert row.conditioned[0].first == len(tokenizer.encode("what is it\n"))
        assert row.direct[0].ids.tolist() == tokenizer.encode("one word")
        assert row.direct[0].first == 1
        assert (row.status, row.truncated) == (Status.OK, False)


def test_without_a_bos_the_first_answer_token_is_not_scored_directly(
    plain: Any, with_bos: Any
) -> None:
    row = encode(plain, "a\n", "one word")
    assert row.direct[0].scored == row.conditioned[0].scored - 1
    row = encode(with_bos, "a\n", "one word")
    assert row.direct[0].scored == row.conditioned[0].scored


def test_a_long_answer_is_cut_on_the_right(plain: Any) -> None:
    answer = "one word " * 50
    row = encode(plain, "what\n", answer, window=32)
    prompt_tokens = len(plain.encode("what\n"))
    assert row.truncated
    assert row.conditioned[0].ids.tolist() == plain.encode("what\n" + answer)[:32]
    assert row.direct[0].ids.tolist() == plain.encode(answer)[: 32 - prompt_tokens + 1]
    assert row.answer_tokens == 32 - prompt_tokens


@pytest.mark.parametrize(
    ("prompt", "answer", "status"),
    [
        ("a\n", "", Status.EMPTY_ANSWER),
        ("a\n", "a", Status.ANSWER_TOO_SHORT),
        ("what is it " * 40, "one word", Status.PROMPT_FILLS_WINDOW),
        ("what is it " * 40, "a", Status.PROMPT_FILLS_WINDOW),
        ("what is it " * 40, "", Status.EMPTY_ANSWER),
        ("", "one word", Status.OK),
        ("a\n", "  \n", Status.OK),
    ],
)
def test_what_cannot_be_scored_says_why(
    plain: Any, prompt: str, answer: str, status: Status
) -> None:
    row = encode(plain, prompt, answer)
    assert row.status is status
    assert row.prompt_tokens == min(len(plain.encode(prompt)), 64)


def test_a_one_token_answer_has_a_score_where_there_is_a_bos(with_bos: Any) -> None:
    assert encode(with_bos, "a\n", "a").status is Status.OK


def test_aligned_scores_the_same_tokens_in_both_passes(plain: Any, with_bos: Any) -> None:
    for tokenizer in (plain, with_bos):
        for prompt, answer in (("what\n", "one word"), ("", "one word"), ("what\n", "a")):
            row = encode(tokenizer, prompt, answer, how="aligned")
            direct = row.direct[0].ids[row.direct[0].first :]
            conditioned = row.conditioned[0].ids[row.conditioned[0].first :]
            assert direct.tolist() == conditioned.tolist()
            assert row.direct[0].ids[0] == tokenizer.bos_token_id


def test_special_tokens_after_the_text_stay_when_it_is_cut(plain: Any, tmp_path: Path) -> None:
    from tokenizers import processors

    plain.save_pretrained(tmp_path)
    tokenizer: Any = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    row = encode(tokenizer, "what\n", "one word " * 50, window=32)
    expected = tokenizer.encode("what\n" + "one word " * 50, truncation=True, max_length=32)
    assert row.conditioned[0].ids.tolist() == expected
    assert encode(tokenizer, "what\n", "").status is Status.EMPTY_ANSWER


def test_rows_that_did_not_render_keep_their_place(plain: Any) -> None:
    bad = Problem(Status.BAD_ROW, "of no use")
    rows = list(Encoder(plain, 64).encode([bad, Example.pair("a\n", "one word"), bad]))
    assert [row.status for row in rows] == [Status.BAD_ROW, Status.OK, Status.BAD_ROW]
    assert rows[0].prompt_tokens is None


def test_a_slow_tokenizer_is_refused() -> None:
    class Slow:
        is_fast = False

    with pytest.raises(SfRayError, match="Slow.*has no fast version"):
        Encoder(Slow(), 64)


def test_aligned_needs_some_token_to_start_on(plain: Any, tmp_path: Path) -> None:
    plain.save_pretrained(tmp_path)
    tokenizer: Any = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.bos_token = tokenizer.eos_token = None
    with pytest.raises(SfRayError, match="neither BOS nor EOS"):
        Encoder(tokenizer, 64, "aligned")


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


# Special tokens before and after every text.
AROUND = ((False, False), (True, False), (False, True), (True, True))
TEXTS = st.lists(
    st.sampled_from(["what", " is", " it", "\n", "word\n", "", " ", "</s>", "\u6f22", "é"]),
    max_size=9,
).map("".join)


@pytest.fixture(scope="module")
def tokenizers(tiny_model: Path) -> list[tuple[Any, TextEncoder]]:
    """Tokenizers for `AROUND`, and what encodes with them.

    They have a token that joins the end of an answer with what follows.
    """
    made = []
    for before, after in AROUND:
        backend = Tokenizer.from_file(str(tiny_model / "tokenizer.json"))
        backend.post_processor = processors.TemplateProcessing(
            single=f"{'<s> ' * before}$A{' </s>' * after}",
            special_tokens=[("<s>", 0), ("</s>", 1)],
        )
        tokenizer: Any = PreTrainedTokenizerFast(
            tokenizer_object=backend, bos_token="<s>", eos_token="</s>"
        )
        tokenizer.add_tokens(AddedToken("word\n"))
        made.append((tokenizer, choose_text_encoder(backend_of(tokenizer)).encoder))
    return made


@st.composite
def examples(draw: st.DrawFn) -> Example | Problem:
    if not draw(st.integers(0, 9)):
        return Problem(Status.BAD_ROW, "of no use")
    turns = draw(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=3))
    messages = [
        Message(role, text)
        for turn in turns
        for role, text in zip(("user", "assistant"), turn, strict=True)
    ]
    return Example(tuple(messages), draw(st.sampled_from(["", "[tools]"])))


@given(
    st.lists(examples(), max_size=6),
    st.integers(0, len(AROUND) - 1),
    st.sampled_from([1, 2, 4, 9, 17, 256]),
    st.sampled_from(["reference", "aligned"]),
    st.sampled_from(["all", "last"]),
)
def test_many_rows_together_are_encoded_as_each_alone_by_the_definition(
    tokenizers: list[tuple[Any, TextEncoder]],
    rows: list[Any],
    around: int,
    length: int,
    alignment: str,
    turns: str,
) -> None:
    (tokenizer, texts), (before, after) = tokenizers[around], AROUND[around]
    window = Window(length, alignment == "aligned", before + after, [1] * after, [0])
    expected = [
        EncodedRow(row.status, None, None, False, reason=row.reason)
        if isinstance(row, Problem)
        else encoded_example(tokenizer.encode, row, window, turns)
        for row in rows
    ]
    encoded = Encoder(tokenizer, length, alignment, turns=turns, texts=texts).encode(rows)
    assert encoded_table(encoded).equals(encoded_table(expected))
    assert [row.reason for row in encoded] == [row.reason for row in expected]
