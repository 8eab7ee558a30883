"""How much is kept of answers of each length, and how IFD depends on it.

Counts of parts of a corpus are added in any order, and stay small. Plain arrays: this module does
not know where scores lie or how a report looks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sf_ray.output.report.surveyed_rows import Ints, Points, SurveyedRows
from sf_ray.scoring.rank_correlation import rank_correlation
from sf_ray.selection.lengths import LENGTHS, length_of, share_out

# Lengths are shown in this many bins of about equally many rows.
_BINS = 8


@dataclass(frozen=True)
class LengthCounts:
    """Rows by the length of their answers; the sum of two counts the rows of both.

    Attributes:
        rows: [LENGTHS] rows with a score.
        eligible: [LENGTHS] rows that may be kept.
        kept: [LENGTHS]
        to_normalise: Code of a group -> [LENGTHS] the rows that `--by length-normalised` would
            choose from.
        tokens: Of the prompts and the answers of those.
    """

    rows: Ints
    eligible: Ints
    kept: Ints
    to_normalise: Mapping[int, Ints]
    tokens: int

    @classmethod
    def none(cls) -> "LengthCounts":
        """Counts of no rows."""
        nothing = np.zeros(LENGTHS, np.int64)
        return cls(nothing, nothing, nothing, {}, 0)

    @classmethod
    def of(cls, rows: SurveyedRows, codes: Ints, below: float) -> "LengthCounts":
        """Counts rows.

        Args:
            rows: n rows.
            codes: [n] the code of each row's group.
            below: `--by length-normalised` would keep rows with an IFD below this.
        """
        lengths = length_of(np.maximum(rows.answer_tokens, 0))
        chosen_from = rows.eligible & (rows.ifd < below)
        tokens = (rows.prompt_tokens + rows.answer_tokens)[chosen_from]
        return cls(
            _count(lengths[rows.ok]),
            _count(lengths[rows.eligible]),
            _count(lengths[rows.kept]),
            {
                code: _count(lengths[chosen_from & (codes == code)])
                for code in np.unique(codes[chosen_from]).tolist()
            },
            int(tokens.sum()),
        )

    def __add__(self, other: "LengthCounts") -> "LengthCounts":
        one, two, none = self.to_normalise, other.to_normalise, np.zeros(LENGTHS, np.int64)
        return LengthCounts(
            self.rows + other.rows,
            self.eligible + other.eligible,
            self.kept + other.kept,
            {code: one.get(code, none) + two.get(code, none) for code in {**one, **two}},
            self.tokens + other.tokens,
        )

    def normalised(self, wanted: Sequence[int], keep_tokens: int | None) -> Ints:
        """[LENGTHS] the rows that `--by length-normalised` would keep.

        Args:
            wanted: Rows that are wanted of each group, in the order of the groups' codes.
            keep_tokens: Tokens that are wanted instead; None where rows are.
        """
        kept = np.zeros(LENGTHS, np.int64)
        for code, of_group in self.to_normalise.items():
            count = wanted[code]
            if keep_tokens is not None:  # and so there is one group
                count = int(of_group.sum()) * keep_tokens // max(1, self.tokens)
            kept += share_out(count, of_group)
        return kept


def _count(lengths: Ints) -> Ints:
    return np.bincount(lengths, minlength=LENGTHS).astype(np.int64)


@dataclass(frozen=True)
class AnswerLengths:
    """What became of the rows of each length, and how IFD depends on the length.

    Attributes:
        rows: [LENGTHS] rows with a score.
        eligible: [LENGTHS] rows that may be kept.
        kept: [LENGTHS]
        normalised: [LENGTHS] rows that `--by length-normalised` would keep, with the same options
            otherwise; None where `--diversify-to` chooses further.
        correlation: Spearman's rank correlation of IFD with answer tokens; None where one of the
            two is the same in all rows, or where fewer than two rows have a score.
        correlated_rows: The rows that it is of: those with a score, or a sample of them.
    """

    rows: Ints
    eligible: Ints
    kept: Ints
    normalised: Ints | None
    correlation: float | None
    correlated_rows: int

    @classmethod
    def of(cls, counts: LengthCounts, normalised: Ints | None, points: Points) -> "AnswerLengths":
        """Joins counts of all rows with a sample of them."""
        correlation = rank_correlation(points.ifd, points.answer_tokens)
        return cls(
            counts.rows,
            counts.eligible,
            counts.kept,
            normalised,
            None if np.isnan(correlation) else correlation,
            len(points.ifd),
        )

    def bins(self) -> list["LengthBin"]:
        """Lengths that follow each other, joined into `_BINS` bins of about equally many rows.

        There are fewer where many rows have one length; none where no row has a score.
        """
        occurring = np.flatnonzero(self.rows)
        of_occurring = self.rows[occurring]
        # A length belongs where the middle one of its rows stands among all rows.
        middles = np.cumsum(of_occurring) - of_occurring / 2
        numbers = (middles * _BINS / max(1, int(self.rows.sum()))).astype(np.int64)
        # Ends are those of what occurs: long answers are far from each other.
        bins = (occurring[numbers == number] for number in np.unique(numbers))
        return [self._bin(int(of_bin[0]), int(of_bin[-1])) for of_bin in bins]

    def _bin(self, first: int, last: int) -> "LengthBin":
        lengths = slice(first, last + 1)
        rows, eligible, kept = (
            int(counts[lengths].sum()) for counts in (self.rows, self.eligible, self.kept)
        )
        normalised = None if self.normalised is None else int(self.normalised[lengths].sum())
        return LengthBin(first, last, rows, eligible, kept, normalised)


@dataclass(frozen=True)
class LengthBin:
    """Rows with answers of several lengths that follow each other.

    Attributes:
        first: The shortest of the lengths.
        last: The longest of them.
        rows: Rows with a score.
        eligible: Rows that may be kept.
        kept: Rows that are kept.
        normalised: Rows that `--by length-normalised` would keep; None as in `AnswerLengths`.
    """

    first: int
    last: int
    rows: int
    eligible: int
    kept: int
    normalised: int | None
