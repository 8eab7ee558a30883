"""Two score sets of one corpus, joined row by row and compared. No Ray, no model.

Each piece is read once, in the order of the corpus. No more than `MOST_ROWS` rows are held: of more
common rows a sample is ranked.
"""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sf_ray.commands.compare.common_rows import (
    CommonBlock,
    common_blocks,
    no_common_rows,
    refuse_incomplete,
)
from sf_ray.commands.compare.consistency import (
    Agreement,
    Consistency,
    Floats,
    Mask,
    ScoreColumns,
    consistency_of,
    sampled,
)
from sf_ray.corpus.status import Status
from sf_ray.corpus.units import Unit
from sf_ray.scoring.pieces import read_unit_piece
from sf_ray.scoring.score_set import SAMPLE, ScoreSet
from sf_ray.scoring.stored_set import ShardVersion, StoredSet, stored_set_of
from sf_ray.storage.files import map_requests

# The most rows that are ranked at once; of more, a sample is ranked. Of so many, a correlation is
# known to 0.001, as finely as it is shown. The whole process takes 0.5 to 0.6 GiB with them.
MOST_ROWS = 2_000_000
_VALUES = ("ppl_direct", "ppl_conditioned", "ifd")


@dataclass(frozen=True)
class Comparison:
    """How two score sets of one corpus compare.

    Attributes:
        a, b: The two sets.
        rows: Rows that both sets have, whatever their status.
        statuses: (status in A, status in B) -> rows, where the two differ; most frequent first.
        is_sample: Whether the ranked rows are a sample of the common rows.
        ranked: Number of ranked rows.
        consistency: How alike the ranked rows are scored.
        agreement: On which side of 1 the IFD of all common rows lies.
        ifd_a, ifd_b: [ranked] in the order of the corpus; NaN unless a row is `ok`.
        notes: What people should know, e.g. options that differ between the sets.
    """

    a: StoredSet
    b: StoredSet
    rows: int
    statuses: Mapping[tuple[str, str], int]
    is_sample: bool
    ranked: int
    consistency: Consistency
    agreement: Agreement
    ifd_a: Floats
    ifd_b: Floats
    notes: tuple[str, ...]


def compare_sets(
    a: ScoreSet,
    b: ScoreSet,
    fractions: Sequence[float],
    max_ifd: float,
    is_partial: bool = False,
    most_rows: int = MOST_ROWS,
) -> Comparison:
    """Compares two score sets of one corpus.

    Args:
        a, b: The sets.
        fractions: Sizes of the selections to compare, as fractions of the common rows.
        max_ifd: Only rows with an IFD below this are selected.
        is_partial: Compare what there is, where a set is not complete.
        most_rows: About so many rows are ranked at most; of more, a sample is ranked.

    Raises:
        SfRayError: They have no common rows, one is not complete, or a piece cannot be read.
    """
    set_a, set_b = stored_set_of(a), stored_set_of(b)
    if not is_partial:
        refuse_incomplete("A", set_a)
        refuse_incomplete("B", set_b)
    blocks = common_blocks(set_a, set_b)
    rows = sum(block.rows for block in blocks)
    if not rows:
        raise no_common_rows(set_a, set_b)
    share = min(1.0, most_rows / rows)
    gathered_a, gathered_b = _GatheredColumns(), _GatheredColumns()
    statuses: Counter[tuple[str, str]] = Counter()
    agreement = Agreement()
    rows_of_a = _rows_of_blocks(set_a, blocks, [(block.shard, block.unit_a) for block in blocks])
    rows_of_b = _rows_of_blocks(set_b, blocks, [(block.shard, block.unit_b) for block in blocks])
    for block, rows_a, rows_b in zip(blocks, rows_of_a, rows_of_b, strict=True):
        statuses += _differing_statuses(rows_a, rows_b)
        columns_a, columns_b = _score_columns(rows_a), _score_columns(rows_b)
        agreement += Agreement.of(columns_a.ifd, columns_b.ifd)
        ranked = _ranked_rows(block, share)
        gathered_a.add(columns_a, ranked)
        gathered_b.add(columns_b, ranked)
    scores_a, scores_b = gathered_a.concatenated(), gathered_b.concatenated()
    return Comparison(
        set_a,
        set_b,
        rows=rows,
        statuses=dict(statuses.most_common()),
        is_sample=share < 1,
        ranked=len(scores_a.ifd),
        consistency=consistency_of(scores_a, scores_b, fractions, max_ifd),
        agreement=agreement,
        ifd_a=scores_a.ifd,
        ifd_b=scores_b.ifd,
        notes=tuple(_notes(set_a, set_b)),
    )


