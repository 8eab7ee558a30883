"""How far scores of a fast type may lie from those of an exact one, and which rows that matters to.

Plain arrays: this module does not know where scores lie or how rows are scored.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sf_ray.selection.score_range import Positions

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# The most answer tokens of each length but the last. An error is a mean over the tokens of an
# answer: from one length to the next, with four times as many, it about halves.
_MOST_TOKENS = (8, 32, 128)
LENGTHS = len(_MOST_TOKENS) + 1
# A band is so many times the largest error of a sample. Of 64 rows with normal errors, the largest
# is about 2.4 standard deviations; one row in a million exceeds twice that.
SAFETY_FACTOR = 2.0


def length_of(answer_tokens: Ints) -> Ints:
    """[n] scored answer tokens -> [n] lengths, from 0 (short) to `LENGTHS` - 1."""
    return np.searchsorted(_MOST_TOKENS, answer_tokens)


class Drawn(NamedTuple):
    """Rows of one length that are drawn for the sample: those of the least hashes.

    Attributes:
        hashes: [n]
        positions: [n]
    """

    hashes: NDArray[np.uint64]
    positions: Positions

    def joined(self, other: "Drawn", wanted: int) -> "Drawn":
        """The `wanted` rows that both draw together."""
        hashes = np.concatenate([self.hashes, other.hashes])
        least = np.argsort(hashes)[:wanted]
        return Drawn(hashes[least], np.concatenate([self.positions, other.positions])[least])


def draw(positions: Positions, answer_tokens: Ints, is_ok: NDArray[np.bool_], wanted: int
) -> list[Drawn]:  # fmt: skip
    """Draws `ok` rows of each length, the same ones however the corpus is cut into parts.

    Args:
        positions: [n]
        answer_tokens: [n]
        is_ok: [n] whether a row has a score.
        wanted: Rows of each length.

    Returns:
        [LENGTHS] with fewer rows where there are no more.
    """
    with np.errstate(over="ignore"):  # two rounds of multiplying and shifting mix all bits
        hashes = (positions.astype(np.uint64) + np.uint64(1)) * np.uint64(0xD6E8FEB86659FD93)
        hashes = (hashes ^ (hashes >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
        hashes ^= hashes >> np.uint64(32)
    length = length_of(answer_tokens)
    none = Drawn(np.empty(0, np.uint64), np.empty(0, np.int64))
    return [
        Drawn(hashes[of_length], positions[of_length]).joined(none, wanted)
        for of_length in (is_ok & (length == number) for number in range(LENGTHS))
    ]


@dataclass(frozen=True)
class LengthErrors:
    """Errors of the sampled rows of one length; the error of a row is |ln(IFD / exact IFD)|.

    Attributes:
        most_answer_tokens: The longest answers of this length; None for the last one.
        rows: Sampled rows that have a score in both types.
        median_error: Of these rows.
        largest_error: Of these rows.
    """

    most_answer_tokens: int | None
    rows: int
    median_error: float
    largest_error: float

    @property
    def band(self) -> float:
        """The error that no row is expected to exceed."""
        return SAFETY_FACTOR * self.largest_error


@dataclass(frozen=True)
class Bands:
    """The errors of all lengths.

    Attributes:
        lengths: [LENGTHS]; None where the sample has no row of a length.
    """

    lengths: tuple[LengthErrors | None, ...]

    def of(self, answer_tokens: Ints) -> Floats:
        """[n] the band of each row.

        All rows of a length that the sample lacks were drawn, or can have no score. In case they
        have one all the same, their band is without end: they are near every line.
        """
        bands = np.array([np.inf if errors is None else errors.band for errors in self.lengths])
        return bands[length_of(answer_tokens)]


def bands_of(ifd: Floats, exact_ifd: Floats, answer_tokens: Ints) -> Bands:
    """Measures the errors of a sample.

    Args:
        ifd: [n] in the fast type.
        exact_ifd: [n] in the exact one; NaN where a row has no score in it.
        answer_tokens: [n]
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = np.abs(np.log(ifd) - np.log(exact_ifd))
    length, has_both = length_of(answer_tokens), np.isfinite(errors)
    lengths: list[LengthErrors | None] = []
    for number, most in enumerate((*_MOST_TOKENS, None)):
        of_length = errors[has_both & (length == number)]
        lengths.append(
            LengthErrors(most, len(of_length), float(np.median(of_length)), float(of_length.max()))
            if len(of_length)
            else None
        )
    return Bands(tuple(lengths))


def nearness(ifd: Floats, bands: Floats, lines: Sequence[Floats | float]) -> Floats:
    """How near rows are to the nearest of some lines, in their own bands.

    Up to 1, a row may lie on the other side of the line.

    Args:
        ifd: [n]; NaN where a row has no score.
        bands: [n]
        lines: Values of IFD that decide over rows: one for all, or [n] one for each row. NaN where
            there is no line.

    Returns:
        [n] infinity where a row has no score or there is no line.
    """
    nearest = np.full(len(ifd), np.inf)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(ifd)
        for line in lines:
            distance = np.abs(logs - np.log(line))
            # On the line is near even where the band has no width.
            in_bands = np.where(distance == 0, 0.0, distance / bands)
            nearest = np.fmin(nearest, in_bands)
    return nearest
