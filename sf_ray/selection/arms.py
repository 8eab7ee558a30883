"""Arms: the ways to say which rows are the best, and the controls that those are held against.

    arm                  ranked by               and then
    ifd                  the score, highest first
    ifd-low              the score, lowest first
    random               a number of each row
    longest              answer tokens
    length-normalised    the score               the best of each length, in proportion to its
                                                 share of the eligible rows
    length-matched       the score               random rows of each length, as many as are among
                                                 the best

Plain records: this module does not know how rows are found.
"""

from dataclasses import dataclass, replace
from typing import Literal

from sf_ray.config.selection_options import SelectionOptions
from sf_ray.selection.criterion import AtRandom, ByScore, BySelectiveIfd, Criterion
from sf_ray.selection.cutoffs import Bounds, TokenBounds


@dataclass(frozen=True)
class Arm:
    """Which rows are the best.

    Attributes:
        bounds: What a row must lie within.
        ranked_by: What rows are ranked by, whatever their length.
        ranked_within: What they must lie within for that.
        by_length: Whether as many rows of each length are kept as it has of the eligible rows
            ("normalised"), or of those that are ranked best ("matched"); None to look at no length.
        drawn_by: What the rows of one length are ranked by.
    """

    bounds: Bounds
    ranked_by: Criterion
    ranked_within: Bounds
    by_length: Literal["normalised", "matched"] | None
    drawn_by: Criterion


def arm_of(options: SelectionOptions, selective: BySelectiveIfd | None = None) -> Arm:
    """The arm that the options ask for.

    Args:
        options: Options of the run.
        selective: Ranks by S-IFD, where the options ask for that.
    """
    by, within = options.by, _bounds(options, options.kept_below)
    lowest = by == "ifd-low"
    score: Criterion = (
        replace(selective, lowest=lowest) if selective else ByScore(options.rank_by, lowest)
    )
    if by == "length-matched":
        # What is drawn at random is drawn of all rows, as `random` is.
        best = _bounds(options, options.best_below)
        return Arm(within, score, best, "matched", AtRandom(options.seed))
    criterion: Criterion = score
    if by == "random":
        criterion = AtRandom(options.seed)
    elif by == "longest":
        criterion = ByScore("answer-tokens")
    by_length: Literal["normalised"] | None = "normalised" if by == "length-normalised" else None
    return Arm(within, criterion, within, by_length, criterion)


def _bounds(options: SelectionOptions, below: float) -> Bounds:
    """The bounds of the options, with IFD below a value."""
    bounds = (
        TokenBounds("prompt_tokens", options.min_prompt_tokens, options.max_prompt_tokens),
        TokenBounds("answer_tokens", options.min_answer_tokens, options.max_answer_tokens),
    )
    # A bound without ends costs the reading of a column, and says nothing.
    given = tuple(bound for bound in bounds if (bound.low, bound.high) != (None, None))
    return Bounds(options.min_ifd, below, given)
