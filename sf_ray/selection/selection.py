"""Which rows of a corpus are kept: what every step after the cut-offs takes.

A plain record. How the rows were chosen is in `run`; what is done with them is in `output`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sf_ray.corpus.planning import Corpus
from sf_ray.scoring.score_set import ShardUnits
from sf_ray.selection.bitmap import Bitmap
from sf_ray.selection.chunks import Chunk, Kept
from sf_ray.selection.corpus_pass import CorpusPass, chunks_of
from sf_ray.selection.diversity.partition import Diversified
from sf_ray.selection.ranking import Ranking
from sf_ray.selection.read_tables import ReadTables
from sf_ray.selection.selective_ifd import SelectedTokens


def either(one: Bitmap | None, other: Bitmap | None) -> Bitmap | None:
    """The rows that are in one of two sets of the same corpus; None where there are no sets."""
    if one is None or other is None:
        return other if one is None else one
    return one | other


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

    @property
    def ineligible(self) -> Bitmap | None:
        """Rows that may not be kept whatever their scores are; None where there are none."""
        return either(self.duplicates, self.excluded)

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
