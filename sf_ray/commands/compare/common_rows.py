"""Which rows two score sets have in common, by the names of their pieces. Opens no piece.

Two rows are the same where shard, version of the shard and row number are the same. The two sets
may have been scored in units that are cut in different places.
"""

from typing import NamedTuple

from sf_ray.corpus.units import Unit
from sf_ray.errors import SfRayError
from sf_ray.scoring.stored_set import ShardVersion, StoredSet
from sf_ray.text.printable import printable


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


def common_blocks(a: StoredSet, b: StoredSet) -> list[CommonBlock]:
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


def refuse_incomplete(name: str, compared: StoredSet) -> None:
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


def no_common_rows(a: StoredSet, b: StoredSet) -> SfRayError:
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
