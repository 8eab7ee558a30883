"""Choosing the rows that represent all kept rows: the steps of `partition` in Ray tasks.

    embeddings --sample--> centres --nearest centre of every row--> bins --greedy--> gains --> rows

A bin holds several small clusters of rows, or a share of a large one. A task holds the rows of one
chunk, of the sample or of one bin; the driver holds the gains of the rows that were chosen in the
bins, and one bit a row.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import ray
from numpy.typing import NDArray

from sf_ray.runtime.tasks import parallel_map
from sf_ray.scoring.score_set import count_units
from sf_ray.selection.bitmap import Bitmap
from sf_ray.selection.chunks import Chunk, Kept, PlacedRows
from sf_ray.selection.corpus_pass import CorpusPass
from sf_ray.selection.diversity.division import Division, fit_division, is_drawn
from sf_ray.selection.diversity.embedding_set import Embeddings16, EmbeddingSet
from sf_ray.selection.diversity.facility_location import EXACT_ROWS, Embeddings, Gains, greedy
from sf_ray.selection.diversity.partition import (
    PART_ROWS,
    RATIO_ROWS,
    SAMPLE_ROWS,
    SLACK,
    Diversified,
    centres_for,
    merge,
    nearest,
    ratio_to_exact,
    sample_of,
    share_of,
    split,
)
from sf_ray.selection.score_range import Positions
from sf_ray.selection.selection import Selection

# Rows of a bin, which one task holds: 48 MiB of embeddings of 384 numbers.
_BIN_ROWS = 65_536
# About how many kept rows a task reads, and the most units that it looks at.
_CHUNK_ROWS, _CHUNK_UNITS = 131_072, 256
_SEED = 0


@dataclass(frozen=True)
class _EmbeddedRows:
    """Some kept rows, in the order of the corpus.

    Attributes:
        positions: [n]
        labels: [n] the cluster of each row.
        embeddings: [n, d]
    """

    positions: Positions
    labels: NDArray[np.int64]
    embeddings: Embeddings16


@dataclass(frozen=True)
class _Budget:
    """How many rows a part may choose: `slack` times its share of the whole budget.

    Attributes:
        rows: How many rows are chosen in all.
        kept_rows: Among how many.
        slack: How many times its share a part may choose.
        part_rows: The most rows of a part.
    """

    rows: int
    kept_rows: int
    slack: float
    part_rows: int


@dataclass(frozen=True)
class _ChosenRows:
    """The rows that one part chooses, in order of choice.

    Attributes:
        positions: [k]
        gains: [k] what each row added to f; never increasing.
    """

    positions: Positions
    gains: Gains


def diversify(selection: Selection, wanted: int, embeddings: EmbeddingSet) -> Diversified:
    """Chooses among the kept rows, all of which have an embedding.

    Up to `EXACT_ROWS` kept rows by exact greedy; more by parts, in bounded memory.

    Args:
        selection: The kept rows, at least one; not yet diversified.
        wanted: How many to choose; all where fewer are kept.
        embeddings: Embeddings of the kept rows.

    Raises:
        MarkedBadError: Shards turned out to be bad.
        SfRayError: An embedding is missing or cannot be read.
    """
    corpus_pass, kept_rows = selection.corpus_pass, selection.rows
    read = functools.partial(_read, selection.kept, embeddings)
    units_a_task = count_units(selection.units) * _CHUNK_ROWS // kept_rows
    chunks = selection.chunks(max(1, min(_CHUNK_UNITS, units_a_task)))
    is_exact = kept_rows <= EXACT_ROWS
    if is_exact:
        division, ratio = None, 1.0
        budget = _Budget(wanted, kept_rows, 1.0, EXACT_ROWS)
    else:
        division, ratio = _divide(corpus_pass, chunks, read, kept_rows, wanted)
        budget = _Budget(wanted, kept_rows, SLACK, PART_ROWS)
    parts = _chosen_in_bins(corpus_pass, chunks, read, division, budget)
    counts = merge([part.gains for part in parts], wanted)
    rows = Bitmap.empty(selection.corpus.rows)
    objective = 0.0
    for part, count in zip(parts, counts, strict=True):
        rows.add(part.positions[:count])
        objective += float(part.gains[:count].sum(dtype=np.float64))
    return Diversified(wanted, rows, objective, is_exact, ratio)


def _chosen_in_bins(
    corpus_pass: CorpusPass,
    chunks: Sequence[Chunk],
    read: "_Reader",
    division: Division | None,
    budget: _Budget,
) -> list[_ChosenRows]:
    """What every part of every bin chooses, in the order of the bins."""
    bins = division.bins if division else 1
    deal = functools.partial(_deal, read, division)
    # Sorted into the order of the corpus: what is chosen must not depend on which task ends first.
    results = sorted(corpus_pass.over_stored(deal, chunks, bins), key=lambda result: result.value)
    rows_of_bins = [(at, [result.refs[at] for result in results]) for at in range(bins)]
    choose = functools.partial(_choose, budget)
    parts_of_bins = dict(parallel_map(choose, rows_of_bins, corpus_pass.stall_s))
    return [part for at in range(bins) for part in parts_of_bins[at]]


# Chunk -> positions and embeddings of its kept rows; of a sample of this share, where one is given.
_Reader = Callable[..., tuple[Positions, Embeddings16]]


def _read(
    kept: Kept, embeddings: EmbeddingSet, chunk: Chunk, share: float = 1.0
) -> tuple[Positions, Embeddings16]:
    units, positions = [], [np.empty(0, np.int64)]
    for place, numbers in kept.of_units(chunk):
        shard, _ = place
        drawn = numbers[is_drawn(shard.position + numbers, share)]
        if len(drawn):
            units.append(PlacedRows(place, drawn))
            positions.append(shard.position + drawn)
    if not units:
        return positions[0], np.empty((0, 0), np.float16)
    return np.concatenate(positions), np.concatenate(list(embeddings.read_rows(units)))


def _divide(
    corpus_pass: CorpusPass, chunks: Sequence[Chunk], read: _Reader, rows: int, wanted: int
) -> tuple[Division, float]:
    """How rows are divided over bins, and the ratio to exact greedy; both from a sample."""
    centres = centres_for(rows, PART_ROWS)
    sample_rows = max(centres * SAMPLE_ROWS, RATIO_ROWS)
    sample = functools.partial(_sample, read, sample_rows / rows)
    results = sorted(corpus_pass.over_stored(sample, chunks, 1), key=lambda result: result.value)
    refs = [ref for result in results for ref in result.refs]
    fit = functools.partial(_fit, centres, rows, _BIN_ROWS)
    (division,) = parallel_map(fit, [refs], corpus_pass.stall_s)
    ratio_of = functools.partial(_ratio, rows, wanted, PART_ROWS)
    (ratio,) = parallel_map(ratio_of, [refs], corpus_pass.stall_s)
    return division, ratio


def _sample(read: _Reader, share: float, chunk: Chunk) -> tuple[int, list[Embeddings16]]:
    """The position of the chunk, and the embeddings of a share of its kept rows."""
    _, embeddings = read(chunk, share)
    return chunk.start, [embeddings]


def _joined(refs: Sequence[ray.ObjectRef]) -> Embeddings:
    """The sample in one piece: [s, d]."""
    # A chunk without drawn rows has embeddings of shape [0, 0].
    drawn = [embeddings for embeddings in ray.get(list(refs)) if len(embeddings)]
    return np.concatenate(drawn).astype(np.float32)


def _fit(centres: int, rows: int, bin_rows: int, refs: Sequence[ray.ObjectRef]) -> Division:
    """How rows are divided, by the sample."""
    return fit_division(_joined(refs), rows, centres, bin_rows)


def _ratio(rows: int, wanted: int, part_rows: int, refs: Sequence[ray.ObjectRef]) -> float:
    sample = _joined(refs)
    sample = sample[sample_of(len(sample), RATIO_ROWS, _SEED)]
    return ratio_to_exact(sample, rows, wanted, part_rows)


def _deal(
    read: _Reader, division: Division | None, chunk: Chunk
) -> tuple[int, list[_EmbeddedRows]]:
    """The position of the chunk, and its kept rows by bin."""
    positions, embeddings = read(chunk)
    if division is None or not len(positions):
        everything = _EmbeddedRows(positions, np.zeros(len(positions), np.int64), embeddings)
        return chunk.start, [everything] * (division.bins if division else 1)
    labels = nearest(embeddings.astype(np.float32), division.centres)
    bins = division.bins_of(labels, positions)
    dealt = []
    for at in range(division.bins):
        in_bin = bins == at
        dealt.append(_EmbeddedRows(positions[in_bin], labels[in_bin], embeddings[in_bin]))
    return chunk.start, dealt


def _choose(
    budget: _Budget, rows_of_bin: tuple[int, Sequence[ray.ObjectRef]]
) -> tuple[int, list[_ChosenRows]]:
    """The number of a bin, and what each of its parts chooses."""
    number, refs = rows_of_bin
    rows: list[_EmbeddedRows] = [rows for rows in ray.get(list(refs)) if len(rows.positions)]
    if not rows:
        return number, []
    positions = np.concatenate([chunk.positions for chunk in rows])
    labels = np.concatenate([chunk.labels for chunk in rows])
    embeddings = np.concatenate([chunk.embeddings for chunk in rows])
    chosen: list[_ChosenRows] = []
    for label in np.unique(labels):
        of_label = np.flatnonzero(labels == label)
        values = embeddings[of_label].astype(np.float32)
        for part in split(values, budget.part_rows, _SEED):
            share = share_of(len(part), budget.kept_rows, budget.rows, budget.slack)
            best = greedy(values[part], share)
            chosen.append(_ChosenRows(positions[of_label[part[best.rows]]], best.gains))
    return number, chosen
