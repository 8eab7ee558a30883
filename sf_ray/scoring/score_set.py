"""A score set: the scores of one identity, where they lie, and which units have them.

    SCORES/<scoring id>/identity.json                        what decided the scores
    SCORES/<scoring id>/<shard>.<shard id>.<rows>.parquet    the piece of a unit
    SCORES/<scoring id>/_token-losses/<as the piece>         its token losses, if asked for
    SCORES/<scoring id>/_bad/<shard>.<shard id>.json         a shard that cannot be read to its end

Knows the names of pieces, not what is in them. No Ray, no model.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    NonNegativeInt,
    PositiveInt,
    StringConstraints,
    ValidationError,
)

from sf_ray.corpus.formats import Format, resolve_format
from sf_ray.corpus.planning import Corpus
from sf_ray.corpus.units import ReadPlan, Shard, Unit, units_of
from sf_ray.errors import BadShardError, SfRayError
from sf_ray.storage.files import put_bytes, read_bytes_or_none
from sf_ray.storage.json_files import read_json
from sf_ray.storage.listing import list_files
from sf_ray.storage.location import Location
from sf_ray.text.printable import printable, printable_json

# A higher number where the same tokens would get other scores: scores of another version have
# another identity, and are not reused.
_SCORING_VERSION = 2
# The key of an identity that says that only a sample of the corpus was scored, and which rows.
SAMPLE = "sample"
# The key of an identity that says which rows have scores of another type than all others.
EXACT = "exact"
_BAD, _IDENTITY, _TOKEN_LOSSES = "_bad", "identity.json", "_token-losses"
# `<shard>.<shard id>.json`
_MARK = re.compile(r".+\.(?P<shard_id>[^./]+)\.json", re.DOTALL)
# Bytes that a description or a mark may have; ours have about a thousand.
_MOST_BYTES = 1 << 20

_ADVICE = (
    "the scores beside it cannot be told apart without it: bring it back, or move the folder away "
    "and score again"
)
# A name of a folder, which leads nowhere else.
ScoringId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][\w-]*$", max_length=100)]

ShardUnits = Sequence[tuple[Shard, Sequence[Unit]]]


@dataclass(frozen=True)
class ScoreSet:
    """The scores of one identity.

    Attributes:
        location: SCORES, which may hold several sets.
        scoring_id: Hash of the identity.
        identity: Everything that decides a score.
    """

    location: Location
    scoring_id: str
    identity: dict[str, Any]

    @property
    def pieces(self) -> Location:
        """The folder of the pieces."""
        return self.location.join(self.scoring_id)

    @property
    def marks(self) -> Location:
        """The folder beside whose pieces bad shards are marked.

        A set that is made of another one has its marks there: the next run begins with that one.
        """
        made_of = self.identity.get(EXACT) or self.identity.get(SAMPLE) or {}
        return self.location.join(made_of.get("of") or self.scoring_id)

    def units(self, corpus: Corpus) -> ShardUnits:
        """The units of a corpus, cut as the identity says."""
        unit_rows = self.decided("unit_rows")
        return [(shard, units_of(shard.row_groups, unit_rows)) for shard in corpus.shards]

    def decided(self, key: str) -> Any:
        """A value of the identity.

        Raises:
            SfRayError: The identity, which somebody else wrote, says nothing of it.
        """
        value = self.identity.get(key)
        if value is None:
            where = self.pieces.join(_IDENTITY).public_uri
            raise SfRayError(f"{where}: says nothing of {key}; {_ADVICE}")
        return value

    def missing(self, units: ShardUnits, token_losses: bool = False) -> ShardUnits:
        """The units without a piece, by one listing of the folder.

        Args:
            units: Some units.
            token_losses: Units without token losses are missing too, by one more listing.
        """
        pieces = _names(self.pieces)
        if token_losses:
            pieces &= _names(token_losses_of(self.pieces))
        missing = [
            (shard, [unit for unit in shard_units if shard.piece(unit) not in pieces])
            for shard, shard_units in units
        ]
        return [(shard, shard_units) for shard, shard_units in missing if shard_units]

    def bad_shards(self) -> dict[str, str]:
        """Shards that are marked bad: shard id -> what is wrong with the shard."""
        return bad_shards(self.marks)


def token_losses_of(pieces: Location) -> Location:
    """The folder of the token losses that belong to pieces; names are those of the pieces."""
    return pieces.join(_TOKEN_LOSSES)


def files_of(pieces: Location, piece: str, token_losses: bool) -> list[Location]:
    """All files of a unit, in the order in which they are put: the piece says that all are there.

    Args:
        pieces: The folder of the pieces.
        piece: Name of the unit's piece.
        token_losses: Whether there are token losses beside it.
    """
    beside = [token_losses_of(pieces).join(piece)] if token_losses else []
    return [*beside, pieces.join(piece)]


def _names(folder: Location) -> set[str]:
    # An empty file is no piece: a piece has at least its footer.
    return {file.relative for file in list_files(folder) if file.size}


def bad_shards(pieces: Location) -> dict[str, str]:
    """Shards that are marked bad beside the pieces: shard id -> what is wrong with the shard."""
    folder = pieces.join(_BAD)
    marks = [
        mark for file in list_files(folder, ".json") if (mark := _MARK.fullmatch(file.relative))
    ]
    return {mark["shard_id"]: _reason(folder.join(mark.string)) for mark in marks}


def _reason(mark: Location) -> str:
    """What is wrong with the shard that is marked.

    Raises:
        SfRayError: The mark is not one that a run of ours wrote.
    """
    advice = "remove it: the next run tries the shard again"
    described = read_json(mark, _MOST_BYTES, advice)
    reason = described.get("reason") if isinstance(described, dict) else None
    if not isinstance(reason, str):
        raise SfRayError(f"{mark.public_uri}: no mark of a bad shard; {advice}")
    return reason


def mark_bad(pieces: Location, stem: str, reason: str) -> None:
    """Marks beside the pieces that a shard cannot be read to its end.

    Only runs with `--on-bad-shard skip` write and read marks. A mark holds for one version of the
    shard; a run tries the shard again once the mark is removed.

    Args:
        pieces: The folder of the pieces.
        stem: `Shard.stem`.
        reason: What is wrong with the shard.
    """
    mark = printable_json(json.dumps({"reason": reason}, ensure_ascii=False)).encode()
    put_bytes(pieces.join(f"{_BAD}/{stem}.json"), mark)


@contextmanager
def or_mark(pieces: Location, skip_bad: bool, shards: Iterable[Shard | ReadPlan]) -> Iterator[None]:
    """Marks a shard that turns out to be bad, and ends the block without an error.

    Args:
        pieces: The folder of the pieces, where the mark goes.
        skip_bad: False: the error is raised, and nothing is marked.
        shards: The shards that the block reads.

    Raises:
        BadShardError: A shard is bad, and bad shards are not to be skipped.
    """
    try:
        yield
    except BadShardError as error:
        if not skip_bad:
            raise
        shard = next(shard for shard in shards if shard.file.relative == error.shard)
        mark_bad(pieces, shard.stem, error.reason)


def count_units(units: ShardUnits) -> int:
    """The number of units of all shards."""
    return sum(len(shard_units) for _, shard_units in units)


def digest(value: object) -> str:
    """A short hash of any value that JSON can hold; equal values have equal hashes."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def score_set_of(location: Location, identity: dict[str, Any]) -> ScoreSet:
    """The set of an identity.

    Args:
        location: SCORES.
        identity: Everything that decides a score, without the version of scoring itself.
    """
    identity = {"scoring_version": _SCORING_VERSION, **identity}
    return ScoreSet(location, digest(identity), identity)


