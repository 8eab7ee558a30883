"""Which rows two score sets have in common, by the names of their pieces. Opens no piece.

Two rows are the same where shard, version of the shard and row number are the same. The two sets
may have been scored in units that are cut in different places.
"""

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sf_ray.corpus.plan_cache import read_footers
from sf_ray.corpus.readers.file_types import file_type_of
from sf_ray.corpus.units import Footer, Unit, units_of
from sf_ray.errors import SfRayError
from sf_ray.scoring.score_set import SAMPLE, ScoreSet, model_name
from sf_ray.storage.listing import list_files
from sf_ray.text.printable import printable

_PIECE = re.compile(
    r"(?P<name>.+)\.(?P<id>[0-9a-f]{12})\.(?P<start>\d+)-(?P<stop>\d+)\.parquet", re.DOTALL
)


@dataclass(frozen=True, order=True)
class ShardVersion:
    """A shard as it was scored: its path relative to the corpus, and the id of its content."""

    relative: str
    shard_id: str


@dataclass(frozen=True)
class ComparedSet:
    """One of the two score sets, A or B, and the rows that it has scores of.

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

    def piece(self, shard: ShardVersion, unit: Unit) -> str:
        """Name of a unit's piece."""
        return f"{shard.relative.removesuffix('.parquet')}.{shard.shard_id}{unit.suffix}"


def compared_set_of(score_set: ScoreSet) -> ComparedSet:
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
    compared = ComparedSet(score_set, model_name(score_set), units, missing)
    _refuse_repeats(compared)
    return compared


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
        for unit in units_of(footer.row_groups, score_set.identity["unit_rows"])
    )


def _refuse_repeats(compared: ComparedSet) -> None:
    for shard, units in compared.units.items():
        for unit, next_unit in itertools.pairwise(units):
            if next_unit.start < unit.stop:
                raise SfRayError(
                    f"{compared.score_set.pieces.public_uri}: {compared.piece(shard, unit)} and "
                    f"{compared.piece(shard, next_unit)} hold the same rows; delete both and score "
                    "again"
                )


class CommonBlock(NamedTuple):
    """Rows [start, stop) of a shard that both sets have, in one unit of each.

    Attributes:
        shard: The shard.
        unit_a, unit_b: The unit of A and the unit of B that hold the rows.
        start, stop: Row numbers in the shard.
    """

    shard: ShardVersion
    unit_a: Unit
    unit_b: Unit
    start: int
    stop: int

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.stop - self.start


def common_blocks(a: ComparedSet, b: ComparedSet) -> list[CommonBlock]:
    """The common rows, in the order of the corpus, cut wherever units of A or of B end."""
    blocks: list[CommonBlock] = []
    for shard in sorted(a.units.keys() & b.units.keys()):
        units_a, units_b = a.units[shard], b.units[shard]
        at_a = at_b = 0
        while at_a < len(units_a) and at_b < len(units_b):
            unit_a, unit_b = units_a[at_a], units_b[at_b]
            start, stop = max(unit_a.start, unit_b.start), min(unit_a.stop, unit_b.stop)
            if start < stop:
                blocks.append(CommonBlock(shard, unit_a, unit_b, start, stop))
            # The unit that ends first has no more rows in common with the other; both, if equal.
            at_a += unit_a.stop <= unit_b.stop
            at_b += unit_b.stop <= unit_a.stop
    return blocks


def refuse_incomplete(name: str, compared: ComparedSet) -> None:
    """Refuses a set whose last run has not scored all of its corpus.

    Args:
        name: "A" or "B".
        compared: The set.

    Raises:
        SfRayError: Says how many units have no scores, and how to get them.
    """
    if compared.missing_units:
        raise SfRayError(
            f"SCORES_{name} {compared.score_set.pieces.public_uri} "
            f"(model {printable(compared.model)}) is not complete, units of its corpus without "
            f"scores: {compared.missing_units:,}; finish it with `sf-ray score`, or "
            "compare what is there with --partial"
        )


def no_common_rows(a: ComparedSet, b: ComparedSet) -> SfRayError:
    """Makes the error that says why two sets have no rows in common."""
    shards_a, shards_b = ({shard.relative for shard in compared.units} for compared in (a, b))
    where = f"{a.score_set.pieces.public_uri} and {b.score_set.pieces.public_uri}"
    if common := sorted(shards_a & shards_b):
        return SfRayError(
            f"{where} have no common rows: shard {common[0]} was scored in other versions or in "
            "other rows; score the same corpus with both models"
        )
    return SfRayError(
        f"{where} have no common rows: they are of different corpora, with shards such as "
        f"{min(shards_a)} and {min(shards_b)}; score the same corpus with both models"
    )
