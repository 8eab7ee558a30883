"""Which rows of a corpus are kept: what every step after the cut-offs takes.

A plain record. How the rows were chosen is in `run`; what is done with them is in `output`.
"""

import functools
import operator
from collections.abc import Sequence
from dataclasses import dataclass

from sf_ray.corpus.planning import Corpus
from sf_ray.scoring.score_set import ShardUnits
from sf_ray.selection.bitmap import Bitmap
from sf_ray.selection.chunks import Chunk, Kept
from sf_ray.selection.corpus_pass import CorpusPass, chunks_of
from sf_ray.selection.diversity.embedder import EmbedderSpec
from sf_ray.selection.diversity.partition import Diversified
from sf_ray.selection.excluded import ExcludedFiles
from sf_ray.selection.near.near_copies import NearCopies
from sf_ray.selection.near.overlaps import Overlaps
from sf_ray.selection.ranking import Ranking
from sf_ray.selection.read_tables import ReadTables
from sf_ray.selection.selective_ifd import SelectedTokens


def either(*sets: Bitmap | None) -> Bitmap | None:
    """The rows that are in one of some sets of the same corpus; None where there are no sets."""
    return (
        functools.reduce(operator.or_, given)
        if (given := [each for each in sets if each is not None])
        else None
    )


def rows_of(found: Overlaps | NearCopies | None) -> Bitmap | None:
    """The rows that were found; None where none were looked for."""
    return None if found is None else found.rows


@dataclass(frozen=True)
class SelectionInputs:
    """What a selection reads beside the corpus and its scores.

    Attributes:
        embedder: The encoder that rows are compared by; None where none is needed.
        excluded: The files of `--exclude`.
        overlap_with: Those of `--drop-overlap-with`.
    """

    embedder: EmbedderSpec | None = None
    excluded: tuple[ExcludedFiles, ...] = ()
    overlap_with: tuple[ExcludedFiles, ...] = ()

    @property
    def files(self) -> tuple[ExcludedFiles, ...]:
        """All files that are read beside the corpus."""
        return (*self.excluded, *self.overlap_with)


@dataclass(frozen=True)
class Selection:
    """The kept rows of a corpus. Stays on the driver: tasks get the parts that they need.

    Attributes:
        corpus: The corpus.
        corpus_pass: How to go over the corpus in Ray tasks.
        units: All units of the corpus.
        kept: Reads which rows the cut-offs keep.
        ranking: The cut-offs, and the counts that they were found by.
        duplicates: Rows that are dropped because an equal row is ranked higher; None where
            duplicates are not dropped.
        diversity: The rows that were chosen among those that the cut-offs keep; None where all of
            those are kept.
        excluded: Rows that are dropped because they stand in excluded files; None where no files
            are excluded.
        known: Scores that tasks need not read again; None where tasks read what they need.
        tokens: The tokens that count, where S-IFD ranks rows; else None.
        overlaps: Rows that are dropped because they share text with evaluation sets; None where
            there are no such sets.
        near: Rows that are dropped because a better row is near them; None where near copies are
            not dropped.
    """

    corpus: Corpus
    corpus_pass: CorpusPass
    units: ShardUnits
    kept: Kept
    ranking: Ranking
    duplicates: Bitmap | None = None
    diversity: Diversified | None = None
    excluded: Bitmap | None = None
    known: ReadTables | None = None
    tokens: SelectedTokens | None = None
    overlaps: Overlaps | None = None
    near: NearCopies | None = None

    @property
    def ineligible(self) -> Bitmap | None:
        """Rows that may not be kept whatever their scores are; None where there are none."""
        near, overlaps = rows_of(self.near), rows_of(self.overlaps)
        return either(self.duplicates, self.excluded, overlaps, near)

    @property
    def dropped(self) -> Bitmap | None:
        """Rows that are not kept whatever their scores are; None where there are none."""
        return self.ineligible if self.diversity is None else self.diversity.rows.others()

    @property
    def rows(self) -> int:
        """How many rows are kept."""
        return self.ranking.kept if self.diversity is None else len(self.diversity.rows)

    def chunks(self, units_a_task: int | None = None) -> list[Chunk]:
        """The whole corpus, cut for tasks; each chunk knows which of its rows are dropped."""
        return self.with_known(chunks_of(self.units, self.dropped, units_a_task))

    def with_known(self, chunks: Sequence[Chunk]) -> list[Chunk]:
        """The same chunks, with their scores where these are known."""
        return list(chunks) if self.known is None else list(map(self.known.for_chunk, chunks))
