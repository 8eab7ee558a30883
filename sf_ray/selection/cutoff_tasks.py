"""Score pieces -> cut-offs: the rows that `cutoffs` counts are counted in Ray tasks."""

import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sf_ray.scoring.bad_rows import SHOWN, BadRow, bad_rows_of, count_statuses, only_bad
from sf_ray.selection.chunks import Chunk, ChunkRows, Eligible
from sf_ray.selection.corpus_pass import CorpusPass
from sf_ray.selection.cutoffs import Cutoff, Cutoffs, GroupRange, Search, find_cutoffs, first_ranges
from sf_ray.selection.eligible_scores import read_checked
from sf_ray.selection.group_column import GroupColumn
from sf_ray.selection.lengths import LENGTHS
from sf_ray.selection.ranking import GroupCutoff, GroupRequest, Ranking
from sf_ray.selection.read_tables import ReadTables
from sf_ray.selection.score_range import RankKeys, SparseCounts
from sf_ray.storage.location import Location

BinCounts = NDArray[np.int64]


class ChunkReader(Protocol):
    """Reads which rows of a chunk count."""

    def read(self, chunk: Chunk) -> ChunkRows:
        """Rows of a chunk; the value of a row that does not count is NaN."""
        ...


def rank(
    corpus_pass: CorpusPass,
    chunks: Sequence[Chunk],
    rows: int,
    eligible: Eligible,
    requests: Sequence[GroupRequest],
    known: ReadTables | None = None,
) -> Ranking:
    """Finds the cut-offs that keep the wanted rows of each group, or all where there are fewer.

    The driver holds counts in bins. Most corpora take one pass to count, and one to look at the
    rows of the last bins.

    Args:
        corpus_pass: How to go over the corpus.
        chunks: The whole corpus.
        rows: All rows of the corpus.
        eligible: Reads which rows may be kept, and the groups that they are in.
        requests: How many rows of each group are wanted, in the order of the groups' codes.
        known: Gets the scores that the first pass reads; None to let every pass read them.

    Raises:
        MarkedBadError: Shards turned out to be bad.
        SfRayError: A score piece cannot be read.
    """
    ranges = first_ranges(eligible.within, rows, len(requests))
    status_counts: Counter[str] = Counter()
    bad: list[BadRow] = []
    counts = _no_counts(ranges)
    valueless = 0
    for chunk_counts in _first_counts(corpus_pass, chunks, eligible, ranges, known):
        status_counts.update(chunk_counts.statuses)
        valueless += chunk_counts.valueless
        # The first bad rows of the corpus, whichever task ends first.
        bad = sorted(bad + chunk_counts.bad)[:SHOWN]
        _add(counts, chunk_counts.rows)
    if known is not None:
        chunks = [known.for_chunk(chunk) for chunk in chunks]
    groups = _cut(corpus_pass, chunks, eligible, requests, ranges, counts)
    return Ranking(dict(status_counts), tuple(bad), groups, valueless)


def rank_again(
    corpus_pass: CorpusPass,
    chunks: Sequence[Chunk],
    rows: int,
    eligible: Eligible,
    requests: Sequence[GroupRequest],
    ranking: Ranking,
) -> Ranking:
    """As `rank`, of a corpus that was ranked before: its statuses are not counted again.

    Args:
        corpus_pass: How to go over the corpus.
        chunks: The whole corpus.
        rows: All rows of the corpus.
        eligible: Reads which rows may be kept, and the groups that they are in.
        requests: How many rows of each group are wanted, in the order of the groups' codes.
        ranking: What the first ranking found.

    Raises:
        MarkedBadError: Shards turned out to be bad.
        SfRayError: A score piece cannot be read.
    """
    ranges = first_ranges(eligible.within, rows, len(requests))
    counts = count_rows(corpus_pass, chunks, eligible, ranges)
    return replace(ranking, groups=_cut(corpus_pass, chunks, eligible, requests, ranges, counts))


def _cut(
    corpus_pass: CorpusPass,
    chunks: Sequence[Chunk],
    eligible: Eligible,
    requests: Sequence[GroupRequest],
    ranges: Sequence[GroupRange],
    counts: BinCounts,
) -> tuple[GroupCutoff, ...]:
    """The cut-offs of all groups, whose rows in the bins of their ranges are counted."""
    eligible_rows = counts.sum(axis=1).tolist()
    kept = [
        min(request.wanted, count) for request, count in zip(requests, eligible_rows, strict=True)
    ]
    groups_with_rows = [code for code, kept_rows in enumerate(kept) if kept_rows]
    found = find_cutoffs(
        [Search(ranges[code], kept[code]) for code in groups_with_rows],
        counts[groups_with_rows],
        functools.partial(count_rows, corpus_pass, chunks, eligible),
        functools.partial(gather_rows, corpus_pass, chunks, eligible),
    )
    cutoffs: dict[int, Cutoff] = dict(zip(groups_with_rows, found, strict=True))
    return tuple(
        GroupCutoff(
            name=request.name,
            rows=request.rows,
            wanted=request.wanted,
            eligible=eligible_rows[code],
            kept=kept[code],
            cutoff=cutoffs.get(code),
        )
        for code, request in enumerate(requests)
    )


