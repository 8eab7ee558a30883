"""What `--exact` scored again: a plain record, which says nothing of how it was done."""

from dataclasses import dataclass

from sf_ray.scoring.score_set import ScoreSet
from sf_ray.selection.exact.bands import Bands

# What scores are exact in.
EXACT_DTYPE = "float32"


@dataclass(frozen=True)
class Rescoring:
    """The rows that were scored again in float32, and why these.

    Attributes:
        score_set: The mixed scores: float32's where a row was scored again.
        bands: How far scores in the fast type may be off, and what was seen of it.
        asked: Rows that were asked for as the sample.
        sampled: Rows of the sample.
        rows: All rows that were scored again, the sample included.
        rounds: How often rows were scored again after the sample.
    """

    score_set: ScoreSet
    bands: Bands
    asked: int
    sampled: int
    rows: int
    rounds: int
