"""What there is to do: the shards of a corpus, and which of them can be used. No Ray, no model."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import pyarrow as pa

from sf_ray.corpus.readers.file_types import EXPECTED, FileType, file_type_of, suffix_of
from sf_ray.corpus.readers.shard import read_footer
from sf_ray.corpus.units import Footer, Shard, shard_id
from sf_ray.errors import BadShardError, SfRayError
from sf_ray.storage.files import File, has_wildcard, list_files
from sf_ray.storage.location import Location

_FOOTER_THREADS = 32
_BAD_SHARDS_SHOWN = 5


@dataclass(frozen=True)
class SkippedShard:
    """A shard that is not used, and why."""

    relative: str
    reason: str


@dataclass(frozen=True)
class Corpus:
    """The shards of a corpus, sorted by relative path, and their common schema and kind."""

    location: Location
    shards: tuple[Shard, ...]
    schema: pa.Schema
    skipped: tuple[SkippedShard, ...] = ()

    @property
    def file_type(self) -> FileType:
        """What all of its shards are written in."""
        file_type = file_type_of(self.shards[0].file.relative)
        assert file_type is not None, "planning took it for a shard"
        return file_type

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
                left.append(replace(shard, position=position))
                position += shard.rows
        skipped.sort(key=lambda one: one.relative)
        return Corpus(self.location, tuple(left), self.schema, tuple(skipped))


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
    found = [file for file in files if file_type_of(file.relative)]
    if not found:
        there = f"{len(files)} other files, e.g. {files[0].relative}" if files else "no files"
        raise SfRayError(
            f"{location.public_uri}: no shards found: expected {EXPECTED}; there are {there}"
        )
    _refuse_several_kinds(location, found)
    bad: dict[str, str] = {}
    footers = _footers(location, found, known or {}, bad)
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
            shards.append(Shard(file, one.row_groups, position, one.starts))
            position += sum(one.row_groups)
    skipped = tuple(SkippedShard(name, reason) for name, reason in sorted(bad.items()))
    return Corpus(location, tuple(shards), schema, skipped)


def _refuse_several_kinds(location: Location, files: list[File]) -> None:
    examples = {file_type_of(file.relative): file.relative for file in reversed(files)}
    if len(examples) == 1:
        return
    there = " and ".join(f"{kind} ({name})" for kind, name in sorted(examples.items()))
    narrower = "a narrower one"
    if not has_wildcard(location):
        narrower = f"{location.public_uri}/**/*{suffix_of(files[0].relative)}"
    raise SfRayError(
        f"{location.public_uri} holds shards of several kinds: {there}; a corpus has one kind: "
        f"choose with a glob, e.g. {narrower}"
    )


def _footers(
    location: Location, files: list[File], known: Mapping[str, Footer], bad: dict[str, str]
) -> dict[File, Footer]:
    """The footers of the files that have one, in their order; what is wrong goes into `bad`."""

    def read(file: File) -> Footer | None:
        try:
            return read_footer(location, file)
        except BadShardError as error:
            bad[file.relative] = error.reason
            return None

    found = {file: known.get(shard_id(file)) for file in files}
    new = [file for file, footer in found.items() if footer is None]
    with ThreadPoolExecutor(_FOOTER_THREADS) as threads:
        found.update(zip(new, threads.map(read, new), strict=True))
    return {file: footer for file, footer in found.items() if footer is not None}


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


def top_level(columns: Iterable[str], names: Iterable[str]) -> list[str]:
    """The columns to read for `columns`, which may name a field inside one, as `data.messages`."""
    there = set(names)
    found = (name if name in there else name.partition(".")[0] for name in columns)
    return list(dict.fromkeys(found))


def check_text_columns(corpus: Corpus, columns: Iterable[str]) -> None:
    """Refuses a corpus whose columns can hold neither text nor what text may lie in.

    Of JSON only its rows can tell.

    Raises:
        SfRayError: Names the column and its type.
    """
    if corpus.file_type is FileType.JSON:
        return
    for name in top_level(columns, corpus.schema.names):
        kind = corpus.schema.field(name).type
        value = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not (
            pa.types.is_string(value)
            or pa.types.is_large_string(value)
            or pa.types.is_string_view(value)
            or pa.types.is_null(value)
            or pa.types.is_nested(value)
        ):
            raise SfRayError(
                f"column {name!r} of {corpus.shards[0].file.relative} has the type {kind}; "
                "expected text. Choose another with --columns, or convert it"
            )
