import random
from collections.abc import Sequence
from functools import cache

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from sf_ray.corpus.examples import Example
from sf_ray.corpus.status import Status
from sf_ray.encoding import long_texts
from sf_ray.encoding.long_texts import LongTexts, most_characters
from sf_ray.encoding.templates import PlainRenderer
from sf_ray.encoding.text_encoder import PlainTextEncoder, TextEncoder, TokenLists

WINDOW = 64
# Small, so that texts that are long for it are quickly tokenised whole.
MOST = 1 << 14

WORDS = (
    "red and green, ",
    "don't stop; ",
    "漢字かな交じり文。",
    "x = [1, 22, 333]\n",
    "\t\tif a:\n",
    "é́",
    "👩‍👩‍👧 ",
)


def _texts() -> dict[str, str]:
    chosen = random.Random(0)
    letters = "".join(chosen.choice("abcdefgh") for _ in range(5 * MOST))
    mixed = "".join(chosen.choice(WORDS) for _ in range(MOST))
    return {
        "words": "red and green, " * (MOST // 3),
        "one letter": "a" * (5 * MOST + 3),
        "two letters": "ab" * (2 * MOST) + "a",
        "no break": letters,
        "spaces": "a" + " " * (5 * MOST),
        "blank lines": "a\n" + " \n" * (2 * MOST),
        "digits": "1234567" * MOST,
        "combining": "e" + "\u0301" * (4 * MOST),
        "mixed": mixed,
        "emoji": "👩‍👩‍👧" * MOST,
    }


TEXTS = _texts()
CORPUS = [text[:3000] for text in TEXTS.values()] + ["aaaa bbbb abab the quick brown fox"] * 20


def _byte_bpe() -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        max_token_length=16,
    )
    made.train_from_iterator(CORPUS, trainer)
    return made


def _llama_bpe() -> Tokenizer:
    """No splits at all: a text is one piece, as of Llama 2."""
    made = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=["<unk>", *fallback],
        show_progress=False,
        max_token_length=16,
    )
    made.train_from_iterator([text[:400] for text in CORPUS], trainer)
    return made


def _word_piece() -> Tokenizer:
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # type: ignore[call-arg]
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=400, special_tokens=["[UNK]"], show_progress=False
    )
    made.train_from_iterator(CORPUS, trainer)
    return made


def _unigram() -> Tokenizer:
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False
    )
    made.train_from_iterator([text[:400] for text in CORPUS], trainer)
    return made


def _digits_from_the_right() -> Tokenizer:
    made = Tokenizer(models.BPE())
    pattern = r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))|[^\p{N}]+"
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        max_token_length=16,
    )
    made.train_from_iterator([*CORPUS, " ".join(map(str, range(1000)))], trainer)
    return made


MAKERS = {
    "byte BPE": _byte_bpe,
    "Llama BPE": _llama_bpe,
    "WordPiece": _word_piece,
    "Unigram": _unigram,
    "digits from the right": _digits_from_the_right,
}


@cache
def _encoder(name: str) -> PlainTextEncoder:
    return PlainTextEncoder(MAKERS[name]())


class Spy:
    """Encodes, and remembers how long the texts were."""

    def __init__(self, texts: TextEncoder) -> None:
        self._texts = texts
        self.longest = 0

    def encode(self, texts: Sequence[str]) -> TokenLists:
        self.longest = max(self.longest, *map(len, texts))
        return self._texts.encode(texts)


@pytest.fixture
def _small_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_texts, "_FEWEST_CHARACTERS", MOST)
    monkeypatch.setattr(long_texts, "MARGIN", WINDOW)


@pytest.mark.usefixtures("_small_bound")
@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("tokenizer", MAKERS)
def test_the_ids_in_the_window_are_those_of_the_whole_text(tokenizer: str, text: str) -> None:
    plain = _encoder(tokenizer)
    spy = Spy(plain)
    assert len(TEXTS[text]) > MOST
    lists, problems = LongTexts(spy, WINDOW).encode([TEXTS[text]])
    assert spy.longest <= MOST
    if problems:  # better no ids than others
        assert list(problems) == [0]
        assert len(lists.ids) == 0
        return
    whole = plain.encode([TEXTS[text]])
    assert lists.ids[:WINDOW].tolist() == whole.ids[:WINDOW].tolist()
    assert len(lists.ids) > WINDOW


@pytest.mark.usefixtures("_small_bound")
@pytest.mark.parametrize(
    ("tokenizer", "text", "words"),
    [
        ("WordPiece", "one letter", "too few tokens"),  # a long word is one token
        ("WordPiece", "spaces", "too few tokens"),  # none at all
        ("digits from the right", "digits", "depend on its end"),
    ],
)
def test_a_text_whose_first_ids_cannot_be_known_has_none(
    tokenizer: str, text: str, words: str
) -> None:
    _, problems = LongTexts(_encoder(tokenizer), WINDOW).encode(["short", TEXTS[text], "short"])
    assert list(problems) == [1]
    assert problems[1].status is Status.BAD_ROW
    assert words in problems[1].reason


@pytest.mark.usefixtures("_small_bound")
@pytest.mark.parametrize("text", ["words", "mixed", "one letter", "no break"])
def test_ordinary_tokenizers_know_the_first_ids_of_ordinary_texts(text: str) -> None:
    for tokenizer in ("byte BPE", "Llama BPE"):
        _, problems = LongTexts(_encoder(tokenizer), WINDOW).encode([TEXTS[text]])
        assert not problems


def test_texts_up_to_the_bound_are_encoded_as_they_are() -> None:
    plain = _encoder("byte BPE")
    texts = ["", "a", TEXTS["mixed"][:5000], "b" * 5000, ""]
    lists, problems = LongTexts(plain, WINDOW).encode(texts)
    expected = plain.encode(texts)
    assert lists.ids.tolist() == expected.ids.tolist()
    assert lists.starts.tolist() == expected.starts.tolist()
    assert not problems
    assert len(LongTexts(plain, WINDOW).encode([])[0].ids) == 0


def test_no_more_than_a_bound_is_tokenised_at_a_time() -> None:
    spy = Spy(_encoder("byte BPE"))
    LongTexts(spy, 8).encode(["ab " * 500_000])
    assert spy.longest <= most_characters(8) < 300_000
    assert most_characters(100_000) > 100_000 * 8


@pytest.mark.usefixtures("_small_bound")
def test_a_row_with_a_long_text_leaves_its_neighbours_alone() -> None:
    plain = _encoder("WordPiece")
    renderer = PlainRenderer(plain, WINDOW)
    short = Example.pair("the quick ", "brown fox")
    pairs = [(short, 1), (Example.pair("the ", TEXTS["one letter"]), 1), (short, 1)]
    turns = renderer.turns(pairs)
    alone = renderer.turns(pairs[:1])
    assert list(turns.problems) == [1]
    for field in ("before_lengths", "whole_lengths", "alone_lengths"):
        lengths = getattr(turns, field).tolist()
        assert lengths == [*getattr(alone, field), 0, *getattr(alone, field)]