def count_lengths(
    corpus_pass: CorpusPass,
    chunks: Sequence[Chunk],
    eligible: Eligible,
    groups: int,
    cutoffs: Cutoffs | None,
) -> NDArray[np.int64]:
    """[groups, LENGTHS] eligible rows of each group by the length of their answers.

    Args:
        corpus_pass: How to go over the corpus.
        chunks: The whole corpus.
        eligible: Reads which rows may be kept, by length.
        groups: How many groups there are, whatever the length.
        cutoffs: To count only the rows that these keep of each group; None for all.

    Raises:
        MarkedBadError: Shards turned out to be bad.
        SfRayError: A score piece cannot be read.
    """
    counts = np.zeros(groups * LENGTHS, np.int64)
    count = functools.partial(_count_lengths, eligible, cutoffs)
    for of_chunk in corpus_pass.over(count, chunks):
        counts[of_chunk.bins] += of_chunk.rows
    return counts.reshape(groups, LENGTHS)


def count_values(
    corpus_pass: CorpusPass, chunks: Sequence[Chunk], corpus: Location, column: GroupColumn
) -> Counter[str]:
    """Rows of each value of a column.

    Raises:
        MarkedBadError: Shards turned out to be bad.
        SfRayError: There are too many values.
    """
    counts: Counter[str] = Counter()
    count = functools.partial(_count_values, corpus, column)
    for chunk_counts in corpus_pass.over(count, chunks):
        counts.update(chunk_counts)
        column.check(counts)
    return counts


def count_rows(
    corpus_pass: CorpusPass,
    chunks: Sequence[Chunk],
    reader: ChunkReader,
    ranges: Sequence[GroupRange],
) -> BinCounts:
    """[ranges, bins] rows in each bin of the ranges, over all chunks; arguments as `gather_rows`.

    Raises:
        MarkedBadError: Shards turned out to be bad.
        SfRayError: A score piece cannot be read.
    """
    counts = _no_counts(ranges)
    for chunk_counts in corpus_pass.over(functools.partial(_count, reader, ranges), chunks):
        _add(counts, chunk_counts)
    return counts


def gather_rows(
    corpus_pass: CorpusPass,
    chunks: Sequence[Chunk],
    reader: ChunkReader,
    ranges: Sequence[GroupRange],
) -> list[RankKeys]:
    """The rows of each range, over all chunks.

    Args:
        corpus_pass: How to go over the corpus.
        chunks: The whole corpus.
        reader: Reads which rows count.
        ranges: The ranges; the driver holds their rows, so they must have few. Each has at least
            one.

    Raises:
        MarkedBadError: Shards turned out to be bad.
        SfRayError: A score piece cannot be read.
    """
    keys_of_ranges: list[list[RankKeys]] = [[] for _ in ranges]
    for chunk_keys in corpus_pass.over(functools.partial(_gather, reader, ranges), chunks):
        for number, keys in chunk_keys.items():
            keys_of_ranges[number].append(keys)
    return [
        RankKeys(
            np.concatenate([keys.bits for keys in keys_of_range]),
            np.concatenate([keys.positions for keys in keys_of_range]),
            np.concatenate([keys.weights for keys in keys_of_range]),
        )
        for keys_of_range in keys_of_ranges
    ]


class _ChunkCounts(NamedTuple):
    """What the first count sees of a chunk.

    Attributes:
        start: The position of the chunk.
        stop: The position behind it.
        statuses: Rows by status.
        bad: Some bad rows.
        rows: Eligible rows in the bins of all ranges.
        valueless: Rows within the bounds that have nothing to be ranked by.
    """

    start: int
    stop: int
    statuses: Counter[str]
    bad: list[BadRow]
    rows: SparseCounts
    valueless: int


def _no_counts(ranges: Sequence[GroupRange]) -> BinCounts:
    bins = max((score_range.bins for _, score_range in ranges), default=1)
    return np.zeros((len(ranges), bins), np.int64)


