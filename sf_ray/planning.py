"""What there is to do: shards, units, and which of them have scores. No Ray, no model."""

import hashlib
import itertools
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from sf_ray.errors import SfRayError
from sf_ray.storage import File, Location, list_files, read_footer

_FOOTER_THREADS = 32
# Units of one huge row group that one task reads in a row, so that the row group is not fetched
# again for each of them, and other tasks still share the work.
_UNITS_A_READ = 16


@dataclass(frozen=True)
class Unit:
    """Rows [start, stop) of a shard: what is scored and committed as one."""

    start: int
    stop: int


@dataclass(frozen=True)
class Shard:
    """A shard of the corpus.

    Attributes:
        file: Where it is, and its version.
        row_groups: Rows of each row group.
        position: Rows of all shards before this one.
    """

    file: File
    row_groups: tuple[int, ...]
    position: int

    @property
    def rows(self) -> int:
        """Rows of the shard."""
        return sum(self.row_groups)

    @property
    def shard_id(self) -> str:
        """Names this content of this shard: another version has another id."""
        file = self.file
        text = f"{file.relative}\0{file.size}\0{file.version}"
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def piece(self, unit: Unit) -> str:
        """Name of a unit's score piece, below the folder of the scoring identity."""
        stem = self.file.relative.removesuffix(".parquet")
        return f"{stem}.{self.shard_id}.{unit.start:012d}-{unit.stop:012d}.parquet"


@dataclass(frozen=True)
class Corpus:
    """The shards of a corpus, sorted by relative path, and their common schema."""

    location: Location
    shards: tuple[Shard, ...]
    schema: pa.Schema

    @property
    def rows(self) -> int:
        """Rows of all shards."""
        return sum(shard.rows for shard in self.shards)

    @property
    def bytes(self) -> int:
        """Bytes of all shards."""
        return sum(shard.file.size for shard in self.shards)

    @property
    def fingerprint(self) -> str:
        """Changes when any shard is added, changed or removed."""
        ids = "\n".join(shard.shard_id for shard in self.shards)
        return hashlib.sha256(ids.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class ReadPlan:
    """Units of one shard that one task reads, in order."""

    shard: Shard
    units: tuple[Unit, ...]


def plan_corpus(location: Location) -> Corpus:
    """Lists a corpus once and reads the footers of its shards in parallel.

    Raises:
        SfRayError: No shards, one that cannot be read, or one with another schema.
    """
    files = list_files(location)
    shards = [file for file in files if file.relative.endswith(".parquet")]
    if not shards:
        there = f"{len(files)} other files, e.g. {files[0].relative}" if files else "no files"
        raise SfRayError(
            f"{location.public_uri}: no shards found: expected *.parquet files; there are {there}"
        )
    with ThreadPoolExecutor(_FOOTER_THREADS) as threads:
        footers = threads.map(lambda file: _footer(location, file), shards)
        planned: list[Shard] = []
        schema, position = None, 0
        for file, (row_groups, shard_schema) in zip(shards, footers, strict=True):
            if schema is None:
                schema = shard_schema
            elif not shard_schema.equals(schema):
                raise SfRayError(_difference(file, shard_schema, shards[0], schema))
            planned.append(Shard(file, row_groups, position))
            position += sum(row_groups)
    return Corpus(location, tuple(planned), schema)


def _footer(location: Location, file: File) -> tuple[tuple[int, ...], pa.Schema]:
    metadata = read_footer(location, file)
    rows = tuple(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
    return rows, metadata.schema.to_arrow_schema()


def _difference(file: File, schema: pa.Schema, first_file: File, first: pa.Schema) -> str:
    def types(schema: pa.Schema) -> dict[str, str]:
        return {field.name: str(field.type) for field in schema}

    here, there = types(schema), types(first)
    names = [name for name in {**there, **here} if here.get(name) != there.get(name)]
    details = "; ".join(
        f"column {name!r}: {here.get(name, 'absent')} there, {there.get(name, 'absent')} here"
        for name in names
    )
    return (
        f"shard {file.relative} has another schema than {first_file.relative} "
        f"({details or 'the same columns in another order'}); write both with one schema"
    )


def check_text_columns(corpus: Corpus, columns: Iterable[str]) -> None:
    """Refuses a corpus whose prompt or answer columns cannot hold text.

    Raises:
        SfRayError: Names the column and its type.
    """
    for name in columns:
        kind = corpus.schema.field(name).type
        value = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not (
            pa.types.is_string(value)
            or pa.types.is_large_string(value)
            or pa.types.is_string_view(value)
            or pa.types.is_null(value)
        ):
            raise SfRayError(
                f"column {name!r} of {corpus.shards[0].file.relative} has the type {kind}; "
                "expected text. Choose another with --columns, or convert it"
            )


def units_of(row_groups: Sequence[int], unit_rows: int) -> list[Unit]:
    """Cuts a shard into units of at most `unit_rows` rows.

    Small row groups are read together; a large one is cut into equal parts, so that no unit
    needs more of the file than it must. Depends on nothing but its arguments.
    """
    units: list[Unit] = []
    start = stop = 0
    for rows in row_groups:
        if stop > start and stop - start + rows > unit_rows:
            units.append(Unit(start, stop))
            start = stop
        if rows > unit_rows:
            parts = -(-rows // unit_rows)
            edges = [start + rows * i // parts for i in range(parts + 1)]
            units.extend(Unit(a, b) for a, b in itertools.pairwise(edges))
            start = stop = start + rows
        else:
            stop += rows
    if stop > start:
        units.append(Unit(start, stop))
    return units


def group_reads(shard: Shard, units: Iterable[Unit]) -> list[ReadPlan]:
    """Groups units, in order, so that those cut from one row group are read together."""
    ends = np.cumsum(shard.row_groups)
    groups: list[list[Unit]] = []
    for unit in units:
        row_group = np.searchsorted(ends, unit.start, side="right")
        if (
            groups
            and len(groups[-1]) < _UNITS_A_READ
            and row_group == np.searchsorted(ends, groups[-1][0].start, side="right")
        ):
            groups[-1].append(unit)
        else:
            groups.append([unit])
    return [ReadPlan(shard, tuple(group)) for group in groups]
