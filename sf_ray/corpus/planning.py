"""Lists the shards of a corpus and decides which of them can be used.

Reads footers, but no rows. Knows no Ray and no model.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import pyarrow as pa

from sf_ray.corpus.readers.file_types import (
    EXPECTED,
    FileType,
    file_type_of,
    suffix_of,
    why_not_read,
)
from sf_ray.corpus.readers.shard import read_footer
from sf_ray.corpus.tables.snapshot import TableSnapshot, TableState
from sf_ray.corpus.units import Footer, Shard, shard_id
from sf_ray.errors import BadShardError, SfRayError
from sf_ray.runtime.log import say
from sf_ray.storage.globs import has_wildcard
from sf_ray.storage.listing import File, Listing, list_input
from sf_ray.storage.location import Location
from sf_ray.storage.names import as_text, why_unusable
from sf_ray.text.printable import printable

_FOOTER_THREADS = 32
_BAD_SHARDS_SHOWN = 5


@dataclass(frozen=True)
class SkippedShard:
    """A shard that is not used, and why.

    Attributes:
        relative: Path of the shard, relative to the corpus.
        reason: What is wrong with it.
    """

    relative: str
    reason: str


SkippedShards = tuple[SkippedShard, ...]


def say_skipped(
    skipped: Iterable[SkippedShard], known: SkippedShards = (), then: str = "", stage: str = ""
) -> None:
    """Logs each skipped shard that was not reported before, and why it is skipped.

    Args:
        skipped: Shards that are skipped now.
        known: Shards that were reported before.
        then: What the job does next, as the end of the line.
        stage: The stage that skips them, which JSON lines give with the shard as fields.
    """
    for shard in skipped:
        if shard not in known:
            fields = {"stage": stage, "shard": shard.relative} if stage else {}
            say(f"note: skipping shard {printable(shard.relative)}: {shard.reason}{then}", **fields)


@dataclass(frozen=True)
class Corpus:
    """The usable shards of a corpus, and their schemas.

    Attributes:
        location: The directory, file or glob.
        shards: Sorted by relative path; all of one file type.
        schemas: Columns and types of the shards: the distinct ones, the most common one first.
            Equal ones are one object, so that a million shards take no more room than one.
        skipped: Shards that cannot be used, sorted by relative path.
        passed_over: What lies beside the shards: relative path -> why it is not read.
        table: The state of a table whose files the shards are; None where nobody but the storage
            lists them.
    """

    location: Location
    shards: tuple[Shard, ...]
    schemas: tuple[pa.Schema, ...]
    skipped: SkippedShards = ()
    passed_over: Mapping[str, str] = field(default_factory=dict, hash=False)
    table: TableState | None = None

    @property
    def name(self) -> str:
        """What the user calls the corpus: a place or a table; without secrets."""
        return self.location.public_uri if self.table is None else self.table.name

    @property
    def schema(self) -> pa.Schema:
        """The schema that most shards have."""
        return self.schemas[0]

    @property
    def column_names(self) -> list[str]:
        """The columns of all schemas that have rows, each once, in the order of appearance."""
        return list(dict.fromkeys(name for schema, _ in self.by_schema() for name in schema.names))

    def by_schema(self) -> list[tuple[pa.Schema, list[Shard]]]:
        """The shards of each schema, the most common schema first.

        Leaves out shards without rows, unless there are no others: nothing is read from them or
        written for them, and an empty table often has a schema that its writer made up.
        """
        filled = [shard for shard in self.shards if shard.rows] or self.shards
        shards: dict[int, list[Shard]] = {}
        for shard in filled:
            shards.setdefault(shard.schema, []).append(shard)
        return [(self.schemas[number], shards[number]) for number in sorted(shards)]

    @property
    def file_type(self) -> FileType:
        """The file type of all shards."""
        file_type = file_type_of(self.shards[0].file.relative)
        assert file_type is not None, "plan_corpus takes only files of a known type"
        return file_type

    @property
    def rows(self) -> int:
        """Number of rows in all shards."""
        return sum(shard.rows for shard in self.shards)

    @property
    def bytes(self) -> int:
        """Size of all shards, in bytes."""
        return sum(shard.file.size for shard in self.shards)

    @property
    def fingerprint(self) -> str:
        """Changes when any shard is added, changed, removed or skipped."""
        ids = "\n".join(
            [shard.shard_id for shard in self.shards] + [shard.relative for shard in self.skipped]
        )
        return hashlib.sha256(ids.encode()).hexdigest()[:16]

    def without(self, bad: Mapping[str, str]) -> "Corpus":
        """The corpus without some shards, which count as skipped.

        Args:
            bad: Shard id -> what is wrong with the shard.
        """
        left, skipped, position = [], list(self.skipped), 0
        for shard in self.shards:
            if shard.shard_id in bad:
                skipped.append(SkippedShard(shard.file.relative, bad[shard.shard_id]))
            else:
                left.append(replace(shard, position=position))
                position += shard.rows
        skipped.sort(key=lambda shard: shard.relative)
        shards, schemas = _ranked(left, self.schemas)
        return replace(self, shards=shards, schemas=schemas, skipped=tuple(skipped))


def plan_corpus(
    source: Location | TableSnapshot,
    known: Mapping[str, Footer] | None = None,
    skip_bad: bool = False,
) -> Corpus:
    """Lists a corpus once and reads, in parallel, the footers that are not known yet.

    A shard cannot be used if its footer cannot be read. Shards may have different schemas: which of
    them will do depends on the columns that are used, see `used_columns`.

    Args:
        source: The corpus: a place, or a snapshot of a table, which is a listing already.
        known: Shard id -> footer, from an earlier run.
        skip_bad: Leave out shards that cannot be used, instead of failing.

    Raises:
        BadShardError: One shard cannot be used.
        SfRayError: There are no shards, shards of several file types, or several shards that cannot
            be used.
    """
    if isinstance(source, Location):
        table, location, listing = None, source, list_input(source)
    else:
        table, location, listing = source, source.location, Listing(list(source.files), {})
    shard_files = [file for file in listing.files if file_type_of(file.relative)]
    if not shard_files:
        raise _no_shards(location, listing, table)
    _refuse_several_file_types(location, shard_files)
    footers, bad = _read_footers(location, shard_files, known or {})
    if bad and (not skip_bad or len(bad) == len(shard_files)):
        raise bad_shards(location, bad, len(shard_files), skip_bad)
    if table is not None:  # whatever a file is like, its rows come out as these
        footers = {file: replace(footer, schema=table.schema) for file, footer in footers.items()}
    schemas, number_of = _distinct(footers.values())
    shards, position = [], 0
    for file, footer in footers.items():
        number = number_of[id(footer.schema)]
        shards.append(Shard(file, footer.row_groups, position, footer.starts, number))
        position += sum(footer.row_groups)
    skipped = tuple(SkippedShard(name, reason) for name, reason in sorted(bad.items()))
    return Corpus(
        location,
        *_ranked(shards, schemas),
        skipped,
        _passed_over(listing),
        None if table is None else table.state,
    )


def _no_shards(location: Location, listing: Listing, table: TableSnapshot | None) -> SfRayError:
    """The error about a place, or a state of a table, where there is nothing to read."""
    if table is not None:
        return SfRayError(
            f"{table.name.public_name}: no rows: snapshot {table.snapshot} has no data files"
        )
    others = [*(file.relative for file in listing.files), *listing.left_out]
    there = f"{len(others)} other files, e.g. {others[0]}" if others else "no files"
    return SfRayError(
        f"{location.public_uri}: no shards found: expected {EXPECTED}; there are {there}"
    )


def _passed_over(listing: Listing) -> dict[str, str]:
    """What lies at the place of a corpus and is not read: relative path -> why."""
    reasons = {
        file.relative: why_not_read(file.relative)
        for file in listing.files
        if not file_type_of(file.relative)
    }
    return {name: why for name, why in reasons.items() if why} | listing.left_out


def passed_over_text(passed_over: Mapping[str, str]) -> str:
    """How many files and folders are not read, with an example and its reason."""
    name = min(passed_over)
    files = "1 file" if len(passed_over) == 1 else f"{len(passed_over):,} files"
    return f"passed over: {files}, e.g. {printable(name)}: {passed_over[name]}"


def _refuse_several_file_types(location: Location, files: list[File]) -> None:
    # Reversed, so that the first file of each type is the example.
    examples = {file_type_of(file.relative): file.relative for file in reversed(files)}
    if len(examples) == 1:
        return
    there = " and ".join(f"{file_type} ({name})" for file_type, name in sorted(examples.items()))
    narrower = "a narrower one"
    if not has_wildcard(location):
        narrower = f"{location.public_uri}/**/*{suffix_of(files[0].relative)}"
    raise SfRayError(
        f"{location.public_uri} holds shards of several kinds: {there}; a corpus has one kind: "
        f"choose with a glob, e.g. {narrower}"
    )


def _read_footers(
    location: Location, files: list[File], known: Mapping[str, Footer]
) -> tuple[dict[File, Footer], dict[str, str]]:
    """Reads the footers that are not known.

    Returns:
        The footers of the usable files, in the order of `files`; and relative path -> what is
        wrong, for the other files.
    """
    unusable = {file: why for file in files if (why := why_unusable(location, file.relative))}
    bad = {as_text(file.relative): why for file, why in unusable.items()}

    def read(file: File) -> Footer | None:
        try:
            return read_footer(location, file)
        except BadShardError as error:
            bad[file.relative] = error.reason
            return None

    footers = {file: known.get(shard_id(file)) for file in files if file not in unusable}
    new = [file for file, footer in footers.items() if footer is None]
    with ThreadPoolExecutor(_FOOTER_THREADS) as threads:
        footers.update(zip(new, threads.map(read, new), strict=True))
    return {file: footer for file, footer in footers.items() if footer is not None}, bad


def _distinct(footers: Iterable[Footer]) -> tuple[list[pa.Schema], dict[int, int]]:
    """The distinct schemas of some footers, and the index of each footer's schema object in them.

    Metadata makes no difference: pandas, for one, writes the number of rows there.
    """
    numbers: dict[str, int] = {}
    number_of: dict[int, int] = {}  # by identity, because known footers share schema objects
    schemas: list[pa.Schema] = []
    for footer in footers:
        if id(footer.schema) in number_of:
            continue
        text = footer.schema.to_string(show_field_metadata=False, show_schema_metadata=False)
        if text not in numbers:
            numbers[text] = len(schemas)
            schemas.append(footer.schema)
        number_of[id(footer.schema)] = numbers[text]
    return schemas, number_of


def _ranked(
    shards: Sequence[Shard], schemas: Sequence[pa.Schema]
) -> tuple[tuple[Shard, ...], tuple[pa.Schema, ...]]:
    """The shards with new indices of their schemas, which come out by how many shards have them.

    A shard without rows does not count, and a schema without shards is left out. Of schemas that
    are equally common, the one that comes first stays first.
    """
    count = Counter({shard.schema: 0 for shard in shards})
    count.update(shard.schema for shard in shards if shard.rows)
    order = [number for number, _ in count.most_common()] or [0]
    new = {number: index for index, number in enumerate(order)}
    return (
        tuple(replace(shard, schema=new[shard.schema]) for shard in shards),
        tuple(schemas[number] for number in order),
    )


def bad_shards(location: Location, bad: Mapping[str, str], of: int, skip_bad: bool) -> SfRayError:
    """The error about shards that cannot be used.

    Args:
        location: The corpus.
        bad: Relative path -> what is wrong with the shard; at least one.
        of: All shards of the corpus.
        skip_bad: Bad shards were to be left out, but these are too many for that.
    """
    if len(bad) == 1 and not skip_bad:
        return BadShardError(*next(iter(bad.items())))
    lines = [f"  {printable(name)}: {reason}" for name, reason in sorted(bad.items())]
    if len(lines) > _BAD_SHARDS_SHOWN:
        lines[_BAD_SHARDS_SHOWN:] = [f"  and {len(lines) - _BAD_SHARDS_SHOWN} more"]
    rest = "" if skip_bad else ", or go on without them with --on-bad-shard skip"
    return SfRayError(
        f"{location.public_uri}: {len(bad)} of {of} shards cannot be used; write them again or "
        f"take them out of the corpus{rest}:\n" + "\n".join(lines)
    )
