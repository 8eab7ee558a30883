"""Score sets that are written by hand: any rows, cut into any units."""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from sf_ray.corpus.plan_cache import keep_footers
from sf_ray.corpus.planning import Corpus
from sf_ray.corpus.units import Shard, Unit, units_of
from sf_ray.scoring.score_set import ScoreSet, describe, score_set_of
from sf_ray.scoring.score_table import SCORE_ENCODING
from sf_ray.storage.files import put_table
from sf_ray.storage.listing import File
from sf_ray.storage.location import Location

# (status, direct perplexity, conditioned perplexity) of a row.
Row = tuple[str, float, float]
Rows = Mapping[str, Sequence[Row]]

ENCODING = {"compression": SCORE_ENCODING["compression"]}


def identity(**changes: Any) -> dict[str, Any]:
    decided = {"model": "m", "alignment": "reference", "max_length": 128, "dtype": "float32"}
    return decided | {"unit_rows": 4} | changes


def shard_of(name: str, rows: int, version: str = "1") -> Shard:
    return Shard(File(f"/{name}", name, rows, version), (rows,), 0)


def table_of(rows: Sequence[Row], unit: Unit, shard: str = "") -> pa.Table:
    of_unit = rows[unit.start : unit.stop]
    ok = [status == "ok" for status, _, _ in of_unit]
    columns = {
        "ppl_direct": [direct for _, direct, _ in of_unit],
        "ppl_conditioned": [conditioned for _, _, conditioned in of_unit],
        "ifd": [conditioned / direct for _, direct, conditioned in of_unit],
    }
    return pa.table(
        {
            "shard": [shard] * len(of_unit),
            "row": np.arange(unit.start, unit.stop),
            "status": [status for status, _, _ in of_unit],
        }
        | {
            name: pa.array([v if is_ok else None for v, is_ok in zip(column, ok, strict=True)],
                           pa.float64())
            for name, column in columns.items()
        }
    )  # fmt: skip


def write_set(
    place: Location, rows: Rows, units: Mapping[str, Sequence[Unit]], **changes: Any
) -> ScoreSet:
    score_set = score_set_of(place, identity(**changes))
    describe(score_set, f"model {changes.get('model', 'm')}")
    for name, of_shard in units.items():
        shard = shard_of(name, len(rows[name]))
        for unit in of_shard:
            where = score_set.pieces.join(shard.piece(unit))
            put_table(where, table_of(rows[name], unit), ENCODING)
    return score_set


def whole(rows: Rows) -> dict[str, list[Unit]]:
    return {name: units_of((len(of_it),), 4) for name, of_it in rows.items()}


def somewhere() -> Location:
    return Location(f"memory://{uuid.uuid4().hex}")


def random_rows(count: int, seed: int) -> list[Row]:
    rng = np.random.default_rng(seed)
    return [("ok", *rng.uniform(1, 5, 2).tolist()) for _ in range(count)]


def two_sets(count: int = 40, **changes: Any) -> tuple[ScoreSet, ScoreSet]:
    rows = [{"x.parquet": random_rows(count, seed)} for seed in (1, 2)]
    a, b = somewhere(), somewhere()
    return (
        write_set(a, rows[0], whole(rows[0]), model="a"),
        write_set(b, rows[1], whole(rows[1]), model="b", **changes),
    )


def keep_footers_of(score_set: ScoreSet, *shards: Shard) -> None:
    corpus = Corpus(somewhere(), shards, (pa.schema([]),))
    keep_footers(score_set.location, corpus, {})
