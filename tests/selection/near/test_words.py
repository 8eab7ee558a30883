# ruff: noqa: RUF001 - letters of other scripts are what is tested
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sf_ray.selection.near.words import joined, run_hashes, words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Hello, WORLD!\n\tIt's -- 3.5%", ["hello", "world", "it", "s", "3", "5"]),
        ("Straße ＦＵＬＬ ﬁne", ["strasse", "full", "fine"]),
        ("caf\u00e9 cafe\u0301", ["caf\u00e9", "caf\u00e9"]),
        ("你好，世界", ["你", "好", "世", "界"]),
        ("カタカナとGPT", ["カ", "タ", "カ", "ナ", "と", "gpt"]),
        ("한국어 문장", ["한국어", "문장"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("pass\u200bword \u202eevil", ["password", "evil"]),
        ("snake_case", ["snake", "case"]),
        ("?! ...", []),
        ("", []),
    ],
)
def test_words_are_what_is_left_without_case_and_punctuation(text: str, words: list[str]) -> None:
    assert words_of(text) == words


@given(st.text())
def test_words_of_words_are_themselves_and_any_text_has_some_or_none(text: str) -> None:
    words = words_of(text)
    assert words_of(" ".join(words)) == words


WORDS = st.lists(st.sampled_from(["a", "b", "c"]), max_size=9)


@given(WORDS, WORDS, st.integers(1, 4))
def test_runs_have_equal_hashes_exactly_where_their_words_are_equal(
    one: list[str], other: list[str], n: int
) -> None:
    def runs(words: list[str]) -> list[tuple[str, ...]]:
        return [tuple(words[i : i + n]) for i in range(max(len(words) - n, 0) + 1)] if words else []

    found = [(a == b) for a in run_hashes(one, n) for b in run_hashes(other, n)]
    assert found == [(a == b) for a in runs(one) for b in runs(other)]


def test_hashes_of_several_texts_end_where_each_text_ends() -> None:
    hashes, ends = joined(run_hashes(words_of(text), 3) for text in ("a b c d", "", "a"))
    assert ends.tolist() == [2, 2, 3]
    assert len(hashes) == 3


def test_the_hash_of_a_run_never_changes() -> None:
    # Signatures and sets of runs that two versions make must be the same.
    assert run_hashes(words_of("a b"), 3).tolist() == [12883285965562217270]
    assert run_hashes(words_of("a b c"), 3).tolist() == [15491611432705008338]
