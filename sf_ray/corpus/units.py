"""What a shard is cut into, and which of it is read together. Pure: no files, no Ray."""

import hashlib
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from sf_ray.storage.files import File

# Units of one row group that one task reads in a row: a row group is fetched once for all of them,
# and one of a million rows is still shared between tasks.
_UNITS_A_READ = 64


@dataclass(frozen=True)
class Footer:
    """What a plan needs to know of a shard beyond the listing.

    Attributes:
        row_groups: Rows of each row group; where a kind of shard has none, of parts of a size to
            be read alone.
        schema: Its columns and types.
        starts: Where each row group begins, in bytes of the unpacked file; none for Parquet, which
            says so itself.
    """

    row_groups: tuple[int, ...]
    schema: pa.Schema
    starts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)  # the driver holds every one of them
class Unit:
    """Rows [start, stop) of a shard: what is scored and committed as one."""

    start: int
    stop: int

    @property
    def rows(self) -> int:
        """Its number of rows."""
        return self.stop - self.start

    @property
    def suffix(self) -> str:
        """How the name of its piece ends."""
        return f".{self.start:012d}-{self.stop:012d}.parquet"


@dataclass(frozen=True)
class Shard:
    """A shard of the corpus.

    Attributes:
        file: Where it is, and its version.
        row_groups: Rows of each row group.
        position: Rows of all shards before this one.
        starts: Where each row group begins, as in `Footer`.
    """

    file: File
    row_groups: tuple[int, ...]
    position: int
    starts: tuple[int, ...] = ()

    @property
    def rows(self) -> int:
        """Rows of the shard."""
        return sum(self.row_groups)

    @cached_property
    def shard_id(self) -> str:
        """Names this content of this shard: another version has another id."""
        return shard_id(self.file)

    @property
    def stem(self) -> str:
        """What the names of its pieces begin with."""
        return f"{self.file.relative.removesuffix('.parquet')}.{self.shard_id}"

    def piece(self, unit: Unit) -> str:
        """Name of a unit's score piece, below the folder of the scoring identity."""
        return self.stem + unit.suffix


def shard_id(file: File) -> str:
    """Names a file's content, by what a listing tells of it."""
    text = f"{file.relative}\0{file.size}\0{file.version}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class ReadPlan:
    """Units of one shard that one task reads, in order, and the row groups that hold them.

    Attributes:
        file: The shard.
        stem: What the names of its pieces begin with.
        units: In order.
        row_groups: Indices of the row groups to read.
        first_row: First row of the first of them.
        offset: Where that one begins, as in `Footer.starts`.
    """

    file: File
    stem: str
    units: tuple[Unit, ...]
    row_groups: range
    first_row: int
    offset: int = 0


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
    plans = []
    for group in groups:
        first = int(np.searchsorted(ends, group[0].start, side="right"))
        last = int(np.searchsorted(ends, group[-1].stop, side="left"))
        first_row = int(ends[first]) - shard.row_groups[first]
        row_groups = range(first, last + 1)
        offset = shard.starts[first] if shard.starts else 0
        plans.append(ReadPlan(shard.file, shard.stem, tuple(group), row_groups, first_row, offset))
    return plans


def share_reads(plans: Sequence[ReadPlan], units_a_task: int) -> list[list[ReadPlan]]:
    """Small reads that follow each other become one task, of about so many units."""
    tasks: list[list[ReadPlan]] = []
    room = 0
    for plan in plans:
        if len(plan.units) > room:
            tasks.append([])
            room = units_a_task
        tasks[-1].append(plan)
        room -= len(plan.units)
    return tasks


# A unit, and the shard that it is of.
Place = tuple[Shard, Unit]