def _add(counts: BinCounts, chunk_counts: SparseCounts) -> None:
    """Adds counts whose bins are numbered through all ranges, as `_count_in` numbers them."""
    counts.reshape(-1)[chunk_counts.bins] += chunk_counts.rows


def _count(reader: ChunkReader, ranges: Sequence[GroupRange], chunk: Chunk) -> SparseCounts:
    return _count_in(reader.read(chunk), ranges)


def _count_in(rows: ChunkRows, ranges: Sequence[GroupRange]) -> SparseCounts:
    """Rows in the bins of all ranges, which have equally many; bins are numbered through all."""
    groups = rows.of_groups()
    bins, counts = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for number, (group, score_range) in enumerate(ranges):
        if group in groups:
            in_range = score_range.count(*groups[group])
            bins.append(number * score_range.bins + in_range.bins)
            counts.append(in_range.rows)
    return SparseCounts(np.concatenate(bins), np.concatenate(counts))


def _first_counts(
    corpus_pass: CorpusPass,
    chunks: Sequence[Chunk],
    eligible: Eligible,
    ranges: Sequence[GroupRange],
    known: ReadTables | None,
) -> Iterator[_ChunkCounts]:
    """Goes over the corpus for the first time; adds what is read to `known`."""
    if known is None:
        yield from corpus_pass.over(functools.partial(_count_first, eligible, ranges), chunks)
        return
    count = functools.partial(_count_and_keep, eligible, ranges)
    for counts, (table,) in corpus_pass.over_stored(count, chunks, 1):
        known.add(counts.start, counts.stop, table)
        yield counts


def _count_first(eligible: Eligible, ranges: Sequence[GroupRange], chunk: Chunk) -> _ChunkCounts:
    """Counts, and looks at the statuses too: one pass over the pieces is enough for both."""
    tables = list(read_checked(eligible.scores, chunk.places, eligible.columns))
    return _counts_of(eligible, ranges, chunk, tables, pa.concat_tables(tables))


def _count_and_keep(
    eligible: Eligible, ranges: Sequence[GroupRange], chunk: Chunk
) -> tuple[_ChunkCounts, Sequence[pa.Table]]:
    """As `_count_first`; also returns the scores, in one table."""
    tables = list(read_checked(eligible.scores, chunk.places, None))
    whole = eligible.with_own(chunk, pa.concat_tables(tables).combine_chunks())
    return _counts_of(eligible, ranges, chunk, tables, whole), [whole]


def _counts_of(
    eligible: Eligible,
    ranges: Sequence[GroupRange],
    chunk: Chunk,
    tables: Sequence[pa.Table],
    whole: pa.Table,
) -> _ChunkCounts:
    """Counts the rows of a chunk, of which each unit is one table; `whole` has all of them."""
    rows = eligible.rows_of(chunk, [whole])
    valueless = int((np.isnan(rows.values) & ~np.isnan(rows.ifd)).sum())
    statuses: Counter[str] = Counter()
    bad: list[BadRow] = []
    for (shard, unit), table in zip(chunk.places, tables, strict=True):
        counts = count_statuses(table["status"])
        statuses.update(counts)
        if len(bad) < SHOWN and only_bad(counts):
            bad += bad_rows_of(shard.file.relative, range(unit.start, unit.stop), table["status"])
    counted = _count_in(rows, ranges)
    return _ChunkCounts(chunk.start, chunk.stop, statuses, bad, counted, valueless)


def _gather(reader: ChunkReader, ranges: Sequence[GroupRange], chunk: Chunk) -> dict[int, RankKeys]:
    """Number of a range -> its rows in the chunk, for the ranges that have any there."""
    groups = reader.read(chunk).of_groups()
    keys_of_ranges = {
        number: score_range.select(*groups[group])
        for number, (group, score_range) in enumerate(ranges)
        if group in groups
    }
    return {number: keys for number, keys in keys_of_ranges.items() if len(keys.bits)}


def _count_lengths(eligible: Eligible, cutoffs: Cutoffs | None, chunk: Chunk) -> SparseCounts:
    rows = eligible.read(chunk)
    codes = np.zeros(0, np.int64) if rows.codes is None else rows.codes
    if cutoffs is None:
        counted = ~np.isnan(rows.values)
    else:
        counted = cutoffs.keeps(rows.values, rows.positions, codes // LENGTHS)
    return SparseCounts(*np.unique(codes[counted], return_counts=True))


def _count_values(corpus: Location, column: GroupColumn, chunk: Chunk) -> Counter[str]:
    return column.count(corpus, chunk.places)
