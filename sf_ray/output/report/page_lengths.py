"""The section of report.html on the length of answers: sentences, and the rows of its table."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from sf_ray.output.report.answer_lengths import AnswerLengths, LengthBin
from sf_ray.selection.lengths import LEAST_TOKENS, LENGTHS

# A correlation below this is slight.
_SLIGHT = 0.3
# The longest answers, of which a sentence speaks, are at least this share of the rows.
_LONGEST = 0.2


def lengths_of_page(lengths: AnswerLengths, by: str) -> dict[str, Any]:
    """The variables of the section.

    Args:
        lengths: What became of the rows of each length.
        by: The value of `--by`.
    """
    bins = lengths.bins()
    # What `--by length-normalised` would keep is what it keeps.
    is_other = by != "length-normalised" and lengths.normalised is not None
    sentences = [_correlation(lengths), *_longest(bins, is_other)]
    if by == "length-normalised":
        sentences.append(
            "Of each length the best are kept (--by length-normalised), in proportion to its "
            "eligible rows."
        )
    return {
        "about": " ".join(sentences),
        "bins": [_row(one) for one in bins],
        "has_normalised": is_other,
    }


def _correlation(lengths: AnswerLengths) -> str:
    """Whether long answers have a high IFD."""
    rows, rho = lengths.correlated_rows, lengths.correlation
    if rows < 2:
        return "Too few rows have a score to say how IFD depends on the length of the answer."
    if rho is None:
        return (
            "IFD has no rank correlation with the length of the answer here: one of the two is the "
            "same in all rows."
        )
    sample = "a sample of " if rows < lengths.rows.sum() else ""
    # Not below zero where it is rounded to zero.
    figure = f"rank correlation {round(rho, 2) + 0.0:.2f} (Spearman's, of {sample}{rows:,} rows)."
    # Of values that have nothing to do with each other, the correlation's standard deviation is
    # 1 / sqrt(rows - 1).
    if abs(rho) < 2 / np.sqrt(rows - 1):
        return f"IFD is not seen to depend on the length of the answer here: {figure}"
    slightly = "slightly " if abs(rho) < _SLIGHT else ""
    return f"Longer answers have a {slightly}{'higher' if rho > 0 else 'lower'} IFD here: {figure}"


def _longest(bins: Sequence[LengthBin], with_normalised: bool) -> Iterator[str]:
    """How many of the kept rows have long answers; nothing where all answers are about as long."""
    rows = sum(one.rows for one in bins)
    start = len(bins)
    while start and sum(one.rows for one in bins[start:]) < _LONGEST * rows:
        start -= 1
    longest = bins[start:]
    if start == 0:
        return
    text = (
        f"Answers of {LEAST_TOKENS[longest[0].first]:,} tokens or more are "
        f"{_share(sum(one.rows for one in longest), rows)} of the rows with a score"
    )
    kept = sum(one.kept for one in bins)
    if kept:
        yield f"{text} and {_share(sum(one.kept for one in longest), kept)} of the kept rows."
    else:
        yield f"{text}; no row is kept."
    would_keep = sum(one.normalised or 0 for one in bins)
    if with_normalised and would_keep:
        of_longest = sum(one.normalised or 0 for one in longest)
        yield (
            "With --by length-normalised, which keeps the best of each length, "
            f"{_share(of_longest, would_keep)} of the kept rows would be that long."
        )


def _row(one: LengthBin) -> dict[str, str]:
    """A bin as a row of the table."""
    return {
        "tokens": _tokens(one),
        "rows": f"{one.rows:,}",
        "eligible": f"{one.eligible:,}",
        "kept": f"{one.kept:,}",
        "share": _share(one.kept, one.rows),
        "percent": f"{100 * one.kept / one.rows:.1f}",
        "normalised": "" if one.normalised is None else f"{one.normalised:,}",
    }


def _tokens(one: LengthBin) -> str:
    """The answer tokens of a bin, e.g. 12 to 45."""
    least = int(LEAST_TOKENS[one.first])
    if one.last + 1 == LENGTHS:
        return f"{least:,} or more"
    most = int(LEAST_TOKENS[one.last + 1]) - 1
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}"
