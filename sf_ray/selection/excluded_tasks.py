"""Excluded files -> the rows of a corpus that may not be kept, found in Ray tasks."""

import functools
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import ray

from sf_ray.corpus.rows import read_units
from sf_ray.corpus.units import Shard, group_reads, units_of
from sf_ray.runtime.log import say
from sf_ray.runtime.tasks import parallel_map
from sf_ray.scoring.score_set import ShardUnits
from sf_ray.selection.bitmap import Bitmap
from sf_ray.selection.chunks import Chunk
from sf_ray.selection.corpus_pass import CorpusPass, chunks_of
from sf_ray.selection.eligible_scores import read_digests
from sf_ray.selection.excluded import DigestSet, ExcludedFiles, digests_of
from sf_ray.selection.score_range import Positions
from sf_ray.storage.location import Location

# Rows of an excluded file that are held at once.
_UNIT_ROWS = 4096


def find_excluded(
    corpus_pass: CorpusPass,
    units: ShardUnits,
    rows: int,
    scores: Location,
    files: Sequence[ExcludedFiles],
) -> Bitmap:
    """The rows of a corpus whose example stands in excluded files, and how many there are is said.

    The driver holds 16 bytes of each excluded example, and one bit a row of the corpus.

    Args:
        corpus_pass: How to go over the corpus.
        units: All units of the corpus.
        rows: All rows of the corpus.
        scores: The folder of the corpus's score pieces, which have the digests.
        files: The excluded files.

    Raises:
        MarkedBadError: Shards of the corpus turned out to be bad.
        SfRayError: A file or a score piece cannot be read.
    """
    digests = DigestSet.union(read_examples(found, corpus_pass.stall_s) for found in files)
    # Tasks of one node share what lies in Ray's object store.
    find = functools.partial(_equal_rows, scores, ray.put(digests))
    equal = Bitmap.empty(rows)
    for positions in corpus_pass.for_scores(units).over(find, chunks_of(units)):
        equal.add(positions)
    unread = f"; {digests.unread:,} rows there hold no example" if digests.unread else ""
    say(
        f"excluded: {len(equal):,} rows are equal to one of {len(digests.digests):,} examples"
        f"{unread}"
    )
    return equal


def read_examples(files: ExcludedFiles, stall_s: float) -> DigestSet:
    """Reads all examples of some files.

    Args:
        files: The files.
        stall_s: Seconds to wait for the next file.

    Raises:
        SfRayError: A file cannot be read.
    """
    read = functools.partial(_examples_of_shard, files)
    return DigestSet.union(parallel_map(read, files.corpus.shards, stall_s))


def equal_rows_of_shard(
    files: ExcludedFiles, examples: DigestSet, shard: Shard
) -> tuple[str, list[int]]:
    """Name of a shard of some files, and the numbers of its rows that are among the examples."""
    known = set(examples.digests.to_pylist())
    digests = (
        each for table in tables_of_shard(files, shard) for each in digests_of(files.format, table)
    )
    found = [row for row, digest in enumerate(digests) if digest in known]
    return shard.file.relative, found


def _examples_of_shard(files: ExcludedFiles, shard: Shard) -> DigestSet:
    return DigestSet.of(files.format, tables_of_shard(files, shard))


def tables_of_shard(files: ExcludedFiles, shard: Shard) -> Iterator[pa.Table]:
    """The columns of a shard that hold examples, a part after the other."""
    for plan in group_reads(shard, units_of(shard.row_groups, _UNIT_ROWS)):
        yield from read_units(files.corpus.location, plan, files.format.top_columns)


def _equal_rows(scores: Location, excluded: ray.ObjectRef, chunk: Chunk) -> Positions:
    digests: DigestSet = ray.get(excluded)
    position, found = chunk.start, [np.empty(0, np.int64)]
    units = read_digests(scores, chunk.places, [])
    for place, unit in zip(chunk.places, units, strict=True):
        equal = unit.has_digest & digests.contains(unit.digest)
        found.append(position + np.flatnonzero(equal))
        position += place.unit.rows
    return np.concatenate(found)
