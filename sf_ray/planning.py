"""What there is to do: shards, units, and which of them are read together. No Ray, no model."""

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from sf_ray.errors import BadShardError, SfRayError
from sf_ray.shards import read_footer
from sf_ray.storage import File, Location, list_files

_FOOTER_THREADS = 32
# Units of one row group that one task reads in a row: a row group is fetched once for all of them,
# and one of a million rows is still shared between tasks.
_UNITS_A_READ = 64
_BAD_SHARDS_SHOWN = 5


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
    """

    file: File
    row_groups: tuple[int, ...]
    position: int

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
class Footer:
    """What a plan needs to know of a shard beyond the listing.

    Attributes:
        row_groups: Rows of each row group.
        schema: Its columns and types.
    """

    row_groups: tuple[int, ...]
    schema: pa.Schema


@dataclass(frozen=True)
class SkippedShard:
    """A shard that is not used, and why."""

    relative: str
    reason: str


@dataclass(frozen=True)
class Corpus:
    """The shards of a corpus, sorted by relative path, and their common schema."""

    location: Location
    shards: tuple[Shard, ...]
    schema: pa.Schema
    skipped: tuple[SkippedShard, ...] = ()

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
        """Changes when any shard is added, changed, removed or skipped."""
        ids = "\n".join(
            [shard.shard_id for shard in self.shards] + [shard.relative for shard in self.skipped]
        )
        return hashlib.sha256(ids.encode()).hexdigest()[:16]

    def without(self, bad: Mapping[str, str]) -> "Corpus":
        """The corpus without the shards of these ids, which map to what is wrong with them."""
        left, skipped, position = [], list(self.skipped), 0
        for shard in self.shards:
            if shard.shard_id in bad:
                skipped.append(SkippedShard(shard.file.relative, bad[shard.shard_id]))
            else:
                left.append(Shard(shard.file, shard.row_groups, position))
                position += shard.rows
        skipped.sort(key=lambda one: one.relative)
        return Corpus(self.location, tuple(left), self.schema, tuple(skipped))


@dataclass(frozen=True)
class ReadPlan:
    """Units of one shard that one task reads, in order, and the row groups that hold them.

    Attributes:
        file: The shard.
        stem: What the names of its pieces begin with.
        units: In order.
        row_groups: Indices of the row groups to read.
        first_row: First row of the first of them.
    """

    file: File
    stem: str
    units: tuple[Unit, ...]
    row_groups: range
    first_row: int


def plan_corpus(
    location: Location, known: Mapping[str, Footer] | None = None, skip_bad: bool = False
) -> Corpus:
    """Lists a corpus once and reads, in parallel, the footers that are not known yet.

    Args:
        location: The corpus.
        known: Footers by shard id.
        skip_bad: Leave shards out that cannot be used, instead of failing.

    Raises:
        SfRayError: There are no shards, or some that cannot be used.
    """
    files = list_files(location)
    found = [file for file in files if file.relative.endswith(".parquet")]
    if not found:
        there = f"{len(files)} other files, e.g. {files[0].relative}" if files else "no files"
        raise SfRayError(
            f"{location.public_uri}: no shards found: expected *.parquet files; there are {there}"
        )
    known = known or {}
    bad: dict[str, str] = {}

    def footer(file: File) -> Footer | None:
        try:
            return known.get(shard_id(file)) or _read(location, file)
        except BadShardError as error:
            bad[file.relative] = error.reason
            return None

    with ThreadPoolExecutor(_FOOTER_THREADS) as threads:
        footers = {
            file: one for file, one in zip(found, threads.map(footer, found), strict=True) if one
        }
    schema, example = _most_common_schema(footers)
    for file, one in footers.items():
        # Known footers share one schema: comparing those costs nothing.
        if one.schema is not schema and not one.schema.equals(schema):
            bad[file.relative] = _difference(one.schema, example, schema)
    if bad and (not skip_bad or len(bad) == len(found)):
        raise _bad_shards(location, bad, len(found), skip_bad)
    shards, position = [], 0
    for file, one in footers.items():
        if file.relative not in bad:
            shards.append(Shard(file, one.row_groups, position))
            position += sum(one.row_groups)
    skipped = tuple(SkippedShard(name, reason) for name, reason in sorted(bad.items()))
    return Corpus(location, tuple(shards), schema, skipped)


def _read(location: Location, file: File) -> Footer:
    metadata = read_footer(location, file)
    rows = tuple(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
    try:
        return Footer(rows, metadata.schema.to_arrow_schema())
    except (pa.ArrowException, OSError) as error:
        raise BadShardError(file.relative, f"its schema cannot be read ({error})") from error


def _most_common_schema(footers: Mapping[File, Footer]) -> tuple[pa.Schema, File | None]:
    """The schema of most shards, and the first that has it."""
    if not footers:
        return pa.schema([]), None
    text: dict[int, str] = {}  # footers that were known share one schema
    for one in footers.values():
        if id(one.schema) not in text:
            text[id(one.schema)] = one.schema.to_string(
                show_field_metadata=False, show_schema_metadata=False
            )
    most = Counter(text[id(one.schema)] for one in footers.values()).most_common(1)[0][0]
    example = next(file for file, one in footers.items() if text[id(one.schema)] == most)
    return footers[example].schema, example


def _difference(here: pa.Schema, example: File | None, there: pa.Schema) -> str:
    def types(schema: pa.Schema) -> dict[str, str]:
        return {field.name: str(field.type) for field in schema}

    mine, theirs = types(here), types(there)
    names = [name for name in {**theirs, **mine} if mine.get(name) != theirs.get(name)]
    details = "; ".join(
        f"column {name!r} is {mine.get(name, 'absent')}, not {theirs.get(name, 'absent')}"
        for name in names
    )
    return (
        f"another schema than {example.relative if example else 'the others'} and most shards "
        f"({details or 'the same columns in another order'})"
    )


def _bad_shards(location: Location, bad: Mapping[str, str], of: int, skip_bad: bool) -> SfRayError:
    if len(bad) == 1 and not skip_bad:
        return BadShardError(*next(iter(bad.items())))
    lines = [f"  {name}: {reason}" for name, reason in sorted(bad.items())]
    if len(lines) > _BAD_SHARDS_SHOWN:
        lines[_BAD_SHARDS_SHOWN:] = [f"  and {len(lines) - _BAD_SHARDS_SHOWN} more"]
    rest = "" if skip_bad else ", or go on without them with --on-bad-shard skip"
    return SfRayError(
        f"{location.public_uri}: {len(bad)} of {of} shards cannot be used; write them again or "
        f"take them out of the corpus{rest}:\n" + "\n".join(lines)
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
    plans = []
    for group in groups:
        first = int(np.searchsorted(ends, group[0].start, side="right"))
        last = int(np.searchsorted(ends, group[-1].stop, side="left"))
        first_row = int(ends[first]) - shard.row_groups[first]
        row_groups = range(first, last + 1)
        plans.append(ReadPlan(shard.file, shard.stem, tuple(group), row_groups, first_row))
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
