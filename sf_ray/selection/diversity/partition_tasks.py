"""Choosing rows that stand for all kept ones on a cluster: the steps of `diversity` in Ray tasks.

    sidecars --sample--> centres --every row to its nearest--> bins of clusters --greedy--> gains

A task holds the rows of a chunk, of the sample, or of a bin; the driver holds the gains of what the
bins chose, and one bit a row.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from sf_ray.runtime.tasks import parallel_map
from sf_ray.scoring.score_set import ShardUnits, count_units
from sf_ray.selection.bitmap import Bitmap
from sf_ray.selection.chunks import Chunk, Kept
from sf_ray.selection.corpus_pass import CorpusPass, chunks_of
from sf_ray.selection.cutoffs import Positions
from sf_ray.selection.diversity import partition as diversity
from sf_ray.selection.diversity.embedding_set import Embeddings16, EmbeddingSet
from sf_ray.selection.diversity.facility_location import EXACT_ROWS, Embeddings, Gains, greedy
from sf_ray.selection.diversity.partition import (
    PART_ROWS,
    Diversified,
    centres_for,
    fit_centres,
    nearest,
    share_of,
    split,
)

# Rows of a bin, which one task holds: 48 MiB of embeddings of 384 numbers.
_BIN_ROWS = 65_536
# Kept rows that a task reads, about, and units that it looks at, at most.
_CHUNK_ROWS, _CHUNK_UNITS = 131_072, 256
_SEED = 0


@dataclass(frozen=True)
class _EmbeddedRows:
    """Some kept rows, in the order of the corpus.

    Attributes:
        positions: [n]
        labels: [n] the cluster of each.
        embeddings: [n, d]
    """

    positions: Positions
    labels: NDArray[np.int64]
    embeddings: Embeddings16


@dataclass(frozen=True)
class _Division:
    """Which rows meet in one bin.

    Attributes:
        centres: [c, d] of the clusters.
        first: [c] the first bin of each cluster.
        count: [c] how many bins share it: a cluster that is larger than a bin is dealt out.
    """

    centres: Embeddings
    first: NDArray[np.int64]
    count: NDArray[np.int64]

    @property
    def bins(self) -> int:
        """How many there are."""
        return int((self.first + self.count).max())


@dataclass(frozen=True)
class _Asked:
    """How many rows each part may choose: `slack` times its share of the budget."""

    budget: int
    of: int
    slack: float
    part_rows: int


def diversify(
    passes: CorpusPass,
    units: ShardUnits,
    copies: Bitmap | None,
    corpus_rows: int,
    kept: Kept,
    kept_rows: int,
    wanted: int,
    embeddings: EmbeddingSet,
) -> Diversified:
    """Chooses among kept rows, all of which have an embedding.

    Up to `EXACT_ROWS` kept rows by exact greedy; more by parts, in bounded memory.

    Args:
        passes: How to go over the corpus.
        units: All of the corpus.
        copies: Which rows are dropped.
        corpus_rows: Its rows.
        kept: Reads which rows are kept.
        kept_rows: How many those are; at least one.
        wanted: How many to choose; all where fewer are kept.
        embeddings: Of the kept rows.
    """
    read = functools.partial(_read, kept, embeddings)
    each = max(1, min(_CHUNK_UNITS, count_units(units) * _CHUNK_ROWS // kept_rows))
    chunks = chunks_of(units, copies, each)
    is_exact = kept_rows <= EXACT_ROWS
    if is_exact:
        division, ratio = None, 1.0
        asked = _Asked(wanted, kept_rows, 1.0, EXACT_ROWS)
    else:
        division, ratio = _divide(passes, chunks, read, kept_rows, wanted)
        asked = _Asked(wanted, kept_rows, diversity.SLACK, PART_ROWS)
    bins = division.bins if division else 1
    deal = functools.partial(_deal, read, division)
    # In the order of the corpus: what is chosen must not depend on what was read first.
    stored = sorted(passes.over_stored(deal, chunks, bins), key=lambda result: result.value)
    of_bins = [(at, [result.refs[at] for result in stored]) for at in range(bins)]
    choose = functools.partial(_choose, asked)
    found = dict(parallel_map(choose, of_bins, passes.stall_s))
    parts = [part for at in range(bins) for part in found[at]]
    counts = diversity.merge([gains for _, gains in parts], wanted)
    rows = Bitmap.empty(corpus_rows)
    objective = 0.0
    for (positions, gains), count in zip(parts, counts, strict=True):
        rows.add(positions[:count])
        objective += float(gains[:count].sum(dtype=np.float64))
    return Diversified(wanted, rows, objective, is_exact, ratio)


# Chunk -> positions and embeddings of its kept rows; of a share of them, where one is given.
_Reader = Callable[..., tuple[Positions, Embeddings16]]


def _read(
    kept: Kept, embeddings: EmbeddingSet, chunk: Chunk, share: float = 1.0
) -> tuple[Positions, Embeddings16]:
    units, positions = [], [np.empty(0, np.int64)]
    for place, numbers in kept.of_units(chunk):
        shard, _ = place
        drawn = numbers[_is_drawn(shard.position + numbers, share)]
        if len(drawn):
            units.append((place, drawn))
            positions.append(shard.position + drawn)
    if not units:
        return positions[0], np.empty((0, 0), np.float16)
    return np.concatenate(positions), np.concatenate(list(embeddings.read_rows(units)))


def _is_drawn(positions: Positions, share: float) -> NDArray[np.bool_]:
    """[n] whether rows are in a sample of this share of all rows; told by the position alone."""
    bits = (positions.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(32))) * np.uint64(0xD6E8FEB86659FD93)
    bits ^= bits >> np.uint64(32)
    drawn: NDArray[np.bool_] = (bits >> np.uint64(11)) * 2.0**-53 < share  # [0, 1)
    return drawn


def _divide(
    passes: CorpusPass, chunks: Sequence[Chunk], read: _Reader, rows: int, budget: int
) -> tuple[_Division, float]:
    """Centres from a sample, which bins their clusters go to, and the ratio to exact greedy."""
    centres = centres_for(rows, PART_ROWS)
    sampled = max(centres * diversity.SAMPLE_ROWS, diversity.RATIO_ROWS)
    sample = functools.partial(_sample, read, sampled / rows)
    stored = sorted(passes.over_stored(sample, chunks, 1), key=lambda result: result.value)
    refs = [ref for result in stored for ref in result.refs]
    fit = functools.partial(_fit, centres, rows, _BIN_ROWS)
    (division,) = parallel_map(fit, [refs], passes.stall_s)
    ratio_of = functools.partial(_ratio, rows, budget, PART_ROWS)
    (ratio,) = parallel_map(ratio_of, [refs], passes.stall_s)
    return division, ratio


def _sample(read: _Reader, share: float, chunk: Chunk) -> tuple[int, list[Embeddings16]]:
    _, embeddings = read(chunk, share)
    return chunk.start, [embeddings]


def _joined(refs: Sequence[Any]) -> Embeddings:
    found = [embeddings for embeddings in ray.get(list(refs)) if len(embeddings)]
    return np.concatenate(found).astype(np.float32)


def _fit(centres: int, rows: int, bin_rows: int, refs: Sequence[Any]) -> _Division:
    sample = _joined(refs)
    fitted = fit_centres(sample, min(centres, len(sample)), _SEED)
    counts = np.bincount(nearest(sample, fitted), minlength=len(fitted))
    expected = counts * rows / len(sample)
    count = np.maximum(1, np.ceil(expected / bin_rows).astype(np.int64))
    first, bins, room = np.zeros_like(count), 0, 0.0
    for label in range(len(count)):
        if not bins or count[label] > 1 or room < expected[label]:
            # What a cluster that is dealt out leaves of its bins is not filled up.
            first[label], room = bins, bin_rows - expected[label]
            bins += count[label]
        else:
            first[label], room = bins - 1, room - expected[label]
    return _Division(fitted, first, count)


def _ratio(rows: int, budget: int, part_rows: int, refs: Sequence[Any]) -> float:
    sample = _joined(refs)
    sample = sample[diversity.sample_of(len(sample), diversity.RATIO_ROWS, _SEED)]
    return diversity.ratio_to_exact(sample, rows, budget, part_rows)


def _deal(
    read: _Reader, division: _Division | None, chunk: Chunk
) -> tuple[int, list[_EmbeddedRows]]:
    """Where the chunk begins, and its kept rows by bin."""
    positions, embeddings = read(chunk)
    if division is None or not len(positions):
        everything = _EmbeddedRows(positions, np.zeros(len(positions), np.int64), embeddings)
        return chunk.start, [everything] * (division.bins if division else 1)
    labels = nearest(embeddings.astype(np.float32), division.centres)
    bins = division.first[labels] + positions % division.count[labels]
    dealt = []
    for at in range(division.bins):
        mine = bins == at
        dealt.append(_EmbeddedRows(positions[mine], labels[mine], embeddings[mine]))
    return chunk.start, dealt


def _choose(asked: _Asked, one: tuple[int, Sequence[Any]]) -> tuple[int, list[Any]]:
    """The number of a bin, and of each part in it the positions and gains of what it chooses."""
    number, refs = one
    rows = [found for found in ray.get(list(refs)) if len(found.positions)]
    if not rows:
        return number, []
    positions = np.concatenate([found.positions for found in rows])
    labels = np.concatenate([found.labels for found in rows])
    embeddings = np.concatenate([found.embeddings for found in rows])
    chosen: list[tuple[Positions, Gains]] = []
    for label in np.unique(labels):
        of_label = np.flatnonzero(labels == label)
        values = embeddings[of_label].astype(np.float32)
        for part in split(values, asked.part_rows, _SEED):
            may = share_of(len(part), asked.of, asked.budget, asked.slack)
            best = greedy(values[part], may)
            chosen.append((positions[of_label[part[best.rows]]], best.gains))
    return number, chosen
