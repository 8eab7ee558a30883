"""Scores of one identity: what decided them, where they lie, and which units have them."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sf_ray.corpus.formats import Format, resolve_format
from sf_ray.corpus.planning import Corpus
from sf_ray.corpus.units import Shard, Unit, units_of
from sf_ray.errors import SfRayError
from sf_ray.storage.files import list_files, put_bytes, read_bytes, read_bytes_or_none
from sf_ray.storage.location import Location

# Raised when the same tokens would get other scores; scores of another version are not reused.
_SCORING_VERSION = 2
# Says in an identity that some rows of a corpus were scored only, and which.
SAMPLE = "sample"
_BAD, _IDENTITY = "_bad", "identity.json"

ShardUnits = Sequence[tuple[Shard, Sequence[Unit]]]


@dataclass(frozen=True)
class ScoreSet:
    """The scores of one identity.

    Attributes:
        location: SCORES, which may hold several sets.
        scoring_id: Hash of the identity.
        identity: All that decides a score.
    """

    location: Location
    scoring_id: str
    identity: dict[str, Any]

    @property
    def pieces(self) -> Location:
        """Folder of this set's pieces."""
        return self.location.join(self.scoring_id)

    def units(self, corpus: Corpus) -> ShardUnits:
        """The units that this identity cuts a corpus into."""
        unit_rows = self.identity["unit_rows"]
        return [(shard, units_of(shard.row_groups, unit_rows)) for shard in corpus.shards]

    def missing(self, units: ShardUnits) -> ShardUnits:
        """The units without a piece, as one listing tells."""
        pieces = {file.relative for file in list_files(self.pieces) if file.size}
        missing = [
            (shard, [unit for unit in shard_units if shard.piece(unit) not in pieces])
            for shard, shard_units in units
        ]
        return [(shard, shard_units) for shard, shard_units in missing if shard_units]

    def bad_shards(self) -> dict[str, str]:
        """Shards that could not be read to their end: shard id -> what is wrong with it."""
        return bad_shards(self.pieces)


def bad_shards(pieces: Location) -> dict[str, str]:
    """Shards that are marked beside the pieces: shard id -> what is wrong with it."""
    folder = pieces.join(_BAD)
    marks = [file.relative for file in list_files(folder, ".json")]
    return {
        mark.rsplit(".", 2)[1]: json.loads(read_bytes(folder.join(mark)))["reason"]
        for mark in marks
    }


def mark_bad(pieces: Location, stem: str, reason: str) -> None:
    """Leaves word beside the pieces that a shard cannot be read to its end.

    Only runs with `--on-bad-shard skip` leave and read such marks; they hold for this version of
    the shard. Remove one to have the shard tried again.
    """
    mark = json.dumps({"reason": reason}, ensure_ascii=False).encode()
    put_bytes(pieces.join(f"{_BAD}/{stem}.json"), mark)


def count_units(units: ShardUnits) -> int:
    """Units of all shards."""
    return sum(len(shard_units) for _, shard_units in units)


def digest(value: object) -> str:
    """A short name for anything that JSON can say."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def score_set_of(location: Location, identity: dict[str, Any]) -> ScoreSet:
    """The set of an identity, below SCORES."""
    identity = {"scoring_version": _SCORING_VERSION, **identity}
    return ScoreSet(location, digest(identity), identity)


def describe(score_set: ScoreSet, model_name: str) -> None:
    """Leaves word of what a scoring id stands for beside its pieces."""
    described = {
        "scoring_id": score_set.scoring_id,
        "identity": score_set.identity,
        "model_name": model_name,
    }
    where = score_set.pieces.join(_IDENTITY)
    if read_bytes_or_none(where) is None:
        put_bytes(where, json.dumps(described, indent=2, ensure_ascii=False).encode())


def model_name(score_set: ScoreSet) -> str:
    """The name by which the model was given that made the scores."""
    name: str = json.loads(read_bytes(score_set.pieces.join(_IDENTITY)))["model_name"]
    return name


def find_score_set(
    location: Location, scoring_id: str | None, flag: str = "--scoring-id"
) -> ScoreSet:
    """An existing set.

    Args:
        location: SCORES, or the folder of one set in it.
        scoring_id: Which one; None where there is only one, or only one that is no sample.
        flag: The option that chooses one, as errors name it.

    Raises:
        SfRayError: There is none, or there are several and none was chosen.
    """
    found = {}
    for file in list_files(location, _IDENTITY):
        folder, _, name = file.relative.rpartition("/")
        if name == _IDENTITY:
            described = json.loads(read_bytes(location.join(file.relative)))
            found[described["scoring_id"]] = folder, described
    whole = [key for key, (_, value) in found.items() if SAMPLE not in value["identity"]]
    of_interest = whole or list(found)
    if scoring_id is None and len(of_interest) == 1:
        scoring_id = of_interest[0]
    if scoring_id is not None and scoring_id in found:
        folder, described = found[scoring_id]
        if folder != scoring_id:
            location = _above(location.join(folder), scoring_id)
        return ScoreSet(location, scoring_id, described["identity"])
    if not found:
        raise SfRayError(f"{location.public_uri}: no scores there; make some with `sf-ray score`")
    names = "\n".join(
        f"  {key}  {value['model_name']}, {value['identity']['dtype']}, "
        f"{value['identity']['alignment']}, max_length {value['identity']['max_length']}"
        + (f", {value['identity'][SAMPLE]['rows']:,} rows" if SAMPLE in value["identity"] else "")
        for key, (_, value) in sorted(found.items())
    )
    wanted = "holds several score sets" if scoring_id is None else f"has no scores {scoring_id!r}"
    raise SfRayError(f"{location.public_uri} {wanted}; choose one with {flag}:\n{names}")


def _above(folder: Location, scoring_id: str) -> Location:
    """SCORES, of the folder of one set in it.

    Raises:
        SfRayError: The folder has another name than the set.
    """
    path = folder.uri if folder.is_remote else folder.path  # which is absolute: "." has a name too
    above, _, name = path.rstrip("/").rpartition("/")
    if name != scoring_id:
        raise SfRayError(
            f"{folder.public_uri} holds the score set {scoring_id} under another name; rename the "
            f"folder to {scoring_id}"
        )
    return replace(folder, uri=above)


def _format_of(score_set: ScoreSet) -> Format:
    """The format that the rows had when they were scored."""
    identity = score_set.identity
    columns = identity["columns"]
    return resolve_format(list(columns.values()), identity["format"], columns)
