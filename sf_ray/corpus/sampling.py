"""Which rows stand for a corpus: short stretches, spread over all of it. Opens no file."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from sf_ray.corpus.formats import SampleRow
from sf_ray.corpus.planning import Corpus
from sf_ray.corpus.readers.file_types import FileType
from sf_ray.corpus.readers.shard import open_shard
from sf_ray.corpus.rows import first_bad_row, rows_of
from sf_ray.corpus.units import Shard, Unit
from sf_ray.errors import BadShardError, SfRayError
from sf_ray.storage.location import Location

# Each costs a read: so few that a bucket answers soon, and so many that no part of a corpus is
# passed over.
_MOST = 32


def spread_segments(
    shard_rows: Sequence[int], wanted: int, seed: int, most: int = _MOST
) -> list[tuple[int, Unit]]:
    """Stretches of rows, in order, that do not touch each other's rows.

    Args:
        shard_rows: Rows of each shard.
        wanted: Rows in all; all rows of the corpus where it has no more.
        seed: Another one finds other rows.
        most: Stretches, before they are cut where a shard ends.

    Returns:
        (index of a shard, rows of it): `wanted` rows in all.
    """
    total = sum(shard_rows)
    wanted = min(wanted, total)
    count = min(most, wanted)
    # Of the rows that are left out, some lie before each stretch: more before each next one.
    shifts = np.arange(count) + np.random.default_rng(seed).random(count)
    left_out = ((total - wanted) * shifts / max(count, 1)).astype(np.int64)
    sizes = np.diff([wanted * i // max(count, 1) for i in range(count + 1)])
    starts = np.cumsum(sizes) - sizes + left_out
    ends = [0, *itertools.accumulate(shard_rows)]
    found: list[tuple[int, Unit]] = []
    for start, size in zip(starts.tolist(), sizes.tolist(), strict=True):
        stop = start + size
        while start < stop:
            shard = int(np.searchsorted(ends, start, side="right")) - 1
            end = min(stop, ends[shard + 1])
            found.append((shard, Unit(start - ends[shard], end - ends[shard])))
            start = end
    return found


_SAMPLE_ROWS, _SAMPLE_SHARDS = 16, 4


def sample_rows(
    corpus: Corpus, per_shard: int = _SAMPLE_ROWS, shards: int = _SAMPLE_SHARDS
) -> list[SampleRow]:
    """The first rows of a few shards that are spread over a corpus; the same ones every time.

    Broken lines are passed over, and so are shards that cannot be read: who reads all of them will
    say so. Columns with binary values (images, sound) are left out.

    Raises:
        SfRayError: Not one row can be read, or storage failed.
    """
    columns = [field.name for field in corpus.schema if not _has_binary(field.type)]
    sample: list[SampleRow] = []
    problem: SfRayError | None = None
    for shard in sampled_shards(corpus, shards):
        try:
            table = _first_rows(corpus.location, shard, per_shard, columns)
        except BadShardError as error:
            problem = problem or error
            continue
        for number, row in enumerate(rows_of(table)):
            if isinstance(row, dict):
                sample.append(SampleRow(shard.file.relative, number, row))
            elif problem is None:
                problem = first_bad_row(corpus.location, shard.file, 0, table, [number])
    if problem and not sample:
        raise problem
    return sample


def sampled_shards(corpus: Corpus, shards: int = _SAMPLE_SHARDS) -> list[Shard]:
    """The shards that `sample_rows` reads of: first, last and some between, none without rows."""
    filled = [shard for shard in corpus.shards if shard.rows]
    count = min(shards, len(filled))
    return [filled[i * (len(filled) - 1) // max(count - 1, 1)] for i in range(count)]


def _first_rows(location: Location, shard: Shard, rows: int, columns: Sequence[str]) -> pa.Table:
    group = next(i for i, group_rows in enumerate(shard.row_groups) if group_rows)
    offset = shard.starts[group] if shard.starts else 0
    with open_shard(location, shard.file) as reader:
        batches = reader.batches(rows, columns, range(group, group + 1), offset)
        return pa.Table.from_batches([next(batches)])


def field_names(corpus: Corpus, sample: Sequence[SampleRow]) -> list[str]:
    """The columns of a corpus; of JSON, the fields of the sampled rows as they come.

    Raises:
        SfRayError: It is JSON without any row.
    """
    if corpus.file_type is not FileType.JSON:
        return list(corpus.schema.names)
    if not sample:
        raise SfRayError(
            f"{corpus.location.public_uri}: its {len(corpus.shards)} JSON shards hold no rows, so "
            "nothing tells which fields they have"
        )
    return list(dict.fromkeys(name for one in sample for name in one.row))


def _has_binary(kind: pa.DataType) -> bool:
    children = [kind.field(i).type for i in range(kind.num_fields)]
    is_binary = (
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_fixed_size_binary(kind)
    )
    return is_binary or any(map(_has_binary, children))


@dataclass(frozen=True)
class Segment:
    """Rows of a shard that belong to the sample."""

    shard: Shard
    unit: Unit
    rows: pa.Table
