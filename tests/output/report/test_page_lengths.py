"""What the page says of the length of answers is true, whatever was kept and of whatever rows."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from sf_ray.output.report.answer_lengths import AnswerLengths
from sf_ray.output.report.page_lengths import lengths_of_page
from sf_ray.selection.lengths import LENGTHS, length_of
from tests.support.surveys import lengths_of, make_rows


def lengths(
    rows: dict[int, tuple[int, int, int]], correlation: float | None = 0.5, sampled: int = 0
) -> AnswerLengths:
    """Of answer tokens -> rows that are eligible, that are kept, that would be kept."""
    counts = np.zeros((3, LENGTHS), np.int64)
    for tokens, of_length in rows.items():
        counts[:, length_of(np.array([tokens]))[0]] = of_length
    eligible, kept, normalised = counts
    return AnswerLengths(
        eligible, eligible, kept, normalised, correlation, sampled or int(eligible.sum())
    )


def about(lengths: AnswerLengths, by: str = "ifd") -> str:
    text: str = lengths_of_page(lengths, by)["about"]
    return text


@pytest.mark.parametrize(
    ("correlation", "rows", "words"),
    [
        (0.871, 197, "Longer answers have a higher IFD here: rank correlation 0.87 (Spearman's, "
                     "of 197 rows)."),
        (-0.6, 197, "Longer answers have a lower IFD here: rank correlation -0.60"),
        (0.2, 400, "Longer answers have a slightly higher IFD here: rank correlation 0.20"),
        (0.14, 100, "IFD is not seen to depend on the length of the answer here: rank correlation "
                    "0.14"),
        (-0.001, 10_000, "rank correlation 0.00 "),
        (1.0, 2, "IFD is not seen to depend on the length of the answer here"),
        (None, 50, "one of the two is the same in all rows."),
    ],
)  # fmt: skip
def test_a_sentence_says_how_ifd_goes_with_length(
    correlation: float | None, rows: int, words: str
) -> None:
    assert words in about(lengths({20: (rows, 1, 1)}, correlation))


def test_a_sample_is_called_one() -> None:
    sampled = lengths({20: (9000, 1, 1)}, 0.5, sampled=2000)
    assert "(Spearman's, of a sample of 2,000 rows)" in about(sampled)
    assert "sample" not in about(lengths({20: (2000, 1, 1)}))


@pytest.mark.parametrize("count", [0, 1])
def test_of_no_row_and_of_one_nothing_is_said_that_needs_more(count: int) -> None:
    rows = dataclasses.replace(make_rows(count, 0), answer_tokens=np.full(count, 9))
    for by in ("ifd", "random"):
        page = lengths_of_page(lengths_of(rows), by)
        assert page["about"] == (
            "Too few rows have a score to say how IFD depends on the length of the answer."
        )
        assert [row["tokens"] for row in page["bins"]] == ["9"] * count


def test_the_longest_answers_have_their_share_of_rows_of_kept_ones_and_of_normalised_ones() -> None:
    counts = {5: (400, 0, 40), 50: (400, 20, 40), 500: (200, 80, 20)}
    text = about(lengths(counts))
    assert (
        "Answers of 499 tokens or more are 20.0% of the rows with a score and 80.0% of the kept "
        "rows. With --by length-normalised, which keeps the best of each length, 20.0% of the kept "
        "rows would be that long."
    ) in text
    none_kept = about(lengths({tokens: (rows, 0, 0) for tokens, (rows, _, _) in counts.items()}))
    assert "are 20.0% of the rows with a score; no row is kept." in none_kept
    assert "length-normalised" not in none_kept


def test_the_longest_answers_are_no_tenth_of_the_rows_where_more_are_long() -> None:
    text = about(lengths({5: (50, 1, 1), 50: (40, 1, 1), 500: (10, 1, 1)}))
    assert "Answers of 50 tokens or more are 50.0% of the rows with a score and 66.7% of" in text


def test_equally_long_answers_are_not_divided() -> None:
    page = lengths_of_page(lengths({20: (100, 10, 10)}, None), "ifd")
    assert "tokens or more" not in page["about"]
    assert "length-normalised" not in page["about"]
    assert [(row["tokens"], row["rows"], row["share"]) for row in page["bins"]] == [
        ("19 to 20", "100", "10.0%")
    ]


def test_what_was_kept_by_normalised_lengths_is_held_against_nothing() -> None:
    counts = lengths({5: (400, 40, 40), 500: (200, 20, 20)})
    page: dict[str, Any] = lengths_of_page(counts, "length-normalised")
    assert not page["has_normalised"]
    assert "would be" not in page["about"]
    assert "Of each length the best are kept (--by length-normalised)" in page["about"]
    without = dataclasses.replace(counts, normalised=None)
    assert not lengths_of_page(without, "ifd")["has_normalised"]
    assert "length-normalised" not in about(without)


def test_lengths_are_named_by_their_tokens() -> None:
    page = lengths_of_page(lengths({3: (5, 1, 1), 20: (5, 1, 1), 1 << 21: (5, 1, 1)}), "random")
    assert [row["tokens"] for row in page["bins"]] == ["3", "19 to 20", "1,048,576 or more"]
