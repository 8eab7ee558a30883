"""How alike two models score the same rows: rank correlation, and overlap of what is selected.

Superfiltering (Li et al., ACL 2024, arXiv 2402.00530) compares a weak model with a strong one by
these figures. Plain arrays: knows neither models nor where scores lie.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sf_ray.config.quotas import rows_to_keep
from sf_ray.scoring.rank_correlation import rank_correlation
from sf_ray.selection.cutoffs import Bounds

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

# At and above this IFD the instruction does not help the model to predict the answer.
NO_HELP = 1.0


@dataclass(frozen=True)
class ScoreColumns:
    """Scores of n rows by one model.

    Attributes:
        ppl_direct, ppl_conditioned, ifd: [n]; NaN unless a row is `ok`.
    """

    ppl_direct: Floats
    ppl_conditioned: Floats
    ifd: Floats

    @property
    def is_ok(self) -> Mask:
        """[n], whether a row is `ok`."""
        ok: Mask = ~np.isnan(self.ifd)
        return ok


@dataclass(frozen=True)
class Overlap:
    """What the selections of A and of B have in common.

    Attributes:
        fraction: Fraction of all rows that each was asked to keep.
        wanted: Number of rows that this is.
        kept_a, kept_b: Rows that each keeps: fewer than wanted where fewer are eligible.
        both: Rows that both keep.
    """

    fraction: float
    wanted: int
    kept_a: int
    kept_b: int
    both: int

    @property
    def share(self) -> float:
        """Share of the smaller selection that lies in the other too; NaN where it is empty."""
        smaller = min(self.kept_a, self.kept_b)
        return self.both / smaller if smaller else float("nan")


@dataclass(frozen=True)
class Agreement:
    """Rows that are `ok` for both models, by the models whose IFD is 1 or more.

    Attributes:
        both: The IFD of both models is 1 or more.
        only_a, only_b: The IFD of one model is, that of the other lies below 1.
        neither: Both lie below 1.
    """

    both: int = 0
    only_a: int = 0
    only_b: int = 0
    neither: int = 0

    @classmethod
    def of(cls, ifd_a: Floats, ifd_b: Floats) -> "Agreement":
        """Counts [n] rows; rows with a NaN on either side are left out."""
        is_ok = ~(np.isnan(ifd_a) | np.isnan(ifd_b))
        a, b = ifd_a[is_ok] >= NO_HELP, ifd_b[is_ok] >= NO_HELP
        return cls(
            both=int((a & b).sum()),
            only_a=int((a & ~b).sum()),
            only_b=int((~a & b).sum()),
            neither=int((~a & ~b).sum()),
        )

    def __add__(self, other: "Agreement") -> "Agreement":
        return Agreement(
            self.both + other.both,
            self.only_a + other.only_a,
            self.only_b + other.only_b,
            self.neither + other.neither,
        )

    @property
    def rows(self) -> int:
        """Rows that are `ok` for both models."""
        return self.both + self.only_a + self.only_b + self.neither

    @property
    def share(self) -> float:
        """Share of the rows on which the models agree; NaN where there are no rows."""
        return (self.both + self.neither) / self.rows if self.rows else float("nan")


@dataclass(frozen=True)
class Consistency:
    """How alike two models score n rows.

    Attributes:
        rows: Rows that are `ok` for both models; these are correlated.
        ppl_direct, ppl_conditioned, ifd: Spearman's rank correlation of each score; NaN where all
            rows have the same score by one model.
        overlaps: The overlap of the best rows, for each fraction in order.
    """

    rows: int
    ppl_direct: float
    ppl_conditioned: float
    ifd: float
    overlaps: tuple[Overlap, ...]


def consistency_of(
    a: ScoreColumns, b: ScoreColumns, fractions: Sequence[float], max_ifd: float
) -> Consistency:
    """Compares the scores of n rows, which stand in the order of the corpus on both sides.

    Args:
        a, b: The scores of [n] rows by each model.
        fractions: Fractions of the n rows to select.
        max_ifd: Only rows with an IFD below this are selected.
    """
    is_ok = a.is_ok & b.is_ok
    best_a, best_b = best_rows(a.ifd, max_ifd), best_rows(b.ifd, max_ifd)
    return Consistency(
        int(is_ok.sum()),
        rank_correlation(a.ppl_direct[is_ok], b.ppl_direct[is_ok]),
        rank_correlation(a.ppl_conditioned[is_ok], b.ppl_conditioned[is_ok]),
        rank_correlation(a.ifd[is_ok], b.ifd[is_ok]),
        tuple(overlap_of(best_a, best_b, len(a.ifd), fraction) for fraction in fractions),
    )


def best_rows(ifd: Floats, max_ifd: float) -> NDArray[np.int64]:
    """The rows that may be selected, best first: high IFD before low, then in the corpus's order.

    Args:
        ifd: [n] in the order of the corpus; NaN where a row has no IFD.
        max_ifd: Only rows with an IFD below this may be selected.

    Returns:
        Indices of rows; as many as may be selected.
    """
    eligible = np.flatnonzero(Bounds(0, max_ifd).holds(ifd))
    return eligible[np.argsort(-ifd[eligible], kind="stable")]


def overlap_of(
    best_a: NDArray[np.int64], best_b: NDArray[np.int64], rows: int, fraction: float
) -> Overlap:
    """What the best rows of A and of B have in common.

    Args:
        best_a, best_b: Indices of the rows that each may select, best first.
        rows: Number of all rows.
        fraction: Fraction of all rows to select.
    """
    wanted = rows_to_keep(rows, fraction)
    kept_a, kept_b = best_a[:wanted], best_b[:wanted]
    is_kept = np.zeros(rows, np.bool_)
    is_kept[kept_b] = True
    return Overlap(fraction, wanted, len(kept_a), len(kept_b), int(is_kept[kept_a].sum()))


def sampled(shard: str, rows: NDArray[np.int64], share: float) -> Mask:
    """Whether [n] rows of a shard belong to a sample; the same rows on every run.

    Args:
        shard: Path of the shard, relative to the corpus.
        rows: [n] row numbers in the shard.
        share: About this share of all rows belongs to the sample. The sample of a smaller share is
            part of that of a larger one.
    """
    name = np.frombuffer(hashlib.blake2b(shard.encode(), digest_size=8).digest(), np.uint64)
    # The finaliser of SplitMix64 (Steele et al., OOPSLA 2014): each bit of the input changes half
    # of the bits of the output. Products are meant modulo 2^64.
    with np.errstate(over="ignore"):
        bits = rows.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + name
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        bits ^= bits >> np.uint64(31)
    chosen: Mask = bits / 2.0**64 < share
    return chosen
