"""What `sf-ray show` says of a score set, added up table by table.

A tally has the same size for a thousand rows and for a billion. Knows neither where scores lie nor
how they are printed.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sf_ray.scoring.bad_rows import count_statuses
from sf_ray.scoring.score_table import SCORE_SCHEMA

# Columns of the score table whose quantiles are told, and all that are read.
VALUES = ("ifd", "ppl_direct", "ppl_conditioned")
COLUMNS = ("shard", "row", "status", *VALUES)
# The bits of a float64 behind its exponent are 52. The first 16 of them tell numbers apart that
# differ by 1.5e-5 of their size: finer than the four digits that are printed.
_BIN_SHIFT, _BINS = 36, 1 << 16


class Quantiles:
    """Quantiles of any number of positive values, counted in bins of 1.5e-5 of a value."""

    def __init__(self) -> None:
        # Exponent of a value -> [2^16] how many values have each of the first bits behind it.
        self._counts: defaultdict[int, NDArray[np.int64]] = defaultdict(
            lambda: np.zeros(_BINS, np.int64)
        )
        self.values = 0

    def add(self, values: NDArray[np.float64]) -> None:
        """Counts [n] values, which are not NaN."""
        if not len(values):
            return
        # Sorted, exponents follow each other, and then the bits behind them.
        bins = np.sort(np.ascontiguousarray(values).view(np.int64) >> _BIN_SHIFT)
        starts = np.flatnonzero(np.diff(bins // _BINS)) + 1
        for of_exponent in np.split(bins, starts):
            counts = self._counts[int(of_exponent[0]) // _BINS]
            np.add.at(counts, of_exponent % _BINS, 1)
        self.values += len(values)

    def at(self, share: float) -> float:
        """The value below which a share of the values lies, as `numpy.quantile` finds it."""
        before = share * (self.values - 1)
        low, high = (self._value(int(rank)) for rank in (np.floor(before), np.ceil(before)))
        return low + (high - low) * (before % 1)

    def _value(self, rank: int) -> float:
        """The middle of the bin that holds the value before which `rank` others come."""
        for exponent in sorted(self._counts):
            counts = self._counts[exponent]
            if rank < (here := int(counts.sum())):
                at = int(np.searchsorted(np.cumsum(counts), rank, side="right"))
                edges = exponent * _BINS + np.array([at, at + 1]) << _BIN_SHIFT
                return float(edges.view(np.float64).mean())
            rank -= here
        raise AssertionError("no more values than were counted")


@dataclass
class ScoreTally:
    """The scores of the tables that were added.

    Attributes:
        top: How many of the best rows to keep.
        status: The status of which to keep some rows; None for none.
        examples: How many of those.
        rows: All rows.
        tables: Tables that have rows.
        statuses: Status -> rows.
        quantiles: Column -> its quantiles.
        best: The rows with the highest IFD below 1, best first; equal ones by place.
        with_status: The first rows that have the status.
    """

    top: int = 0
    status: str | None = None
    examples: int = 0
    rows: int = 0
    tables: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    quantiles: dict[str, Quantiles] = field(
        default_factory=lambda: {name: Quantiles() for name in VALUES}
    )
    best: pa.Table = field(default_factory=lambda: _no_rows())
    with_status: pa.Table = field(default_factory=lambda: _no_rows())

    def add(self, scores: pa.Table) -> None:
        """Adds some rows with `COLUMNS`, in the order of the corpus."""
        scores = scores.select(COLUMNS)
        self.rows += scores.num_rows
        self.tables += scores.num_rows > 0
        self.statuses.update(count_statuses(scores["status"]))
        for name, quantiles in self.quantiles.items():
            quantiles.add(scores[name].drop_null().to_numpy())
        if self.top:
            below = scores.filter(pc.less(scores["ifd"], 1.0))
            self.best = _best(pa.concat_tables([self.best, below]), self.top)
        if self.status is not None and self.with_status.num_rows < self.examples:
            found = scores.filter(pc.equal(scores["status"], self.status))
            both = pa.concat_tables([self.with_status, found])
            self.with_status = both.slice(0, self.examples).combine_chunks()


def _best(scores: pa.Table, count: int) -> pa.Table:
    order = [("ifd", "descending"), ("shard", "ascending"), ("row", "ascending")]
    return scores.take(pc.select_k_unstable(scores, count, order))


def _no_rows() -> pa.Table:
    return SCORE_SCHEMA.empty_table().select(list(COLUMNS))
