"""Near copies by their embeddings, found in Ray tasks.

    embeddings --sample--> centres --cells of every row--> bins --rounds of `greedy`--> rows

A task holds the rows of one chunk, of the sample, or of one or two bins; the driver holds bits.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import ray

from sf_ray.runtime.tasks import parallel_map
from sf_ray.selection.chunks import Chunk, Eligible, placed
from sf_ray.selection.corpus_pass import CorpusPass
from sf_ray.selection.diversity.division import Division, Labels, fit_division, is_drawn
from sf_ray.selection.diversity.embedding_set import EmbeddingSet
from sf_ray.selection.diversity.facility_location import EXACT_ROWS, Embeddings
from sf_ray.selection.diversity.partition import PART_ROWS, SAMPLE_ROWS, centres_for
from sf_ray.selection.near.cells import (
    EmbeddedRows,
    cells_of,
    judge_cells,
    near_a_better_one,
    of_norm_1,
)
from sf_ray.selection.near.greedy import Flags, State, Verdicts
from sf_ray.selection.near.near_copies import SAMPLE_ROWS as JUDGED_ROWS
from sf_ray.selection.near.near_copies import NearCopies, Sampled
from sf_ray.selection.near.rounds import settle_parts

# Rows of a bin: 24 MiB of embeddings of 384 numbers.
_BIN_ROWS = 32_768
# About how many rows a task reads; units that it looks at, unless there would be too many tasks.
CHUNK_ROWS, _CHUNK_UNITS = 65_536, 256
# A task sends each bin its share. Ray keeps a share below 100 KB in the driver's memory: with no
# more tasks than these, the shares of a bin of 24 MiB are larger, however many bins there are.
_MOST_TASKS = 200


class _BinRows(NamedTuple):
    """Rows of one bin, and the cell [n] that each is in; a row of several cells is there again."""

    rows: EmbeddedRows
    cells: Labels


# Chunk -> its eligible rows; of a sample of this share, where one is given.
Reader = Callable[..., EmbeddedRows]


@dataclass(frozen=True)
class EligibleEmbeddings:
    """Reads the eligible rows of a chunk, all of which have an embedding.

    Attributes:
        eligible: Reads which rows may be kept.
        embeddings: Their embeddings.
    """

    eligible: Eligible
    embeddings: EmbeddingSet

    def __call__(self, chunk: Chunk, share: float = 1.0) -> EmbeddedRows:
        """The rows of a chunk, or a sample of them.

        Raises:
            SfRayError: An embedding is missing, or cannot be read.
        """
        rows = self.eligible.read(chunk)
        is_wanted = ~np.isnan(rows.values) & is_drawn(rows.positions, share)
        units = list(placed(chunk, is_wanted))
        embeddings = list(self.embeddings.read_rows(units)) or [np.empty((0, 0), np.float16)]
        return EmbeddedRows(
            rows.positions[is_wanted], rows.values[is_wanted], np.concatenate(embeddings)
        )


def units_a_task(units: int, eligible_rows: int) -> int:
    """How many units of a corpus one task looks at.

    Args:
        units: All units.
        eligible_rows: How many rows of them are compared, at least one.
    """
    of_rows = min(_CHUNK_UNITS, units * CHUNK_ROWS // eligible_rows)
    return max(1, of_rows, -(-units // _MOST_TASKS))


def find_near_by_embedding(
    corpus_pass: CorpusPass,
    chunks: Sequence[Chunk],
    read: Reader,
    eligible_rows: int,
    rows: int,
    threshold: float,
) -> NearCopies:
    """The eligible rows that are dropped because a better row is near them.

    Up to `EXACT_ROWS` rows are compared with each other; more are compared by parts.

    Args:
        corpus_pass: How to go over the corpus.
        chunks: The whole corpus.
        read: Reads the eligible rows of a chunk.
        eligible_rows: How many there are, at least one.
        rows: All rows of the corpus.
        threshold: The least cosine of near rows.

    Raises:
        MarkedBadError: Shards turned out to be bad.
        SfRayError: An embedding is missing or cannot be read.
    """
    if eligible_rows <= EXACT_ROWS:
        division, drawn = None, EmbeddedRows.joined([])
    else:
        division, drawn = _divide(corpus_pass, chunks, read, eligible_rows, threshold)
    bins = division.bins if division else 1
    deal = functools.partial(_deal, read, division, threshold, ray.put(drawn))
    # Sorted into the order of the corpus: nothing may depend on which task ends first.
    results = sorted(
        corpus_pass.over_stored(deal, chunks, bins), key=lambda result: result.value[0]
    )
    rows_of_bins = [[result.refs[at] for result in results] for at in range(bins)]
    parts = [tuple(rows_of_bins[at] for at in of_part) for of_part in _parts(division)]
    judge_part = functools.partial(_judge, threshold)
    settled = settle_parts(judge_part, parts, rows, corpus_pass.stall_s)
    sampled = None
    if division is not None:
        is_near = np.logical_or.reduce([result.value[1] for result in results])
        is_found = settled.near_better.contains(drawn.positions) & is_near
        sampled = Sampled(len(is_near), int(is_near.sum()), int(is_found.sum()))
    return NearCopies(settled.dropped, eligible_rows, settled.rounds, sampled)


def _divide(
    corpus_pass: CorpusPass, chunks: Sequence[Chunk], read: Reader, rows: int, threshold: float
) -> tuple[Division, EmbeddedRows]:
    """How rows are divided over bins, and the rows that are compared with all; from a sample."""
    centres = centres_for(rows, PART_ROWS)
    sample_rows = max(centres * SAMPLE_ROWS, JUDGED_ROWS)
    sample = functools.partial(_sample, read, sample_rows / rows)
    results = sorted(corpus_pass.over_stored(sample, chunks, 1), key=lambda result: result.value)
    refs = [ref for result in results for ref in result.refs]
    fit = functools.partial(_fit, centres, rows, threshold)
    ((division, judged),) = parallel_map(fit, [refs], corpus_pass.stall_s)
    return division, judged


def _sample(read: Reader, share: float, chunk: Chunk) -> tuple[int, list[EmbeddedRows]]:
    """The position of the chunk, and a share of its eligible rows."""
    return chunk.start, [read(chunk, share)]


def _fit(
    centres: int, rows: int, threshold: float, refs: Sequence[ray.ObjectRef]
) -> tuple[Division, EmbeddedRows]:
    """Fits centres to the sample; returns a part of it too."""
    sample = EmbeddedRows.joined(ray.get(list(refs)))

    def labels_of(embeddings: Embeddings, fitted: Embeddings) -> Labels:
        cells = cells_of(embeddings, fitted, threshold)
        return cells[cells >= 0]

    division = fit_division(of_norm_1(sample.embeddings), rows, centres, _BIN_ROWS, labels_of)
    return division, sample.take(is_drawn(sample.positions, JUDGED_ROWS / rows))


def _deal(
    read: Reader,
    division: Division | None,
    threshold: float,
    judged: ray.ObjectRef,
    chunk: Chunk,
) -> tuple[tuple[int, Flags], list[_BinRows]]:
    """Deals the eligible rows of a chunk out over the bins.

    Returns:
        The position of the chunk, and whether each of the judged rows is near a better row of it;
        and the rows by bin.
    """
    rows = read(chunk)
    if division is None or not len(rows.positions):
        everything = _BinRows(rows, np.zeros(len(rows.positions), np.int64))
        of_bins = [everything] * (division.bins if division else 1)
        return (chunk.start, np.zeros(len(ray.get(judged).positions), bool)), of_bins
    embeddings = of_norm_1(rows.embeddings)
    cells = cells_of(embeddings, division.centres, threshold)
    row, rank = np.nonzero(cells >= 0)
    labels = cells[row, rank]
    bins = division.bins_of(labels, rows.positions[row])
    of_bins = []
    for at in range(division.bins):
        in_bin = np.flatnonzero(bins == at)
        of_bins.append(_BinRows(rows.take(row[in_bin]), labels[in_bin]))
    is_near = near_a_better_one(ray.get(judged), rows, threshold)
    return (chunk.start, is_near), of_bins


def _parts(division: Division | None) -> list[tuple[int, ...]]:
    """The bins whose rows are compared with each other.

    A bin of whole cells alone; of a cell that is dealt out over several bins, each two of them.
    """
    if division is None:
        return [(0,)]
    alone = sorted(set(division.first[division.count == 1].tolist()))
    several = np.flatnonzero(division.count > 1)
    return [(at,) for at in alone] + [
        pair
        for first, count in zip(division.first[several], division.count[several], strict=True)
        for pair in itertools.combinations(range(int(first), int(first + count)), 2)
    ]


def _judge(
    threshold: float, state: State, refs_of_bins: tuple[Sequence[ray.ObjectRef], ...]
) -> Verdicts:
    """What a part, of one or two bins, says of its open rows."""
    bins: list[_BinRows] = [each for refs in refs_of_bins for each in ray.get(list(refs))]
    cells = np.concatenate([each.cells for each in bins])
    return judge_cells(EmbeddedRows.joined([each.rows for each in bins]), cells, threshold, state)