def describe(score_set: ScoreSet, model_name: str) -> None:
    """Writes beside the pieces what the scoring id stands for, unless it is written there."""
    described = {
        "scoring_id": score_set.scoring_id,
        "identity": score_set.identity,
        "model_name": model_name,
    }
    where = score_set.pieces.join(_IDENTITY)
    if read_bytes_or_none(where) is None:
        text = json.dumps(described, indent=2, ensure_ascii=False)
        put_bytes(where, printable_json(text).encode())


def model_name(score_set: ScoreSet) -> str:
    """The name of the model that made the scores, as the first run of the set was given it."""
    return _described(score_set.pieces.join(_IDENTITY))[0].model_name


def format_of(score_set: ScoreSet) -> Format:
    """The format that the rows had when they were scored."""
    columns = score_set.decided("columns")
    return resolve_format(list(columns.values()), score_set.decided("format"), columns)


def find_score_set(
    location: Location, scoring_id: str | None, flag: str = "--scoring-id"
) -> ScoreSet:
    """A set that exists.

    Args:
        location: SCORES, or the folder of one set in SCORES.
        scoring_id: The id of the set; None chooses the only set, or the only one that neither is
            of a sample nor was mixed for one cut.
        flag: The option that chooses a set, as errors name it.

    Raises:
        SfRayError: No set is there, or several are and none was chosen.
    """
    sets = _described_sets(location)
    if scoring_id is None:
        whole = [key for key, found in sets.items() if not {SAMPLE, EXACT} & {*found.identity}]
        candidates = whole or list(sets)
        scoring_id = candidates[0] if len(candidates) == 1 else None
    if scoring_id is not None and scoring_id in sets:
        chosen = sets[scoring_id]
        if chosen.folder != scoring_id:
            location = _above(location.join(chosen.folder), scoring_id)
        return ScoreSet(location, scoring_id, chosen.identity)
    if not sets:
        raise SfRayError(f"{location.public_uri}: no scores there; make some with `sf-ray score`")
    names = "\n".join(f"  {key}  {sets[key].line}" for key in sorted(sets))
    problem = "holds several score sets" if scoring_id is None else f"has no scores {scoring_id!r}"
    raise SfRayError(f"{location.public_uri} {problem}; choose one with {flag}:\n{names}")


