"""Which rows stand for a corpus.

Two ways to choose them: the first rows of a few shards, which show the columns and formats of a
corpus at the price of a few reads; and segments, short runs of rows that are spread evenly over all
of a corpus, from which costs and scores of all rows can be estimated. Knows no Ray and no model.
"""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from sf_ray.corpus.formats import SampleRow
from sf_ray.corpus.planning import Corpus
from sf_ray.corpus.readers.file_types import FileType
from sf_ray.corpus.readers.shard import open_shard
from sf_ray.corpus.rows import BadLine, first_bad_row, rows_of
from sf_ray.corpus.units import Shard, Unit
from sf_ray.errors import BadShardError, SfRayError
from sf_ray.storage.location import Location

# First rows: how many of a shard, and of how many shards.
_SAMPLE_ROWS, _SAMPLE_SHARDS = 16, 4
# Each segment costs a read: few enough that a bucket answers soon, and enough that no part of a
# corpus is passed over.
_MOST_SEGMENTS = 32


def sample_rows(
    corpus: Corpus, per_shard: int = _SAMPLE_ROWS, shards: int = _SAMPLE_SHARDS
) -> list[SampleRow]:
    """The first rows of a few shards, spread over a corpus; always the same rows.

    Skips bad lines, and shards that cannot be read: a later stage that reads all rows will report
    them. Leaves out columns with binary values, such as images and sound, and columns of one name.

    Args:
        corpus: The corpus.
        per_shard: Rows of one shard, at most.
        shards: Number of shards, at most.

    Raises:
        SfRayError: Not one row can be read, or storage failed.
    """
    sample: list[SampleRow] = []
    problem: SfRayError | None = None
    for shard in sampled_shards(corpus, shards):
        columns = _columns_to_sample(corpus.schemas[shard.schema])
        try:
            table = _first_rows(corpus.location, shard, per_shard, columns)
        except BadShardError as error:
            problem = problem or error
            continue
        for number, row in enumerate(rows_of(table)):
            if not isinstance(row, BadLine):
                sample.append(SampleRow(shard.file.relative, number, row))
            elif problem is None:
                problem = first_bad_row(corpus.location, shard.file, 0, table, [number])
    if problem and not sample:
        raise problem
    return sample


def sampled_shards(corpus: Corpus, shards: int = _SAMPLE_SHARDS) -> list[Shard]:
    """The shards that `sample_rows` reads: the first, the last and some between, none empty."""
    filled = [shard for shard in corpus.shards if shard.rows]
    count = min(shards, len(filled))
    return [filled[i * (len(filled) - 1) // max(count - 1, 1)] for i in range(count)]


def _first_rows(location: Location, shard: Shard, rows: int, columns: Sequence[str]) -> pa.Table:
    group = next(i for i, group_rows in enumerate(shard.row_groups) if group_rows)
    offset = shard.starts[group] if shard.starts else 0
    with open_shard(location, shard.file) as reader:
        batches = reader.batches(rows, columns, range(group, group + 1), offset)
        for batch in batches:
            return pa.Table.from_batches([batch])
    raise BadShardError(shard.file.relative, "ends before the first row that its footer promises")


def _columns_to_sample(schema: pa.Schema) -> list[str]:
    """The columns without binary values whose name is there once."""
    times = Counter(schema.names)
    return [
        field.name for field in schema if times[field.name] == 1 and not _has_binary(field.type)
    ]


def _has_binary(column_type: pa.DataType) -> bool:
    """Whether a type is binary, or has a binary type inside."""
    children = [column_type.field(i).type for i in range(column_type.num_fields)]
    is_binary = (
        pa.types.is_binary(column_type)
        or pa.types.is_large_binary(column_type)
        or pa.types.is_binary_view(column_type)
        or pa.types.is_fixed_size_binary(column_type)
    )
    return is_binary or any(map(_has_binary, children))


def field_names(corpus: Corpus, sample: Sequence[SampleRow]) -> list[str]:
    """The columns of a corpus; for JSON, the fields of the sampled rows in order of appearance.

    Raises:
        SfRayError: The corpus is JSON and the sample is empty.
    """
    if corpus.file_type is not FileType.JSON:
        return corpus.column_names
    if not sample:
        raise SfRayError(
            f"{corpus.location.public_uri}: its {len(corpus.shards)} JSON shards hold no rows, so "
            "nothing tells which fields they have"
        )
    return list(dict.fromkeys(name for sampled in sample for name in sampled.row))


@dataclass(frozen=True)
class Segment:
    """A run of rows of one shard that stands for the rows around it.

    Attributes:
        shard: The shard.
        unit: Which rows of the shard.
        rows: The rows themselves.
    """

    shard: Shard
    unit: Unit
    rows: pa.Table


def spread_segments(
    shard_rows: Sequence[int], wanted: int, seed: int, most: int = _MOST_SEGMENTS
) -> list[tuple[int, Unit]]:
    """Chooses segments that are spread over a corpus and do not overlap.

    Args:
        shard_rows: [shards] rows of each shard.
        wanted: Rows of all segments together; a smaller corpus is taken whole.
        seed: Another seed chooses other rows.
        most: Segments, at most, before a segment that crosses the end of a shard is cut in two.

    Returns:
        (index of a shard, rows of the shard), in the order of the corpus; `wanted` rows together.
    """
    total = sum(shard_rows)
    wanted = min(wanted, total)
    count = min(most, wanted)
    # The rows that are left out form gaps. Before segment i lie about i / count of them, shifted by
    # a random part of one gap; so the gaps are nearly equal, and no two segments overlap.
    shifts = np.arange(count) + np.random.default_rng(seed).random(count)
    left_out = ((total - wanted) * shifts / max(count, 1)).astype(np.int64)
    sizes = np.diff([wanted * i // max(count, 1) for i in range(count + 1)])
    starts = np.cumsum(sizes) - sizes + left_out
    ends = [0, *itertools.accumulate(shard_rows)]
    segments: list[tuple[int, Unit]] = []
    for start, size in zip(starts.tolist(), sizes.tolist(), strict=True):
        stop = start + size
        while start < stop:
            shard = int(np.searchsorted(ends, start, side="right")) - 1
            end = min(stop, ends[shard + 1])
            segments.append((shard, Unit(start - ends[shard], end - ends[shard])))
            start = end
    return segments
