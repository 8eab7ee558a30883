import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fastokens
import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer

from sf_ray.encoding.fast_text_encoder import FastTextEncoder, choose_text_encoder
from sf_ray.encoding.text_encoder import PlainTextEncoder, TokenLists, backend_of
from sf_ray.encoding.trial_texts import trial_texts


@pytest.fixture
def tokenizer(tiny_bos_model: Path) -> Any:
    return AutoTokenizer.from_pretrained(tiny_bos_model)


class Bytes:
    """Encodes each text as its bytes, and remembers how many texts it was given."""

    texts = 0

    def encode(self, texts: Sequence[str]) -> TokenLists:
        self.texts += len(texts)
        return TokenLists.of([list(text.encode()) for text in texts])


class Odd(Bytes):
    """Encodes "wrong" wrongly, and raises an error for a text with the name of the error in it."""

    errors: tuple[type[BaseException], ...] = ()

    def encode(self, texts: Sequence[str]) -> TokenLists:
        for error in self.errors:
            if any(error.__name__ in text for text in texts):
                raise error("no")
        return super().encode([text.replace("wrong", "other") for text in texts])


class PanicException(BaseException):
    """As a panic in Rust code shows in Python."""


def ids(lists: TokenLists, texts: Sequence[str]) -> list[list[int]]:
    return [lists.part(i).tolist() for i in range(len(texts))]


def of_bytes(texts: Sequence[str]) -> list[list[int]]:
    return [list(text.encode()) for text in texts]


def test_fastokens_encodes_where_it_gives_the_same_ids(tokenizer: Any) -> None:
    backend = backend_of(tokenizer)
    chosen = choose_text_encoder(backend, ["text of the corpus"])
    assert chosen.is_fast
    assert (
        f"gave the ids of tokenizers on {1 + len(trial_texts(['<s>', '</s>']))} texts" in chosen.why
    )
    texts = ["", "this and that", "<s>a</s> b", "\U0001f44d \u6f22"] * 3
    expected = ids(PlainTextEncoder(backend).encode(texts), texts)
    assert ids(chosen.encoder.encode(texts), texts) == expected
    assert [list(backend.encode(text).ids) for text in texts] == expected
    assert len(chosen.encoder.encode([]).ids) == 0


def test_what_was_set_or_added_after_loading_counts(tokenizer: Any) -> None:
    tokenizer.add_tokens([AddedToken("this and"), AddedToken("\u6f22", lstrip=True)])
    tokenizer.backend_tokenizer.enable_truncation(3)
    tokenizer.backend_tokenizer.enable_padding(length=30)
    backend = backend_of(tokenizer)
    chosen = choose_text_encoder(backend)
    assert chosen.is_fast
    text = "this and that and this and  \u6f22 again"
    (encoded,) = ids(chosen.encoder.encode([text]), [text])
    assert encoded == backend.encode(text).ids
    assert len(encoded) > 3
    assert set(tokenizer.convert_tokens_to_ids(["this and", "\u6f22"])) < set(encoded)


def test_a_text_with_a_byte_that_has_no_token_is_left_to_tokenizers() -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    alphabet.remove("\u0104")  # stands for byte 4, which SmolLM2 has no token for either
    vocabulary = {token: i for i, token in enumerate([*alphabet, "bc"])}
    backend = Tokenizer(models.BPE(vocabulary, [("b", "c")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    chosen = choose_text_encoder(backend)
    assert chosen.is_fast
    texts = ["b", "bcb", "b\x04c", "c"]
    assert ids(chosen.encoder.encode(texts), texts) == [backend.encode(t).ids for t in texts]


def test_a_tokenizer_that_fastokens_does_not_know_is_left_to_tokenizers() -> None:
    backend = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    chosen = choose_text_encoder(backend)
    assert not chosen.is_fast
    assert "does not take this tokenizer" in chosen.why
    assert chosen.encoder.encode(["a b a"]).ids.tolist() == [0, 1, 0]


def test_without_the_package_there_is_nothing_to_say(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fastokens", None)
    chosen = choose_text_encoder(backend_of(tokenizer))
    assert (chosen.is_fast, chosen.why) == (False, "")


def test_one_other_id_is_enough_to_refuse_fastokens(
    tokenizer: Any, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = AutoTokenizer.from_pretrained(tiny_model).backend_tokenizer.to_str()  # without a BOS
    real = fastokens.Tokenizer
    monkeypatch.setattr(fastokens, "Tokenizer", lambda: None)
    monkeypatch.setattr(
        fastokens.Tokenizer, "from_json_str", lambda _: real.from_json_str(other), False
    )
    chosen = choose_text_encoder(backend_of(tokenizer), ["text of the corpus"])
    assert not chosen.is_fast
    assert chosen.why == "it gives other ids than tokenizers, first for 'text of the corpus'"


def test_a_text_that_fastokens_refuses_does_not_slow_down_the_others() -> None:
    plain, fast = Bytes(), Odd()
    fast.errors = (ValueError, PanicException)
    encoder = FastTextEncoder(plain, fast)
    texts = [f"{i}" for i in range(50)] + ["a ValueError", "a PanicException", "b"]
    assert ids(encoder.encode(texts), texts) == of_bytes(texts)
    assert plain.texts == 3  # those two, and the one that is always compared
    assert fast.texts == 51


def test_what_ends_the_process_is_no_refusal() -> None:
    fast = Odd()
    fast.errors = (KeyboardInterrupt,)
    with pytest.raises(KeyboardInterrupt):
        FastTextEncoder(Bytes(), fast).encode(["a KeyboardInterrupt"])


@pytest.mark.parametrize("at", [0, 4000])
def test_a_difference_in_the_middle_of_a_run_gives_the_rows_to_tokenizers(
    at: int, capfd: pytest.CaptureFixture[str]
) -> None:
    fast = Odd()
    encoder = FastTextEncoder(Bytes(), fast)
    texts = ["right"] * 4500
    assert ids(encoder.encode(texts), texts) == of_bytes(texts)
    assert capfd.readouterr().err == ""
    texts[at] = texts[7] = "wrong"
    assert ids(encoder.encode(texts), texts) == of_bytes(texts)
    err = capfd.readouterr().err
    assert "note: fastokens encodes 'wrong' differently from tokenizers" in err
    before = fast.texts
    assert ids(encoder.encode(texts), texts) == of_bytes(texts)
    assert fast.texts == before


def test_a_short_text_of_another_script_is_always_compared(
    capfd: pytest.CaptureFixture[str],
) -> None:
    texts = ["right"] * 10 + ["wrong \u6f22"]
    assert ids(FastTextEncoder(Bytes(), Odd()).encode(texts), texts) == of_bytes(texts)
    assert "differently" in capfd.readouterr().err


def test_side_by_side_tasks_get_one_thread_each(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FASTOKENS_BPE_THREADS", "RAYON_NUM_THREADS"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    choose_text_encoder(backend_of(tokenizer))
    assert "FASTOKENS_BPE_THREADS" not in os.environ
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    choose_text_encoder(backend_of(tokenizer))
    assert os.environ["FASTOKENS_BPE_THREADS"] == os.environ["RAYON_NUM_THREADS"] == "1"
