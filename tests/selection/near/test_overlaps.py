# ruff: noqa: RUF001 - punctuation of other scripts is what is tested
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sf_ray.selection.near.overlaps import WORDS, RunSet, runs_in

# Two words, so that long runs are shared now and then; some texts are short, some have no word.
TEXTS = st.lists(
    st.one_of(
        st.lists(st.sampled_from("ab"), max_size=20).map(" ".join), st.sampled_from(["?", "a! B"])
    ),
    max_size=8,
)


def overlaps_by_hand(text: str, others: list[str]) -> bool:
    """13 words in a row are shared, or all words of a shorter text."""
    words = text.lower().replace("!", "").replace("?", "").split()
    for other in others:
        of_other = other.lower().replace("!", "").replace("?", "").split()
        if len(words) < WORDS or len(of_other) < WORDS:
            if words and words == of_other:
                return True
            continue
        runs = {tuple(of_other[i : i + WORDS]) for i in range(len(of_other) - WORDS + 1)}
        if any(tuple(words[i : i + WORDS]) in runs for i in range(len(words) - WORDS + 1)):
            return True
    return False


@given(TEXTS, TEXTS, TEXTS)
def test_texts_overlap_that_share_a_run_of_words_or_are_short_and_equal(
    one: list[str], other: list[str], texts: list[str]
) -> None:
    runs = RunSet.union([RunSet.of(one), RunSet.of([*other, None])])
    found = runs.overlapping(texts).tolist()
    expected = [at for at, text in enumerate(texts) if overlaps_by_hand(text, [*one, *other])]
    assert found == expected
    assert runs.texts + runs.unread == len(one) + len(other) + 1
    for at in found:
        shared = runs.first_shared(texts[at])
        words = shared.text.split()
        assert len(words) == min(WORDS, len(words))
        # Only texts that overlap have the run, and the first that has it is found.
        row = min(runs_in([*one, None, *other], np.array([shared.hash], np.uint64)).values())
        assert overlaps_by_hand(shared.text, [[*one, "", *other][row]])


def test_case_punctuation_and_white_space_do_not_hide_an_overlap() -> None:
    question = "Which of the following is, in order, the largest planet of our solar system today?"
    runs = RunSet.of([question])
    hidden = "Say: which OF the\nfollowing -- is in order the largest\u200b planet of our (solar)"
    assert runs.overlapping([hidden, hidden.replace("planet", "moon")]).tolist() == [0]
    assert runs.first_shared(hidden).text == (
        "which of the following is in order the largest planet of our solar"
    )


def test_a_chinese_text_is_compared_by_its_characters() -> None:
    runs = RunSet.of(["下列哪一项是太阳系中最大的行星？答案：木星"])
    assert runs.overlapping(["请问，下列哪一项是太阳系中最大的卫星"]).tolist() == [0]
    assert runs.overlapping(["太阳系中最大的行星是木星"]).tolist() == []


def test_a_word_without_end_is_shown_as_its_beginning() -> None:
    text = "a" * 10_000
    assert len(RunSet.of([text]).first_shared(text).text) == 300
