"""Lists the shards of a corpus and decides which of them can be used.

Reads footers, but no rows. Knows no Ray and no model.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
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
from sf_ray.corpus.units import Footer, Shard, shard_id
from sf_ray.errors import BadShardError, SfRayError
from sf_ray.runtime.log import say
from sf_ray.storage.files import File, Listing, list_input
from sf_ray.storage.globs import has_wildcard
from sf_ray.storage.location import Location

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
            say(f"note: skipping shard {shard.relative}: {shard.reason}{then}", **fields)


@dataclass(frozen=True)
class Corpus:
    """The usable shards of a corpus, and what they have in common.

    Attributes:
        location: The directory, file or glob.
        shards: Sorted by relative path; all of one file type and one schema.
        schema: Columns and types of every shard.
        skipped: Shards that cannot be used, sorted by relative path.
        passed_over: What lies beside the shards: relative path -> why it is not read.
    """

    location: Location
    shards: tuple[Shard, ...]
    schema: pa.Schema
    skipped: SkippedShards = ()
    passed_over: Mapping[str, str] = field(default_factory=dict, hash=False)

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
        return replace(self, shards=tuple(left), skipped=tuple(skipped))


def plan_corpus(
    location: Location, known: Mapping[str, Footer] | None = None, skip_bad: bool = False
) -> Corpus:
    """Lists a corpus once and reads, in parallel, the footers that are not known yet.

    A shard cannot be used if its footer cannot be read, or if its schema is not the one that most
    shards have.

    Args:
        location: The corpus.
        known: Shard id -> footer, from an earlier run.
        skip_bad: Leave out shards that cannot be used, instead of failing.

    Raises:
        BadShardError: One shard cannot be used.
        SfRayError: There are no shards, shards of several file types, or several shards that cannot
            be used.
    """
    listing = list_input(location)
    shard_files = [file for file in listing.files if file_type_of(file.relative)]
    if not shard_files:
        others = [*(file.relative for file in listing.files), *listing.left_out]
        there = f"{len(others)} other files, e.g. {others[0]}" if others else "no files"
        raise SfRayError(
            f"{location.public_uri}: no shards found: expected {EXPECTED}; there are {there}"
        )
    _refuse_several_file_types(location, shard_files)
    footers, bad = _read_footers(location, shard_files, known or {})
    schema, example = _most_common_schema(footers)
    for file, footer in footers.items():
        # Known footers share one schema object; comparing objects first spares a slow comparison.
        if footer.schema is not schema and not footer.schema.equals(schema):
            bad[file.relative] = _difference(footer.schema, example, schema)
    if bad and (not skip_bad or len(bad) == len(shard_files)):
        raise _bad_shards(location, bad, len(shard_files), skip_bad)
    shards, position = [], 0
    for file, footer in footers.items():
        if file.relative not in bad:
            shards.append(Shard(file, footer.row_groups, position, footer.starts))
            position += sum(footer.row_groups)
    skipped = tuple(SkippedShard(name, reason) for name, reason in sorted(bad.items()))
    return Corpus(location, tuple(shards), schema, skipped, _passed_over(listing))


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
    return f"passed over: {files}, e.g. {name}: {passed_over[name]}"


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
    bad: dict[str, str] = {}

    def read(file: File) -> Footer | None:
        try:
            return read_footer(location, file)
        except BadShardError as error:
            bad[file.relative] = error.reason
            return None

    footers = {file: known.get(shard_id(file)) for file in files}
    new = [file for file, footer in footers.items() if footer is None]
    with ThreadPoolExecutor(_FOOTER_THREADS) as threads:
        footers.update(zip(new, threads.map(read, new), strict=True))
    return {file: footer for file, footer in footers.items() if footer is not None}, bad


def _most_common_schema(footers: Mapping[File, Footer]) -> tuple[pa.Schema, File | None]:
    """The schema that most shards have, and the first file that has it."""
    if not footers:
        return pa.schema([]), None
    text: dict[int, str] = {}  # by identity, because known footers share one schema object
    for footer in footers.values():
        if id(footer.schema) not in text:
            text[id(footer.schema)] = footer.schema.to_string(
                show_field_metadata=False, show_schema_metadata=False
            )
    most = Counter(text[id(footer.schema)] for footer in footers.values()).most_common(1)[0][0]
    example = next(file for file, footer in footers.items() if text[id(footer.schema)] == most)
    return footers[example].schema, example


def _difference(schema: pa.Schema, example: File | None, common: pa.Schema) -> str:
    """Says how the schema of a bad shard differs from the common one, which `example` has."""

    def types(schema: pa.Schema) -> dict[str, str]:
        return {field.name: str(field.type) for field in schema}

    mine, theirs = types(schema), types(common)
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


def top_level(columns: Iterable[str], names: Iterable[str]) -> list[str]:
    """The top-level columns that hold `columns`, each once.

    Args:
        columns: Columns, or fields inside a nested column, e.g. `data.messages`.
        names: The top-level columns of the shard. A name with a dot may be one of them.
    """
    existing = set(names)
    tops = (name if name in existing else name.partition(".")[0] for name in columns)
    return list(dict.fromkeys(tops))


def check_text_columns(
    corpus: Corpus, columns: Iterable[str], optional: Iterable[str] = ()
) -> None:
    """Refuses a corpus with a column that can hold no text, at any depth of nesting.

    Accepts every JSON corpus: JSON has no column types, only the values of a row have one.

    Args:
        corpus: The corpus.
        columns: Columns that must hold text.
        optional: Columns that hold text or nothing: pandas leaves a column of NaN for no text.

    Raises:
        SfRayError: A column has another type; the error names both.
    """
    if corpus.file_type is FileType.JSON:
        return
    may_be_empty = top_level(optional, corpus.schema.names)
    for name in top_level([*columns, *may_be_empty], corpus.schema.names):
        column_type = corpus.schema.field(name).type
        is_empty = name in may_be_empty and pa.types.is_floating(column_type)
        if not (_may_hold_text(column_type) or is_empty):
            raise SfRayError(
                f"column {name!r} of {corpus.shards[0].file.relative} has the type {column_type}; "
                "expected text. Choose another with --columns, or convert it"
            )


def _may_hold_text(column_type: pa.DataType) -> bool:
    if isinstance(column_type, pa.BaseExtensionType):  # e.g. arrow.json
        return _may_hold_text(column_type.storage_type)
    if pa.types.is_dictionary(column_type) or pa.types.is_run_end_encoded(column_type):
        return _may_hold_text(column_type.value_type)
    return bool(
        pa.types.is_string(column_type)
        or pa.types.is_large_string(column_type)
        or pa.types.is_string_view(column_type)
        or pa.types.is_null(column_type)
        or pa.types.is_nested(column_type)
    )
