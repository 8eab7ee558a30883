"""Rows that share a run of words with evaluation sets: which they are, and what they share.

A text overlaps with an evaluation set if a run of 13 of its words occurs in a row of the set; a
text of fewer words if a row has the very same words. The rule is that of the paper of GPT-3 (Brown
et al. 2020, arXiv 2005.14165, appendix C), which EleutherAI's evaluation harness follows; words are
as in `words`. Plain arrays: does not know where texts lie.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sf_ray.selection.bitmap import Bitmap
from sf_ray.selection.excluded import ExcludedFiles
from sf_ray.selection.near.greedy import Flags, Indices
from sf_ray.selection.near.words import Hashes, joined, run_hashes, words_of
from sf_ray.selection.score_range import Positions

WORDS = 13
# Characters of a shared run that are shown: thirteen words, unless a word has no end.
_SHOWN = 300


@dataclass(frozen=True)
class RunSet:
    """The runs of words of evaluation sets.

    Attributes:
        hashes: [n] hashes of the runs, sorted, each once.
        texts: How many texts have a word.
        unread: Rows that hold no example, or no word.
    """

    hashes: Hashes
    texts: int = 0
    unread: int = 0

    @classmethod
    def of(cls, texts: Iterable[str | None]) -> "RunSet":
        """The runs of some texts; None where a row holds no example."""
        hashes, read, unread = [np.empty(0, np.uint64)], 0, 0
        for text in texts:
            of_text = run_hashes(words_of(text or ""), WORDS)
            read, unread = read + (len(of_text) > 0), unread + (len(of_text) == 0)
            hashes.append(of_text)
        return cls(np.unique(np.concatenate(hashes)), read, unread)

    @classmethod
    def union(cls, sets: Sequence["RunSet"]) -> "RunSet":
        """The runs of several sets."""
        hashes = np.concatenate([np.empty(0, np.uint64), *(each.hashes for each in sets)])
        hashes.sort()  # in place, and no copy of what may be most of the memory
        is_first = np.append(True, hashes[1:] != hashes[:-1])[: len(hashes)]
        texts, unread = sum(each.texts for each in sets), sum(each.unread for each in sets)
        return cls(hashes[is_first], texts, unread)

    def contains(self, hashes: Hashes) -> Flags:
        """[n] whether runs are in the set."""
        if not len(self.hashes):
            return np.zeros(len(hashes), bool)
        at = np.minimum(np.searchsorted(self.hashes, hashes), len(self.hashes) - 1)
        found: Flags = self.hashes[at] == hashes
        return found

    def overlapping(self, texts: Sequence[str]) -> Indices:
        """Indices of the texts that have a run of the set."""
        hashes, ends = joined(run_hashes(words_of(text), WORDS) for text in texts)
        found = np.flatnonzero(self.contains(hashes))
        return np.unique(np.searchsorted(ends, found, side="right"))

    def first_shared(self, text: str) -> "SharedRun":
        """The first run of a text that is in the set; there must be one."""
        words = words_of(text)
        hashes = run_hashes(words, WORDS)
        at = int(self.contains(hashes).argmax())
        return SharedRun(int(hashes[at]), " ".join(words[at : at + WORDS])[:_SHOWN])


class SharedRun(NamedTuple):
    """A run of words.

    Attributes:
        hash: Its hash.
        text: The words, with a space between two of them; the first characters where it is long.
    """

    hash: int
    text: str


class Overlap(NamedTuple):
    """A row of the corpus, and what it shares with a row of an evaluation set.

    Attributes:
        position: Of the row.
        text: The first words that they share.
        files: Number of the evaluation set.
        shard: Name of the shard there.
        row: Number of the row in that shard.
    """

    position: int
    text: str
    files: int
    shard: str
    row: int


@dataclass(frozen=True)
class Overlaps:
    """The rows that may not be kept because they overlap with evaluation sets.

    Attributes:
        rows: The set of these rows.
        shown: Some of them, the first of the corpus.
        files: The evaluation sets.
    """

    rows: Bitmap
    shown: tuple[Overlap, ...]
    files: tuple[ExcludedFiles, ...]


class FoundRun(NamedTuple):
    """Where a run of words occurs first in an evaluation set: the fields of `Overlap`."""

    files: int
    shard: str
    row: int


def runs_in(texts: Iterable[str | None], wanted: Hashes) -> dict[int, int]:
    """Hash of a wanted run -> the number of the first text that has it."""
    found: dict[int, int] = {}
    for row, text in enumerate(texts):
        hashes = run_hashes(words_of(text or ""), WORDS)
        for shared in np.intersect1d(hashes, wanted).tolist():
            found.setdefault(shared, row)
    return found


class ChunkOverlaps(NamedTuple):
    """The overlapping rows of a chunk.

    Attributes:
        positions: [n]
        first: Position -> what the row shares, of the first ones.
    """

    positions: Positions
    first: dict[int, SharedRun]
