"""The last stage: CPU tasks of Ray put the scores of units as pieces, and say where they did."""

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pyarrow as pa
import ray
from ray.data import Datasink

from sf_ray.corpus.bundles import UnitRows, units_of_bundle
from sf_ray.errors import SfRayError
from sf_ray.scoring.score_set import ScoreSet, ShardUnits, files_of
from sf_ray.scoring.score_table import SCORE_ENCODING
from sf_ray.scoring.token_losses import DIFFERENCES, SIDECAR_ENCODING, sidecar_of
from sf_ray.storage.files import never_as_wanted, put_table, size_or_none
from sf_ray.storage.location import Location

# Pieces of one task that wait for storage together.
_PUT_THREADS = 4


class _Put(NamedTuple):
    """Names of the pieces that one task has put, and the address of its node."""

    pieces: list[str]
    node: str


class PieceSink(Datasink[_Put]):  # type: ignore[misc]
    """Puts the scores of each unit whole under their final name; doing so twice changes nothing.

    Attributes:
        nodes: On the driver, once all is written: name of a piece -> address of the node that
            wrote it.
    """

    def __init__(self, pieces: Location) -> None:
        self._pieces = pieces
        self.nodes: dict[str, str] = {}

    def get_name(self) -> str:
        """Name of the operator in Ray's plan and dashboard."""
        return "Pieces"

    def on_write_complete(self, write_result: Any) -> None:
        """Remembers who wrote what."""
        self.nodes = {
            piece: put.node for put in write_result.write_returns if put for piece in put.pieces
        }

    def write(self, blocks: Iterable[pa.Table], ctx: Any) -> _Put:
        """Puts every unit of every bundle, several at a time."""
        bundles = [block.slice(index, 1) for block in blocks for index in range(block.num_rows)]
        units = [unit for bundle in bundles for unit in units_of_bundle(bundle)]
        with ThreadPoolExecutor(_PUT_THREADS) as threads:
            for _ in threads.map(self._put, units):
                pass  # an error of a thread is raised when its result is taken
        return _Put([unit.piece for unit in units], ray.util.get_node_ip_address())

    def _put(self, unit: UnitRows) -> None:
        scores = unit.rows
        *beside, piece = files_of(self._pieces, unit.piece, DIFFERENCES in scores.column_names)
        for token_losses in beside:
            put_table(token_losses, sidecar_of(scores), SIDECAR_ENCODING)
            if size_or_none(piece):  # only its token losses were missing: no score changes
                return
            scores = scores.drop_columns(DIFFERENCES)
        put_table(piece, scores, SCORE_ENCODING)


def refuse_unseen(
    score_set: ScoreSet, left: ShardUnits, nodes: Mapping[str, str], token_losses: bool = False
) -> None:
    """Refuses to score units again whose pieces a task has written, and which are not there.

    Args:
        score_set: Where the pieces should be.
        left: The units that have no piece, by a listing.
        nodes: Name of a piece -> address of the node that says it wrote the piece.
        token_losses: Whether the units were to have token losses, which are written with a piece.

    Raises:
        SfRayError: Names such a piece and its node.
    """
    written = [
        piece for shard, units in left for unit in units if (piece := shard.piece(unit)) in nodes
    ]
    files = {
        where.path: (piece, where)
        for piece in written
        for where in files_of(score_set.pieces, piece, token_losses)
    }
    places = {path: where for path, (_, where) in files.items()}
    unseen = {files[path][0] for path in never_as_wanted(places, lambda _, size: size is not None)}
    if not unseen:
        return
    where = (
        "another run or program removes files there, or the storage lost them"
        if score_set.pieces.is_remote
        else "that node has a disk of its own there, or another program removes files. Give SCORES "
        "a bucket, or a file system that all nodes share"
    )
    piece = min(unseen)
    raise SfRayError(
        f"{score_set.pieces.public_uri}: some units have no scores: this machine does not see "
        f"{len(unseen):,} pieces that were written, e.g. {piece}, which node "
        f"{nodes[piece]} wrote: {where}"
    )