@dataclass(frozen=True)
class _DescribedSet:
    """A set as its `identity.json` describes it.

    Attributes:
        folder: Where that file lies, below the place that was searched.
        identity: Everything that decides a score.
        model_name: As `describe` wrote it.
    """

    folder: str
    identity: dict[str, Any]
    model_name: str

    @property
    def line(self) -> str:
        """One line by which a person tells the sets of a corpus apart."""
        identity = self.identity
        line = (
            f"{printable(self.model_name)}, {printable(identity['dtype'])}, "
            f"{printable(identity['alignment'])}, "
            f"max_length {identity['max_length']}"
        )
        if EXACT in identity:
            line += f", {identity[EXACT]['rows']:,} rows in {printable(identity[EXACT]['dtype'])}"
        return line + f", {identity[SAMPLE]['rows']:,} rows" if SAMPLE in identity else line


def _described_sets(location: Location) -> dict[str, _DescribedSet]:
    """The sets below a place, by scoring id."""
    sets = {}
    for file in list_files(location, _IDENTITY):
        folder, _, name = file.relative.rpartition("/")
        if name == _IDENTITY:
            found, identity = _described(location.join(file.relative))
            sets[found.scoring_id] = _DescribedSet(folder, identity, found.model_name)
    return sets


def _described(where: Location) -> tuple["_Description", dict[str, Any]]:
    """Reads what `describe` wrote: checked, and the identity as it stands there.

    Raises:
        SfRayError: It is not there, or is no description of a score set.
    """
    described = read_json(where, _MOST_BYTES, _ADVICE)
    try:
        return _Description.model_validate(described, strict=True), described["identity"]
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise SfRayError(
            f"{where.public_uri}: describes no score set ({key or 'all of it'}: {first['msg']}); "
            f"{_ADVICE}"
        ) from None


class _MadeOf(BaseModel):
    """How a set was made of another one: what identities keep by `SAMPLE` and `EXACT`."""

    model_config = ConfigDict(extra="allow")

    of: ScoringId | None = None  # a sample of a corpus is made of no other set
    rows: NonNegativeInt


class _MixedOf(_MadeOf):
    dtype: str


class _Identity(BaseModel):
    """The keys of an identity that are used here; others may follow."""

    model_config = ConfigDict(extra="allow")

    dtype: str
    alignment: str
    max_length: NonNegativeInt
    format: str | None = None
    columns: dict[str, str] | None = None
    unit_rows: PositiveInt | None = None
    sample: _MadeOf | None = None
    exact: _MixedOf | None = None


class _Description(BaseModel):
    """The content of `identity.json`."""

    scoring_id: ScoringId
    identity: _Identity
    model_name: str


def _above(folder: Location, scoring_id: str) -> Location:
    """SCORES, which is one level above the folder of a set.

    Raises:
        SfRayError: The folder has another name than the set.
    """
    above, name = folder.above()
    if name != scoring_id:
        raise SfRayError(
            f"{folder.public_uri} holds the score set {scoring_id} under another name; rename the "
            f"folder to {scoring_id}"
        )
    return above
