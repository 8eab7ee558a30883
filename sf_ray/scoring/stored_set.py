"""A score set as it lies in its storage: which units have pieces, found without the corpus.

Whoever reads scores without their corpus reads them so. Opens no piece. No Ray, no model.
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from sf_ray.corpus.plan_cache import read_footers
from sf_ray.corpus.readers.file_types import file_type_of
from sf_ray.corpus.units import Footer, Unit, units_of
from sf_ray.errors import SfRayError
from sf_ray.scoring.score_set import SAMPLE, ScoreSet, model_name
from sf_ray.storage.listing import list_files

_PIECE = re.compile(
    r"(?P<name>.+)\.(?P<id>[0-9a-f]{12})\.(?P<start>\d+)-(?P<stop>\d+)\.parquet", re.DOTALL
)


@dataclass(frozen=True, order=True)
class ShardVersion:
    """A shard as it was scored: its path relative to the corpus, and the id of its content."""

    relative: str
    shard_id: str


@dataclass(frozen=True)
class StoredSet:
    """A score set, and the rows that it has scores of.

    Attributes:
        score_set: Where the scores are, and what decided them.
        model: Name of the model, as it was scored.
        units: Shard -> the units that have scores, in order.
        missing_units: Units of the corpus of the last run that have no scores; None where nothing
            beside the scores says what that corpus was.
    """

    score_set: ScoreSet
    model: str
    units: Mapping[ShardVersion, Sequence[Unit]]
    missing_units: int | None

    @property
    def rows(self) -> int:
        """Rows that have a row in the score table, whatever their status."""
        return sum(unit.rows for units in self.units.values() for unit in units)

    def places(self) -> Iterator[tuple[str, Unit]]:
        """Name and unit of each piece, in the order of the corpus."""
        for shard, units in self.units.items():
            for unit in units:
                yield self.piece(shard, unit), unit

    def piece(self, shard: ShardVersion, unit: Unit) -> str:
        """Name of a unit's piece."""
        return f"{shard.relative.removesuffix('.parquet')}.{shard.shard_id}{unit.suffix}"


def stored_set_of(score_set: ScoreSet) -> StoredSet:
    """Finds the units of a set that have scores, with one listing.

    Of a shard that was scored in several versions, only the version that the last run saw counts.

    Raises:
        SfRayError: There are no scores, or two pieces hold the same rows.
    """
    scored = _scored_units(score_set)
    if not scored:
        raise SfRayError(
            f"{score_set.pieces.public_uri}: no score pieces there; make some with `sf-ray score`"
        )
    footers = read_footers(score_set.location)
    seen_by_last_run = {shard.relative for shard in scored if shard.shard_id in footers}
    units = {
        shard: sorted(scored[shard], key=lambda unit: unit.start)
        for shard in sorted(scored)
        if shard.shard_id in footers or shard.relative not in seen_by_last_run
    }
    missing = None
    # A sample has pieces of a few segments: it is complete, though most units have none.
    if footers and SAMPLE not in score_set.identity:
        missing = _count_missing(score_set, footers, scored)
    stored = StoredSet(score_set, model_name(score_set), units, missing)
    _refuse_repeats(stored)
    return stored


def _scored_units(score_set: ScoreSet) -> dict[ShardVersion, list[Unit]]:
    """The units that have pieces, in no order, of every version of a shard."""
    units: dict[ShardVersion, list[Unit]] = {}
    for file in list_files(score_set.pieces, ".parquet"):
        piece = _PIECE.fullmatch(file.relative)
        if piece and file.size:
            # Names of pieces leave out the suffix of a shard if it is .parquet.
            relative = piece["name"] if file_type_of(piece["name"]) else f"{piece['name']}.parquet"
            shard = ShardVersion(relative, piece["id"])
            units.setdefault(shard, []).append(Unit(int(piece["start"]), int(piece["stop"])))
    return units


def _count_missing(
    score_set: ScoreSet,
    footers: Mapping[str, Footer],
    scored: Mapping[ShardVersion, Iterable[Unit]],
) -> int:
    """Counts the units of the last run's corpus, bad shards left out, that have no piece."""
    have_pieces = {(shard.shard_id, unit) for shard, units in scored.items() for unit in units}
    bad = score_set.bad_shards()
    return sum(
        (shard_id, unit) not in have_pieces
        for shard_id, footer in footers.items()
        if shard_id not in bad
        for unit in units_of(footer.row_groups, score_set.decided("unit_rows"))
    )


def _refuse_repeats(stored: StoredSet) -> None:
    for shard, units in stored.units.items():
        for unit, next_unit in itertools.pairwise(units):
            if next_unit.start < unit.stop:
                raise SfRayError(
                    f"{stored.score_set.pieces.public_uri}: {stored.piece(shard, unit)} and "
                    f"{stored.piece(shard, next_unit)} hold the same rows; delete both and score "
                    "again"
                )
