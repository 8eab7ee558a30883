"""Texts -> MinHash signatures: how alike two texts are, without the texts.

A text is the set of its runs of three words (`words`); two texts are as alike as the Jaccard index
of their sets, |A and B| / |A or B|. The share of equal numbers in two signatures estimates it
(Broder 1997): with 128 of them, to about 0.03 where it is 0.9.

Rows meet by bands of their signatures, as in locality-sensitive hashing. Signatures that are near
differ in few numbers. With one band more than those, two near signatures agree in at least one band
as a whole, whatever the numbers are: no pair is missed. Bands grow short where the threshold is
low, and unlike texts then meet by chance; so there are 32 bands at most, and down to a threshold of
0.76 no pair is missed.

datasketch computes the signatures. No files.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sf_ray.selection.near.greedy import (
    Flags,
    Indices,
    Near,
    State,
    Verdicts,
    better,
    by_rank,
    judge,
)
from sf_ray.selection.near.words import Hashes, joined, run_hashes, words_of
from sf_ray.selection.score_range import Positions

# Words of a run. Three tell texts of a few dozen words apart, and one changed word of such a text
# changes no more than three runs.
SHINGLE_WORDS = 3
# Numbers of a signature, the seed of their hashes, and the way in which datasketch computes them,
# which it keeps for every later version.
NUMBERS, _SEED, _SCHEME = 128, 1, "affine32"
_MOST_BANDS = 32
# Numbers that are compared at once: 64 MiB.
_COMPARED = 1 << 24
# The most rows of a bucket all of whose pairs are listed, and pairs that are compared at once.
_SMALL, _PAIRS = 64, 1 << 16
_FACTOR = np.uint64(0x9E3779B97F4A7C15)

Signatures = NDArray[np.uint32]


class SignedRows(NamedTuple):
    """Some rows that may be kept.

    Attributes:
        positions: [n]
        values: [n] what rows are ranked by.
        signatures: [n, NUMBERS]
    """

    positions: Positions
    values: NDArray[np.float64]
    signatures: Signatures

    def take(self, which: Flags | Indices) -> "SignedRows":
        """Some of the rows: by a mask [n], or by their indices."""
        return SignedRows(self.positions[which], self.values[which], self.signatures[which])

    def without_equal(self) -> "SignedRows":
        """Of the rows with one signature the best.

        The others are dropped whatever becomes of it: what is near to the best is near to them.
        """
        best_first = self.take(by_rank(self.values, self.positions))
        whole = best_first.signatures.view(f"V{4 * NUMBERS}").reshape(-1)
        _, first = np.unique(whole, return_index=True)
        return best_first.take(np.sort(first))

    @classmethod
    def joined(cls, each: Sequence["SignedRows"]) -> "SignedRows":
        """The rows of several, one after the other."""
        none = cls(np.empty(0, np.int64), np.empty(0), np.empty((0, NUMBERS), np.uint32))
        return cls(*map(np.concatenate, zip(none, *each, strict=True)))


def shingles_of(text: str) -> Hashes:
    """[k] hashes of the different runs of words of a text, sorted; none where it has no word."""
    return np.unique(run_hashes(words_of(text), SHINGLE_WORDS))


def signatures_of(shingles: Iterable[Hashes]) -> Signatures:
    """[n] sets of at least one shingle each -> [n, NUMBERS]."""
    from datasketch import MinHash

    # The upper half of a hash is a hash of 32 bits, which is all that datasketch takes.
    of_texts = ((each >> np.uint64(32)).tolist() for each in shingles)
    sketches = MinHash.generator(
        of_texts, num_perm=NUMBERS, seed=_SEED, hashfunc=int, scheme=_SCHEME
    )
    none = np.empty((0, NUMBERS), np.uint32)
    return np.concatenate([none, *(sketch.hashvalues[None] for sketch in sketches)])


def least_equal(threshold: float) -> int:
    """How many numbers of two near signatures are equal, at least."""
    return math.ceil(threshold * NUMBERS - 1e-9)


def band_keys(signatures: Signatures, threshold: float) -> Hashes:
    """[n, NUMBERS] -> [n, bands] a hash of each band, which names the band too."""
    bands = min(NUMBERS - least_equal(threshold) + 1, _MOST_BANDS)
    keys = np.empty((len(signatures), bands), np.uint64)
    for band, columns in enumerate(np.array_split(np.arange(NUMBERS), bands)):
        key = np.full(len(signatures), band + 1, np.uint64)
        for column in columns:
            key = (key ^ (key >> np.uint64(29))) * _FACTOR + signatures[:, column]
        keys[:, band] = key ^ (key >> np.uint64(32))
    return keys


def near_by_signature(signatures: Signatures, threshold: float) -> Near:
    """Which rows are near: those in whose signatures enough numbers are equal."""
    least = least_equal(threshold)

    def near(rows: Indices, others: Indices) -> Flags:
        flags = np.empty((len(rows), len(others)), bool)
        some = max(1, _COMPARED // (NUMBERS * max(1, len(others))))
        for at in range(0, len(rows), some):
            equal = signatures[rows[at : at + some], None] == signatures[others]
            flags[at : at + some] = equal.sum(axis=2) >= least
        return flags

    return near


def judge_buckets(rows: SignedRows, keys: Hashes, threshold: float, state: State) -> Verdicts:
    """What the buckets of some rows say of those that are open.

    Args:
        rows: [n] A row that is in several buckets is there several times.
        keys: [n] the key of the bucket that each row is compared in.
        threshold: The least Jaccard index of near rows, as signatures estimate it.
        state: What is known of all rows.
    """
    order = np.lexsort((rows.positions, -rows.values, keys))
    rows, keys = rows.take(order), keys[order]
    starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))[: len(keys)]
    sizes = np.diff(starts, append=len(keys))
    verdicts = [
        _judge_pairs(rows, starts[sizes == size], size, threshold, state)
        for size in np.unique(sizes[(sizes > 1) & (sizes <= _SMALL)]).tolist()
    ]
    large = sizes > _SMALL
    for start, size in zip(starts[large].tolist(), sizes[large].tolist(), strict=True):
        bucket = slice(start, start + size)
        near = near_by_signature(rows.signatures[bucket], threshold)
        verdicts.append(judge(near, rows.positions[bucket], state))
    return Verdicts.joined(verdicts)


def _judge_pairs(
    rows: SignedRows, starts: Indices, size: int, threshold: float, state: State
) -> Verdicts:
    """What small buckets of one size say: their pairs are compared side by side.

    Most buckets have two or three rows, and many thousands of them are in a part.

    Args:
        rows: Rows of all buckets, one bucket after the other, in each the best row first.
        starts: [buckets] indices of their first rows.
        size: Rows of each bucket.
        threshold: As in `judge_buckets`.
        state: As in `judge_buckets`.
    """
    first, second = np.triu_indices(size, 1)
    some, verdicts = max(1, _PAIRS // len(first)), []
    for at in range(0, len(starts), some):
        better_row = (starts[at : at + some, None] + first).reshape(-1)
        row = (starts[at : at + some, None] + second).reshape(-1)
        is_kept = state.kept.contains(rows.positions[better_row])
        is_open = state.open.contains(rows.positions[better_row])
        asked = state.open.contains(rows.positions[row]) & (is_kept | is_open)
        equal = rows.signatures[better_row[asked]] == rows.signatures[row[asked]]
        asked[asked] = equal.sum(axis=1) >= least_equal(threshold)
        positions = rows.positions[row]
        verdicts.append(Verdicts(positions[asked & is_kept], positions[asked & is_open]))
    return Verdicts.joined(verdicts)


class ShingleIndex(NamedTuple):
    """The shingles of some sampled rows, by which all of them are compared with a row at once.

    Attributes:
        positions: [n] of the sampled rows.
        values: [n] what they are ranked by.
        sizes: [n] how many shingles each has.
        shingles: [s] all of them, sorted.
        owners: [s] which of the n rows each shingle is of.
    """

    positions: Positions
    values: NDArray[np.float64]
    sizes: Indices
    shingles: Hashes
    owners: Indices

    @classmethod
    def of(
        cls, positions: Positions, values: NDArray[np.float64], shingles: Sequence[Hashes]
    ) -> "ShingleIndex":
        """Indexes rows by their sets of shingles."""
        every, ends = joined(shingles)
        sizes = np.diff(ends, prepend=0)
        order = np.argsort(every, kind="stable")
        owners = np.repeat(np.arange(len(sizes)), sizes)[order]
        return cls(positions, values, sizes, every[order], owners)

    def near_a_better_one(
        self,
        positions: Positions,
        values: NDArray[np.float64],
        shingles: Sequence[Hashes],
        threshold: float,
    ) -> Flags:
        """[n] whether each sampled row is near a better one of some rows, by exact Jaccard."""
        is_near = np.zeros(len(self.positions), bool)
        is_better = better(values, positions, self.values, self.positions)
        for row, of_row in enumerate(shingles):
            first = np.searchsorted(self.shingles, of_row, side="left")
            counts = np.searchsorted(self.shingles, of_row, side="right") - first
            at = np.repeat(first - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
            both = np.bincount(self.owners[at], minlength=len(is_near))
            alike = both / (self.sizes + len(of_row) - both)
            is_near |= (alike >= threshold - 1e-9) & is_better[:, row]
        return is_near
