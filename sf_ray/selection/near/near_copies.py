"""Near copies that were found: which rows they are, and how well they were looked for.

Plain records: this module does not know what makes two rows near.
"""

from dataclasses import dataclass

from sf_ray.selection.bitmap import Bitmap

# Rows of the sample that is compared with all rows.
SAMPLE_ROWS = 2000


@dataclass(frozen=True)
class Sampled:
    """Rows that were compared with every eligible row, to see what the parts miss.

    Attributes:
        rows: Sampled rows.
        near: Rows among them near which there is a better row.
        found: Rows among those near which the parts found one.
    """

    rows: int
    near: int
    found: int


@dataclass(frozen=True)
class NearCopies:
    """The rows that are dropped because a better row is near them.

    Attributes:
        rows: The set of dropped rows.
        compared: Rows that were compared: those that may be kept.
        rounds: How many rounds it took.
        sampled: What the parts found of a sample; None where every row was compared with every
            other one.
    """

    rows: Bitmap
    compared: int
    rounds: int
    sampled: Sampled | None