class _GatheredColumns:
    """Score columns of one set, gathered block by block."""

    def __init__(self) -> None:
        self._parts: dict[str, list[Floats]] = {name: [] for name in _VALUES}

    def add(self, columns: ScoreColumns, rows: Mask | slice) -> None:
        """Adds the given rows of the columns."""
        for name, parts in self._parts.items():
            parts.append(getattr(columns, name)[rows])

    def concatenated(self) -> ScoreColumns:
        """The columns of all blocks; leaves nothing gathered."""
        return ScoreColumns(**{name: _concatenated(self._parts[name]) for name in _VALUES})


def _concatenated(parts: list[Floats]) -> Floats:
    """Joins the parts of a column, and lets go of them: no two columns are held twice at a time."""
    whole = np.concatenate(parts)
    parts.clear()
    return whole


def _rows_of_blocks(
    compared: StoredSet,
    blocks: Sequence[CommonBlock],
    places: Sequence[tuple[ShardVersion, Unit]],
) -> Iterator[pa.Table]:
    """The rows of each block in the pieces of one set, each of which is read once, ahead of need.

    Args:
        compared: The set.
        blocks: In order, so that the blocks of one piece follow each other.
        places: For each block, the shard and the unit of this set that hold its rows.
    """
    pieces = compared.score_set.pieces

    def read(place: tuple[ShardVersion, Unit]) -> pa.Table:
        _, unit = place
        piece = pieces.join(compared.piece(*place))
        return read_unit_piece(piece, unit, ["row", "status", *_VALUES]).combine_chunks()

    tables = map_requests(pieces, read, dict.fromkeys(places))
    blocks_by_place = itertools.groupby(zip(places, blocks, strict=True), lambda pair: pair[0])
    for table, ((_, unit), pairs) in zip(tables, blocks_by_place, strict=True):
        for _, block in pairs:
            yield table.slice(block.start - unit.start, block.rows)


def _ranked_rows(block: CommonBlock, share: float) -> Mask | slice:
    """The rows of a block that are ranked: all of them, or those that belong to the sample."""
    if share == 1:
        return slice(None)
    return sampled(block.shard.relative, np.arange(block.start, block.stop), share)


def _score_columns(table: pa.Table) -> ScoreColumns:
    """The scores of [n] rows; NaN unless a row is `ok`."""
    is_ok = pc.equal(table["status"], Status.OK.value).to_numpy()
    return ScoreColumns(
        **{name: np.where(is_ok, table[name].to_numpy(), np.nan) for name in _VALUES}
    )


def _differing_statuses(rows_a: pa.Table, rows_b: pa.Table) -> Counter[tuple[str, str]]:
    """(status in A, status in B) -> rows, of those rows where the two differ."""
    status_a, status_b = rows_a["status"], rows_b["status"]
    differ = pc.not_equal(status_a, status_b)
    if not pc.any(differ).as_py():
        return Counter()
    pairs = (status.filter(differ).to_pylist() for status in (status_a, status_b))
    return Counter(zip(*pairs, strict=True))


def _notes(a: StoredSet, b: StoredSet) -> Iterator[str]:
    if a.score_set.pieces == b.score_set.pieces:
        yield "both sides are the same scores"
    for name, compared in zip("AB", (a, b), strict=True):
        if compared.missing_units:
            yield f"units of {name} without scores, which are left out: {compared.missing_units:,}"
        elif compared.missing_units is None and SAMPLE not in compared.score_set.identity:
            yield f"nothing beside the scores of {name} tells whether they are complete"
    identity_a, identity_b = a.score_set.identity, b.score_set.identity
    for key in sorted(identity_a.keys() | identity_b.keys()):
        if key != "model" and identity_a.get(key) != identity_b.get(key):
            yield f"{key} differs: {identity_a.get(key)} and {identity_b.get(key)}"
