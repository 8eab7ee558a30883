"""The last stage: CPU tasks of Ray put the scores of units as pieces."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
from ray.data import Datasink

from sf_ray.corpus.bundles import UnitRows, units_of_bundle
from sf_ray.scoring.score_table import SCORE_ENCODING
from sf_ray.storage.files import put_table
from sf_ray.storage.location import Location

# Pieces of one task that wait for storage together.
_PUT_THREADS = 4


class PieceSink(Datasink[None]):  # type: ignore[misc]
    """Puts the scores of each unit whole under their final name; doing so twice changes nothing."""

    def __init__(self, pieces: Location) -> None:
        self._pieces = pieces

    def get_name(self) -> str:
        """Name of the operator in Ray's plan and dashboard."""
        return "Pieces"

    def write(self, blocks: Iterable[pa.Table], ctx: Any) -> None:
        """Puts every unit of every bundle, several at a time."""
        bundles = [block.slice(index, 1) for block in blocks for index in range(block.num_rows)]
        units = [unit for bundle in bundles for unit in units_of_bundle(bundle)]
        with ThreadPoolExecutor(_PUT_THREADS) as threads:
            for _ in threads.map(self._put, units):
                pass  # an error of a thread is raised when its result is taken

    def _put(self, unit: UnitRows) -> None:
        put_table(self._pieces.join(unit.piece), unit.rows, SCORE_ENCODING)
