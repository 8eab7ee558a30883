"""Score pieces out; and the whole of the Ray Data job."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.data import Datasink

from sf_ray.corpus.bundles import unwrap_bundle, unwrap_unit
from sf_ray.encoding.specs import EncodingSpec
from sf_ray.runtime.actor_pool import ActorPool
from sf_ray.runtime.tasks import set_context, user_errors
from sf_ray.scoring.engine_spec import EngineSpec
from sf_ray.scoring.score_table import SCORE_ENCODING
from sf_ray.scoring.stages.actor import ScoreUnits
from sf_ray.scoring.stages.source import ScoringJob, UnitSource
from sf_ray.storage.files import put_table
from sf_ray.storage.location import Location

_PUT_THREADS = 4


class PieceSink(Datasink[None]):  # type: ignore[misc]
    """Puts each unit's scores whole under their final name; doing so twice changes nothing."""

    def __init__(self, pieces: Location) -> None:
        self._pieces = pieces

    def get_name(self) -> str:
        """Name of the operator in Ray's plan and dashboard."""
        return "Pieces"

    def write(self, blocks: Iterable[pa.Table], ctx: Any) -> None:
        """Writes every unit of every bundle, several at a time."""
        bundles = [block.slice(index, 1) for block in blocks for index in range(block.num_rows)]
        units = [unit for bundle in bundles for unit in unwrap_bundle(bundle)]
        with ThreadPoolExecutor(_PUT_THREADS) as threads:
            for _ in threads.map(self._put, units):
                pass

    def _put(self, unit: pa.Table) -> None:
        where = self._pieces.join(unit["piece"][0].as_py())
        put_table(where, unwrap_unit(unit), SCORE_ENCODING)


def scoring_dataset(
    job: ScoringJob, encode: EncodingSpec, engine: EngineSpec, pool: ActorPool, tally: Any
) -> ray.data.Dataset:
    """The lazy dataset of scored units."""
    set_context()
    return ray.data.read_datasource(
        UnitSource(job, encode),
        override_num_blocks=len(job.tasks),
        num_cpus=pool.for_reading,
    ).map_batches(ScoreUnits, fn_constructor_args=(engine, job.pieces, tally), **pool.of_bundles)


def write_pieces(scored: ray.data.Dataset, pieces: Location, write_cpus: float) -> None:
    """Runs the dataset and puts every unit's piece.

    Raises:
        ClusterError: Something was lost that Ray could not make good.
        SfRayError: What a task or an actor says is wrong.
    """
    with user_errors():
        scored.write_datasink(PieceSink(pieces), ray_remote_args={"num_cpus": write_cpus})
