"""Some rows of a corpus, and the score sets in which only these rows have other scores.

Plain values: opens no file, and does not know why the rows were chosen. No Ray, no model.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sf_ray.corpus.units import Place
from sf_ray.scoring.score_set import EXACT, SAMPLE, ScoreSet, ShardUnits, score_set_of


@dataclass(frozen=True)
class RowSet:
    """Some rows of a corpus. Rows are named by their units, so a set outlives a corpus that grows.

    Attributes:
        bits: Name of a unit's piece -> one bit for each row of the unit, that of the first row
            lowest. Units without a row of the set are left out.
    """

    bits: Mapping[str, bytes]

    @classmethod
    def of_flags(cls, flags: Mapping[str, NDArray[np.bool_]]) -> "RowSet":
        """The rows that are flagged.

        Args:
            flags: Name of a unit's piece -> [rows of the unit].
        """
        packed = {
            piece: np.packbits(of_unit, bitorder="little").tobytes()
            for piece, of_unit in flags.items()
            if of_unit.any()
        }
        return cls(packed)

    def __len__(self) -> int:
        return sum(int.from_bytes(bits, "little").bit_count() for bits in self.bits.values())

    def __or__(self, other: "RowSet") -> "RowSet":
        """Rows of either set."""
        both = {
            piece: _bytes(_number(bits) | _number(self.bits[piece]), bits)
            for piece, bits in other.bits.items()
            if piece in self.bits
        }
        return RowSet({**self.bits, **other.bits, **both})

    def __sub__(self, other: "RowSet") -> "RowSet":
        """Rows that the other set lacks."""
        left = {
            piece: _bytes(_number(bits) & ~_number(other.bits.get(piece, b"")), bits)
            for piece, bits in self.bits.items()
        }
        return RowSet({piece: bits for piece, bits in left.items() if any(bits)})

    def flags(self, piece: str, rows: int) -> NDArray[np.bool_]:
        """[rows] whether each row of a unit is in the set.

        Args:
            piece: Name of the unit's piece.
            rows: Rows of the unit.
        """
        if piece not in self.bits:
            return np.zeros(rows, dtype=bool)
        bits = np.frombuffer(self.bits[piece], np.uint8)
        return np.unpackbits(bits, bitorder="little", count=rows).astype(bool)

    def within(self, pieces: Iterable[str]) -> "RowSet":
        """The part of the set that lies in some units, given by the names of their pieces."""
        return RowSet({piece: self.bits[piece] for piece in pieces if piece in self.bits})

    def units(self, units: ShardUnits) -> ShardUnits:
        """Those units that have a row of the set."""
        having = [
            (shard, [unit for unit in shard_units if shard.piece(unit) in self.bits])
            for shard, shard_units in units
        ]
        return [(shard, shard_units) for shard, shard_units in having if shard_units]

    def count(self, places: Iterable[Place]) -> int:
        """Rows of the set in some units."""
        return len(self.within(shard.piece(unit) for shard, unit in places))

    @cached_property
    def digest(self) -> str:
        """A short hash: sets of the same rows of the same shards have the same."""
        whole = hashlib.sha256()
        for piece in sorted(self.bits):
            whole.update(f"{piece}\0{self.bits[piece].hex()}\0".encode())
        return whole.hexdigest()[:12]


def sample_set(of: ScoreSet, rows: RowSet, dtype: str) -> ScoreSet:
    """The set for the scores of some rows in another type; its pieces have these rows only.

    Args:
        of: The set in which all rows have scores.
        rows: The rows.
        dtype: The type.
    """
    sample = {"of": of.scoring_id, "rows": len(rows), "digest": rows.digest}
    return score_set_of(of.location, of.identity | {"dtype": dtype, SAMPLE: sample})


def mixed_set(of: ScoreSet, rows: RowSet, dtype: str) -> ScoreSet:
    """The set of all scores of another one, in which some rows have those of another type.

    Args:
        of: The other set.
        rows: The rows.
        dtype: The type in which these rows were scored.
    """
    exact = {"of": of.scoring_id, "dtype": dtype, "rows": len(rows), "digest": rows.digest}
    return score_set_of(of.location, of.identity | {EXACT: exact})


def _number(bits: bytes) -> int:
    return int.from_bytes(bits, "little")


def _bytes(number: int, like: bytes) -> bytes:
    return number.to_bytes(len(like), "little")
