"""Score pieces -> cut-offs, with the counts of `selection` spread over Ray tasks."""

import functools
from collections import Counter
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sf_ray.corpus.status import BAD
from sf_ray.corpus.units import Unit
from sf_ray.selection.chunks import Chunk, ChunkRows, Eligible
from sf_ray.selection.corpus_pass import CorpusPass
from sf_ray.selection.cutoffs import (
    Bits,
    GroupRange,
    Positions,
    find_cutoffs,
    first_ranges,
)
from sf_ray.selection.group_column import GroupColumn
from sf_ray.selection.ranking import GroupCutoff, GroupRequest, Ranking
from sf_ray.storage.location import Location

_EXAMPLES = 3

BinCounts = NDArray[np.int64]


class ChunkReader(Protocol):
    """Reads the rows of a chunk that count."""

    def read(self, chunk: Chunk) -> ChunkRows:
        """They have an IFD; others NaN."""
        ...


def rank(
    passes: CorpusPass,
    chunks: Sequence[Chunk],
    rows: int,
    eligible: Eligible,
    asked: Sequence[GroupRequest],
) -> Ranking:
    """Finds the cut-offs that keep the so many best of each group, or all if there are fewer.

    The driver holds counts in bins; most corpora take one pass over the pieces to count and one
    to look at the rows of the last bins.

    Args:
        passes: How to go over the corpus.
        chunks: All of it.
        rows: Its rows.
        eligible: Reads which rows may be kept, and the groups that they are in.
        asked: Of each group, in the order of their codes.
    """
    ranges = first_ranges(eligible.bounds, rows, len(asked))
    status_counts: Counter[str] = Counter()
    bad: list[tuple[str, int, str]] = []
    counts = _no_counts(ranges)
    for statuses, examples, found in passes.over(
        functools.partial(_count_first, eligible, ranges), chunks
    ):
        status_counts.update(statuses)
        bad = sorted(bad + examples)[:_EXAMPLES]
        _add(counts, found)
    totals = counts.sum(axis=1).tolist()
    kept = [min(group.wanted, total) for group, total in zip(asked, totals, strict=True)]
    searched = [number for number, count in enumerate(kept) if count]
    cutoffs = dict(
        zip(
            searched,
            find_cutoffs(
                [(ranges[number], kept[number]) for number in searched],
                counts[searched],
                functools.partial(count_rows, passes, chunks, eligible),
                functools.partial(gather_rows, passes, chunks, eligible),
            ),
            strict=True,
        )
    )
    groups = tuple(
        GroupCutoff(group.name, group.rows, group.wanted, totals[number], kept[number],
              cutoffs.get(number))
        for number, group in enumerate(asked)
    )  # fmt: skip
    return Ranking(dict(status_counts), tuple(bad), groups)


def count_values(
    passes: CorpusPass, chunks: Sequence[Chunk], corpus: Location, column: GroupColumn
) -> Counter[str]:
    """Rows of each value of a column.

    Raises:
        SfRayError: There are too many values.
    """
    counts: Counter[str] = Counter()
    for found in passes.over(functools.partial(_count_values, corpus, column), chunks):
        counts.update(found)
        column.check(counts)
    return counts


def count_rows(
    passes: CorpusPass, chunks: Sequence[Chunk], reader: ChunkReader, ranges: Sequence[GroupRange]
) -> BinCounts:
    """[ranges, bins] rows in each bin of ranges, over all chunks."""
    counts = _no_counts(ranges)
    for found in passes.over(functools.partial(_count, reader, ranges), chunks):
        _add(counts, found)
    return counts


def gather_rows(
    passes: CorpusPass, chunks: Sequence[Chunk], reader: ChunkReader, ranges: Sequence[GroupRange]
) -> list[tuple[Bits, Positions]]:
    """The rows of small ranges, over all chunks."""
    found: list[list[tuple[Bits, Positions]]] = [[] for _ in ranges]
    for rows in passes.over(functools.partial(_gather, reader, ranges), chunks):
        for number, of_range in rows.items():
            found[number].append(of_range)
    return [
        (np.concatenate([bits for bits, _ in one]), np.concatenate([at for _, at in one]))
        for one in found
    ]


# Bins of all ranges in a row, and how many rows are in each that occurs.
_Occurring = tuple[BinCounts, BinCounts]


def _no_counts(ranges: Sequence[GroupRange]) -> BinCounts:
    return np.zeros((len(ranges), max((one.bins for _, one in ranges), default=1)), np.int64)


def _add(counts: BinCounts, found: _Occurring) -> None:
    bins, rows = found
    counts.reshape(-1)[bins] += rows


def _count(reader: ChunkReader, ranges: Sequence[GroupRange], chunk: Chunk) -> _Occurring:
    return _count_in(reader.read(chunk), ranges)


def _count_in(rows: ChunkRows, ranges: Sequence[GroupRange]) -> _Occurring:
    groups = rows.of_groups()
    bins, counts = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for number, (group, candidates) in enumerate(ranges):
        if group in groups:
            its_bins, its_counts = candidates.count(*groups[group])
            bins.append(number * candidates.bins + its_bins)
            counts.append(its_counts)
    return np.concatenate(bins), np.concatenate(counts)


def _count_first(
    eligible: Eligible, ranges: Sequence[GroupRange], chunk: Chunk
) -> tuple[Counter[str], list[tuple[str, int, str]], _Occurring]:
    """Counts, and looks at the statuses too."""
    rows = eligible.read(chunk, with_status=True)
    statuses: Counter[str] = Counter()
    examples: list[tuple[str, int, str]] = []
    for (shard, unit), status in zip(chunk.places, rows.statuses, strict=True):
        counts = {one["values"]: one["counts"] for one in status.value_counts().to_pylist()}
        statuses.update(counts)
        if len(examples) < _EXAMPLES and any(one in BAD for one in counts):
            examples += _bad_rows(shard.file.relative, unit, status.to_pylist())
    return statuses, examples, _count_in(rows, ranges)


def _bad_rows(shard: str, unit: Unit, statuses: Sequence[str]) -> list[tuple[str, int, str]]:
    rows = enumerate(statuses, unit.start)
    return [(shard, row, status) for row, status in rows if status in BAD][:_EXAMPLES]


def _gather(
    reader: ChunkReader, ranges: Sequence[GroupRange], chunk: Chunk
) -> dict[int, tuple[Bits, Positions]]:
    groups = reader.read(chunk).of_groups()
    found = {
        number: candidates.select(*groups[group])
        for number, (group, candidates) in enumerate(ranges)
        if group in groups
    }
    return {number: rows for number, rows in found.items() if len(rows[0])}


def _count_values(corpus: Location, column: GroupColumn, chunk: Chunk) -> Counter[str]:
    return column.count(corpus, chunk.places)
