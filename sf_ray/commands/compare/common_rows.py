"""Which rows two score sets have in common, as the names of their pieces tell. Opens no piece.

Rows are the same by shard and row number within the same version of a shard; the units in which the
two sides were scored may be cut in different places.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sf_ray.corpus.plan_cache import read_footers
from sf_ray.corpus.readers.file_types import file_type_of
from sf_ray.corpus.units import Unit, units_of
from sf_ray.errors import SfRayError
from sf_ray.scoring.score_set import SAMPLE, ScoreSet, model_name
from sf_ray.storage.files import list_files

_PIECE = re.compile(r"(?P<name>.+)\.(?P<id>[0-9a-f]{12})\.(?P<start>\d+)-(?P<stop>\d+)\.parquet")


@dataclass(frozen=True, order=True)
class ShardVersion:
    """A shard as it was scored: its relative path, and the id of its content."""

    relative: str
    shard_id: str


@dataclass(frozen=True)
class Side:
    """One of the two score sets.

    Attributes:
        score_set: Where its scores are, and what decided them.
        model: Its name, as it was scored.
        units: The units that have scores, in order.
        missing: How many of the last run's corpus have none; None where nothing tells.
    """

    score_set: ScoreSet
    model: str
    units: Mapping[ShardVersion, Sequence[Unit]]
    missing: int | None

    @property
    def rows(self) -> int:
        """Rows that have a score row."""
        return sum(unit.rows for units in self.units.values() for unit in units)

    def piece(self, shard: ShardVersion, unit: Unit) -> str:
        """Name of a unit's piece."""
        return f"{shard.relative.removesuffix('.parquet')}.{shard.shard_id}{unit.suffix}"


def side_of(score_set: ScoreSet) -> Side:
    """Which units of a set have scores, from one listing.

    Of a shard that was scored in several versions, the one that the last run saw counts.

    Raises:
        SfRayError: There are no scores, or two pieces hold the same rows.
    """
    found: dict[ShardVersion, list[Unit]] = {}
    for file in list_files(score_set.pieces, ".parquet"):
        piece = _PIECE.fullmatch(file.relative)
        if piece and file.size:
            relative = piece["name"] if file_type_of(piece["name"]) else f"{piece['name']}.parquet"
            shard = ShardVersion(relative, piece["id"])
            found.setdefault(shard, []).append(Unit(int(piece["start"]), int(piece["stop"])))
    if not found:
        raise SfRayError(
            f"{score_set.pieces.public_uri}: no score pieces there; make some with `sf-ray score`"
        )
    footers = read_footers(score_set.location)
    current = {shard.relative for shard in found if shard.shard_id in footers}
    units = {
        shard: sorted(found[shard], key=lambda unit: unit.start)
        for shard in sorted(found)
        if shard.shard_id in footers or shard.relative not in current
    }
    missing = None
    if footers and SAMPLE not in score_set.identity:
        there = {(shard.shard_id, unit) for shard, of_it in found.items() for unit in of_it}
        bad = score_set.bad_shards()
        missing = sum(
            (shard_id, unit) not in there
            for shard_id, footer in footers.items()
            if shard_id not in bad
            for unit in units_of(footer.row_groups, score_set.identity["unit_rows"])
        )
    side = Side(score_set, model_name(score_set), units, missing)
    _refuse_repeats(side)
    return side


# Of a shard: rows [start, stop) that both sides have, and the unit of each side that holds them.
Block = tuple[ShardVersion, Unit, Unit, int, int]


def common_blocks(a: Side, b: Side) -> list[Block]:
    """The common rows, in the order of the corpus, cut wherever either side is cut."""
    blocks: list[Block] = []
    for shard in sorted(a.units.keys() & b.units.keys()):
        units_a, units_b = a.units[shard], b.units[shard]
        at_a = at_b = 0
        while at_a < len(units_a) and at_b < len(units_b):
            one, other = units_a[at_a], units_b[at_b]
            start, stop = max(one.start, other.start), min(one.stop, other.stop)
            if start < stop:
                blocks.append((shard, one, other, start, stop))
            at_a += one.stop <= other.stop
            at_b += other.stop <= one.stop
    return blocks


def refuse_incomplete(name: str, side: Side) -> None:
    """Refuses a side, "A" or "B", whose last run has not scored all of its corpus.

    Raises:
        SfRayError: Says how many units it lacks, and how to get them.
    """
    if side.missing:
        raise SfRayError(
            f"SCORES_{name} {side.score_set.pieces.public_uri} (model {side.model}) is not "
            f"complete, units of its corpus without scores: {side.missing:,}; finish it with "
            "`sf-ray score`, or compare what is there with --partial"
        )


def _refuse_repeats(side: Side) -> None:
    for shard, units in side.units.items():
        for one, other in itertools.pairwise(units):
            if other.start < one.stop:
                raise SfRayError(
                    f"{side.score_set.pieces.public_uri}: {side.piece(shard, one)} and "
                    f"{side.piece(shard, other)} hold the same rows; delete both and score again"
                )


def no_common_rows(a: Side, b: Side) -> SfRayError:
    """Why two sides have no rows in common."""
    of_a, of_b = ({shard.relative for shard in side.units} for side in (a, b))
    where = f"{a.score_set.pieces.public_uri} and {b.score_set.pieces.public_uri}"
    if common := sorted(of_a & of_b):
        return SfRayError(
            f"{where} have no common rows: shard {common[0]} was scored in other versions or in "
            "other rows; score the same corpus with both models"
        )
    return SfRayError(
        f"{where} have no common rows: they are of different corpora, with shards such as "
        f"{min(of_a)} and {min(of_b)}; score the same corpus with both models"
    )
