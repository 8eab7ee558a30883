"""Shards, the units that they are cut into, and which units one task reads together.

Decides on numbers of rows alone: opens no file, and knows no Ray.
"""

import hashlib
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from sf_ray.storage.listing import File
from sf_ray.storage.names import piece_name, written_name

# How many units of one row group a task reads at most. Reading them together fetches the row group
# once; the bound lets several tasks share a row group of a million rows.
_UNITS_A_READ = 64


@dataclass(frozen=True)
class Footer:
    """What a plan must know about a shard, and a listing does not tell.

    Attributes:
        row_groups: Rows of each row group. A file type without row groups is cut into parts of a
            convenient size, which can be read alone.
        schema: Columns and types.
        starts: Byte of the unpacked file at which each row group begins. Empty for Parquet, where
            the file itself has the offsets.
    """

    row_groups: tuple[int, ...]
    schema: pa.Schema
    starts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)  # slots save memory: the driver holds all units of a corpus
class Unit:
    """Rows [start, stop) of a shard, which are read, scored and committed together."""

    start: int
    stop: int

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.stop - self.start

    @property
    def suffix(self) -> str:
        """The end of the name of the unit's score piece."""
        return f".{self.start:012d}-{self.stop:012d}.parquet"


@dataclass(frozen=True)
class Shard:
    """A shard of the corpus.

    Attributes:
        file: Path and version of the shard.
        row_groups: Rows of each row group.
        position: Number of rows in all shards before this one.
        starts: Byte at which each row group begins, as in `Footer`.
        schema: Index of its schema in `Corpus.schemas`. A number, because shards travel to tasks
            by the thousand, and schemas are large.
    """

    file: File
    row_groups: tuple[int, ...]
    position: int
    starts: tuple[int, ...] = ()
    schema: int = 0

    @property
    def rows(self) -> int:
        """Rows of the shard."""
        return sum(self.row_groups)

    @cached_property
    def shard_id(self) -> str:
        """Id of this version of the shard; another version has another id."""
        return shard_id(self.file)

    @property
    def written_name(self) -> str:
        """Path of what is written of the shard, below the folder of filtered shards."""
        return written_name(self.file.relative)

    @property
    def stem(self) -> str:
        """The beginning of the names of the shard's score pieces."""
        return f"{piece_name(self.file.relative)}.{self.shard_id}"

    def piece(self, unit: Unit) -> str:
        """Name of a unit's score piece, below the folder of the scoring identity."""
        return self.stem + unit.suffix


class Place(NamedTuple):
    """A unit together with the shard that it belongs to."""

    shard: Shard
    unit: Unit


def shard_id(file: File) -> str:
    """Id of a file's content, from the path, size and version that a listing shows."""
    text = f"{file.relative}\0{file.size}\0{file.version}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class ReadPlan:
    """Units of one shard that one task reads, and the row groups that hold them.

    Attributes:
        file: The shard.
        stem: The beginning of the names of the shard's score pieces.
        units: The units, in the order of their rows.
        row_groups: Indices of the row groups to read.
        first_row: First row of the first of these row groups.
        offset: Byte at which the first of these row groups begins, as in `Footer.starts`.
    """

    file: File
    stem: str
    units: tuple[Unit, ...]
    row_groups: range
    first_row: int
    offset: int = 0


def units_of(row_groups: Sequence[int], unit_rows: int) -> list[Unit]:
    """Cuts a shard into units of at most `unit_rows` rows.

    A unit joins small row groups that follow each other. A large row group is cut into units of
    equal size, none of which shares another row group, so that a unit reads as little of the file
    as possible. Depends on nothing but the arguments, because score pieces are named after units.

    Args:
        row_groups: Rows of each row group of the shard.
        unit_rows: Rows of a unit at most.
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
    """Groups units of a shard, in order, so that units of one row group are read together."""
    ends = np.cumsum(shard.row_groups)  # [row groups] the row after each row group

    def first_row_group(unit: Unit) -> int:
        return int(np.searchsorted(ends, unit.start, side="right"))

    groups: list[list[Unit]] = []
    for unit in units:
        if (
            groups
            and len(groups[-1]) < _UNITS_A_READ
            and first_row_group(unit) == first_row_group(groups[-1][0])
        ):
            groups[-1].append(unit)
        else:
            groups.append([unit])
    plans = []
    for group in groups:
        first = first_row_group(group[0])
        last = int(np.searchsorted(ends, group[-1].stop, side="left"))
        first_row = int(ends[first]) - shard.row_groups[first]
        row_groups = range(first, last + 1)
        offset = shard.starts[first] if shard.starts else 0
        plans.append(ReadPlan(shard.file, shard.stem, tuple(group), row_groups, first_row, offset))
    return plans


def share_reads(plans: Sequence[ReadPlan], units_a_task: int) -> list[list[ReadPlan]]:
    """Joins small reads that follow each other into tasks of about `units_a_task` units."""
    tasks: list[list[ReadPlan]] = []
    room = 0  # units that the last task still takes
    for plan in plans:
        if len(plan.units) > room:
            tasks.append([])
            room = units_a_task
        tasks[-1].append(plan)
        room -= len(plan.units)
    return tasks
