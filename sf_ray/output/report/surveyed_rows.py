"""The rows that a survey looks at, and the few of them that it keeps one by one.

`Picks` are the first rows by some key, for people to read. `Points` are a sample of all rows, for
plots. Both stay small and can be added in any order: of two parts of a corpus, the sum is what both
parts together give. Plain arrays: this module does not know where scores lie or how they are shown.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sf_ray.corpus.status import Status
from sf_ray.output.report.row_kinds import RowKind, ScoreKind, StatusKind
from sf_ray.selection.score_range import Positions

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Ints = NDArray[np.int64]

# Rows of a sample for plots, and rows to read of each kind.
POINTS, PICKS = 2000, 10


@dataclass(frozen=True)
class SurveyedRows:
    """Some rows of a corpus, with their scores and whether they are kept.

    Attributes:
        positions: [n] numbers of the rows in the corpus.
        status: [n] strings.
        prompt_tokens: [n]; -1 where a row has none.
        answer_tokens: [n]; -1 where a row has none.
        ppl_direct: [n] perplexity of the answer alone; NaN where a row has no score.
        ppl_conditioned: [n] perplexity of the answer after its prompt; NaN likewise.
        ifd: [n] the ratio of the two; NaN likewise.
        values: [n] what rows are ranked by, which mostly is IFD; NaN where a row may not be kept.
        kept: [n] whether it is.
        cutoff: [n] value of the cut-off of each row's group; NaN where the group keeps nothing.
    """

    positions: Positions
    status: NDArray[np.object_]
    prompt_tokens: Ints
    answer_tokens: Ints
    ppl_direct: Floats
    ppl_conditioned: Floats
    ifd: Floats
    values: Floats
    kept: Flags
    cutoff: Floats

    @property
    def ok(self) -> Flags:
        """[n] whether a row has a score."""
        return ~np.isnan(self.ifd)

    @property
    def eligible(self) -> Flags:
        """[n] whether a row may be kept."""
        return ~np.isnan(self.values)


@dataclass(frozen=True)
class Picks:
    """The rows that come first by some key, at most `PICKS`.

    Attributes:
        keys: [p] sorted, lowest first; equal keys by position.
        positions: [p]
        kept: [p] whether a row is kept.
    """

    keys: Floats
    positions: Positions
    kept: Flags

    @classmethod
    def of(cls, keys: Floats, rows: SurveyedRows, among: Flags) -> "Picks":
        """Picks rows.

        Args:
            keys: [n]
            rows: n rows.
            among: [n] the rows to pick from.
        """
        at = np.flatnonzero(among)
        if len(at) > PICKS:  # sort only rows that may be among the first, with all that tie
            at = at[keys[at] <= np.partition(keys[at], PICKS - 1)[PICKS - 1]]
        return cls(keys[at], rows.positions[at], rows.kept[at])._first()

    def __add__(self, other: "Picks") -> "Picks":
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Picks(*map(np.concatenate, pairs))._first()

    def _first(self) -> "Picks":
        order = np.lexsort((self.positions, self.keys))[:PICKS]
        return Picks(self.keys[order], self.positions[order], self.kept[order])


def picks_of(rows: SurveyedRows) -> dict[RowKind, Picks]:
    """Picks rows of every kind; of statuses, those that occur."""
    ok, ifd, values = rows.ok, rows.ifd, rows.values
    missed = rows.eligible & ~rows.kept & (values <= rows.cutoff)
    # The lowest key comes first. With quotas, each row is compared with the cut-off of its group.
    keys: dict[RowKind, tuple[Floats, Flags]] = {
        ScoreKind.BEST: (-ifd, rows.kept),
        ScoreKind.LAST_KEPT: (values - rows.cutoff, rows.kept),
        ScoreKind.FIRST_MISSED: (rows.cutoff - values, missed),
        ScoreKind.BELOW_1: (-ifd, ok & (ifd < 1)),
        ScoreKind.ABOVE_1: (ifd, ok & (ifd >= 1)),
        ScoreKind.LOWEST: (ifd, ok),
    }
    by_place = rows.positions.astype(np.float64)
    for status in np.unique(rows.status[~ok].astype(str)).tolist():
        keys[StatusKind(Status(status))] = by_place, ~ok & (rows.status == status)
    return {kind: Picks.of(values, rows, among) for kind, (values, among) in keys.items()}


@dataclass(frozen=True)
class Points:
    """A sample of the rows with a score, at most `POINTS`.

    A hash of the position decides which rows are drawn, so that the sample is the same however the
    corpus is cut into parts.

    Attributes:
        hashes: [p] sorted.
        values: [p, 6] direct perplexity, conditioned perplexity, IFD, prompt tokens, answer tokens,
            and 1 where the row is kept, else 0.
    """

    hashes: NDArray[np.uint64]
    values: Floats

    @property
    def ifd(self) -> Floats:
        """[p]"""
        return self.values[:, 2]

    @property
    def answer_tokens(self) -> Floats:
        """[p]"""
        return self.values[:, 4]

    def __add__(self, other: "Points") -> "Points":
        hashes = np.concatenate([self.hashes, other.hashes])
        order = np.argsort(hashes, kind="stable")[:POINTS]
        return Points(hashes[order], np.concatenate([self.values, other.values])[order])


def points_of(rows: SurveyedRows) -> Points:
    """Draws a sample of the rows with a score."""
    with np.errstate(over="ignore"):  # a hash: each bit of a position changes half of all bits
        hashes = (rows.positions.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        hashes = (hashes ^ (hashes >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)
    at = np.flatnonzero(rows.ok)
    if len(at) > POINTS:
        at = at[np.argpartition(hashes[at], POINTS)[:POINTS]]
    at = at[np.argsort(hashes[at], kind="stable")]
    columns = (
        *(rows.ppl_direct, rows.ppl_conditioned, rows.ifd),
        *(rows.prompt_tokens, rows.answer_tokens, rows.kept),
    )
    return Points(hashes[at], np.stack([column[at].astype(np.float64) for column in columns], 1))
