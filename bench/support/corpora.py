"""Small synthetic corpora, for benches and tests."""

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

WORDS = (
    "the a of to and in is it you that was for on are with as his they be at one have this from "
    "or had by hot word but what some we can out other were all there when up use your how said"
).split()


def make_rows(count: int, seed: int = 0) -> list[dict[str, str | None]]:
    """Alpaca rows of random words.

    Rows 7, 11, 13 and 17 have an empty answer, no answer, no instruction and no input.
    """
    rng = random.Random(seed)

    def text(low: int, high: int) -> str:
        return " ".join(rng.choices(WORDS, k=rng.randint(low, high)))

    rows: list[dict[str, str | None]] = [
        {
            "id": f"row-{number}",
            "instruction": text(1, 12),
            "input": text(1, 6) if number % 3 == 0 else "",
            "output": text(2, 20),
        }
        for number in range(count)
    ]
    for at, change in ((7, {"output": ""}), (11, {"output": None}), (13, {"instruction": None})):
        if at < count:
            rows[at] |= change
    if count > 17:
        rows[17]["input"] = None
    return rows


def write_shards(folder: Path, rows: list[dict[str, str | None]], shards: int = 3) -> Path:
    """Writes rows as Parquet shards below two folders, with row groups of 16 rows."""
    schema = pa.schema([(name, pa.string()) for name in ("id", "instruction", "input", "output")])
    size = -(-len(rows) // shards)
    for shard in range(shards):
        part = pa.Table.from_pylist(rows[shard * size : (shard + 1) * size], schema=schema)
        path = folder / ("train" if shard else "extra") / f"{shard:05d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(part, path, row_group_size=16)
    return folder
