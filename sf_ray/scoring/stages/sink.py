"""The last stage: CPU tasks of Ray put the scores of units as pieces, and say where they did."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import pyarrow as pa
import ray
from ray.data import Datasink

from sf_ray.corpus.bundles import UnitRows, units_of_bundle
from sf_ray.scoring.score_table import SCORE_ENCODING
from sf_ray.storage.files import put_table
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
        put_table(self._pieces.join(unit.piece), unit.rows, SCORE_ENCODING)
