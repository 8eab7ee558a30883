"""What rows are ranked by: one value of each row, of which higher is better.

This module does not know how many rows are kept, or of which groups. One criterion reads token
losses beside the score pieces; the others are given all that they need. No Ray, no model.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sf_ray.config.value_types import Score
from sf_ray.corpus.units import Place
from sf_ray.scoring.token_losses import read_token_losses
from sf_ray.selection.selective_ifd import selective_ifd
from sf_ray.storage.location import Location

Floats = NDArray[np.float64]

# Score -> the column of the score table that has it. The difference of the losses is ln IFD.
# S-IFD is in no column: its threshold depends on the whole corpus.
_COLUMNS: dict[Score, str] = {
    "ifd": "ifd",
    "loss-delta": "ifd",
    "ppl-direct": "ppl_direct",
    "ppl-conditioned": "ppl_conditioned",
    "answer-tokens": "answer_tokens",
}


class Criterion(Protocol):
    """Gives each row the value that it is ranked by."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the score table that it looks at."""
        ...

    @property
    def within(self) -> tuple[float, float]:
        """The least value there may be, and one above all; the narrower, the fewer counts."""
        ...

    def values(self, places: Sequence[Place], table: pa.Table) -> Floats:
        """Values of the rows of some units.

        Args:
            places: The units, each with its shard.
            table: [rows] their scores, with the columns that are looked at.

        Returns:
            [rows] NaN where a row has no value.
        """
        ...

    def with_own(self, places: Sequence[Place], table: pa.Table) -> pa.Table:
        """The scores of some units, with what `values` would else read again for these rows."""
        ...


@dataclass(frozen=True)
class ByScore:
    """The highest values of a score first, or the lowest.

    Attributes:
        score: What the score table says of a row.
        lowest: Whether the lowest values are the best.
    """

    score: Score = "ifd"
    lowest: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """See `Criterion`."""
        return (_COLUMNS[self.score],)

    @property
    def within(self) -> tuple[float, float]:
        """See `Criterion`."""
        if self.lowest or self.score == "loss-delta":
            return (-np.inf, np.inf)
        return (0.0, np.inf)

    def values(self, places: Sequence[Place], table: pa.Table) -> Floats:
        """See `Criterion`."""
        column = table[_COLUMNS[self.score]]
        values: Floats = column.to_numpy(zero_copy_only=False).astype(np.float64, copy=False)
        if self.score == "loss-delta":
            with np.errstate(divide="ignore"):
                values = np.log(values)
        return -values if self.lowest else values

    def with_own(self, places: Sequence[Place], table: pa.Table) -> pa.Table:
        """See `Criterion`."""
        return table


# What the method ranks by.
BY_IFD = ByScore()

_S_IFD = "s_ifd"


@dataclass(frozen=True)
class BySelectiveIfd:
    """The highest S-IFD first, or the lowest: see `selective_ifd`.

    Attributes:
        scores: The folder of the score pieces; their token losses lie beside them.
        threshold_nats: What the losses of a token must differ by for it to count.
        lowest: Whether the lowest values are the best.
    """

    scores: Location
    threshold_nats: float
    lowest: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """See `Criterion`."""
        return ()

    @property
    def within(self) -> tuple[float, float]:
        """See `Criterion`."""
        return (-np.inf, np.inf) if self.lowest else (0.0, np.inf)

    def values(self, places: Sequence[Place], table: pa.Table) -> Floats:
        """See `Criterion`.

        Raises:
            SfRayError: Token losses are missing, or cannot be read.
        """
        if _S_IFD not in table.column_names:
            table = self.with_own(places, table)
        values: Floats = table[_S_IFD].to_numpy()
        return -values if self.lowest else values

    def with_own(self, places: Sequence[Place], table: pa.Table) -> pa.Table:
        """See `Criterion`; reads the token losses of the units.

        Raises:
            SfRayError: Token losses are missing, or cannot be read.
        """
        of_units = [
            selective_ifd(unit.counts, unit.nats, self.threshold_nats)
            for unit in read_token_losses(self.scores, places)
        ]
        return table.append_column(_S_IFD, pa.array(np.concatenate(of_units)))


@dataclass(frozen=True)
class AtRandom:
    """A number of each row that depends on nothing but the seed, its shard's name and its row.

    So the order is the same on every cluster, and a shard that is added changes nothing among the
    rows of the others.

    Attributes:
        seed: Another seed, another order.
    """

    seed: int = 0

    @property
    def columns(self) -> tuple[str, ...]:
        """See `Criterion`."""
        return ()

    @property
    def within(self) -> tuple[float, float]:
        """See `Criterion`."""
        return (0.0, 1.0)

    def values(self, places: Sequence[Place], table: pa.Table) -> Floats:
        """See `Criterion`; in [0, 1)."""
        hashes = [np.empty(0, np.uint64)]
        for shard, unit in places:
            rows = np.arange(unit.start, unit.stop, dtype=np.uint64)
            hashes.append(_mixed(rows ^ self._key(shard.file.relative)))
        # A double has 53 bits.
        numbers: Floats = (np.concatenate(hashes) >> np.uint64(11)).astype(np.float64)
        return numbers * 2.0**-53

    def with_own(self, places: Sequence[Place], table: pa.Table) -> pa.Table:
        """See `Criterion`."""
        return table

    def _key(self, shard: str) -> np.uint64:
        name, seed = shard.encode("utf-8", "surrogatepass"), self.seed.to_bytes(8, "little")
        digest = hashlib.blake2b(name, digest_size=8, key=seed).digest()
        return np.uint64(int.from_bytes(digest, "little"))


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """[n] hashes of numbers: SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    with np.errstate(over="ignore"):
        values = values + np.uint64(0x9E3779B97F4A7C15)
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return values ^ (values >> np.uint64(31))
