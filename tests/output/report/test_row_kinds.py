"""Kinds of shown rows: their words in summary.json, their order and headings."""

import pickle

import pytest

from sf_ray.corpus.status import Status
from sf_ray.output.report.row_kinds import RowKind, ScoreKind, StatusKind, kind_of

KINDS: list[RowKind] = [*ScoreKind, *map(StatusKind, Status)]


def test_the_words_of_summary_json_stay() -> None:
    assert [kind.value for kind in ScoreKind] == [
        "best",
        "last kept",
        "first missed",
        "below 1",
        "above 1",
        "lowest",
    ]
    assert StatusKind(Status.BAD_ROW).value == "status bad_row"


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_comes_back_from_its_word_and_from_another_process(kind: RowKind) -> None:
    assert kind_of(kind.value) == kind
    assert pickle.loads(pickle.dumps(kind)) == kind
    assert kind.title


def test_what_leads_down_to_a_bound_has_the_highest_ifd_first() -> None:
    assert [kind for kind in KINDS if kind.highest_first] == [
        ScoreKind.BEST,
        ScoreKind.FIRST_MISSED,
        ScoreKind.BELOW_1,
    ]


def test_a_status_is_explained_by_its_meaning() -> None:
    kind = StatusKind(Status.NO_PROMPT)
    assert (kind.title, kind.about) == ("Status no_prompt", f"{Status.NO_PROMPT.meaning}.")


@pytest.mark.parametrize("word", ["", "worst", "status ", "status unheard_of"])
def test_other_words_are_no_kind(word: str) -> None:
    with pytest.raises(ValueError, match="is not a valid"):
        kind_of(word)
