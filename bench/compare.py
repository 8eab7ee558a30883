"""`sf-ray compare` on synthetic score sets against scipy on the same numbers in memory.

python bench/compare.py [--rows 1000000] [--unit-rows 2048] [--other-unit-rows 1500] [--repeat 3]

The two sets are cut into units at different rows. Scipy gets arrays; compare also lists, reads,
checks and joins the pieces. Peak memory is that of a process that does nothing but compare.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
from common import median_s
from scipy.stats import spearmanr

from sf_ray.commands.compare.consistency import Floats
from sf_ray.commands.compare.join import compare_sets
from sf_ray.corpus.units import Shard, units_of
from sf_ray.scoring.score_set import ScoreSet, describe, find_score_set, score_set_of
from sf_ray.scoring.score_table import SCORE_ENCODING, SCORE_SCHEMA
from sf_ray.storage.files import put_table
from sf_ray.storage.listing import File
from sf_ray.storage.location import Location

SHARD_ROWS = 100_000
FRACTIONS, MAX_IFD = (0.05, 0.1, 0.15), 1.0
# From /proc, because getrusage would count the peak of the process before its exec, too.
_IDLE = "import sf_ray.commands.compare.join; print(open('/proc/self/status').read())"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--unit-rows", type=int, default=2048)
    parser.add_argument("--other-unit-rows", type=int, default=1500)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only-compare", metavar="DIR")
    options = parser.parse_args()
    if options.only_compare:
        compare_sets(*sets_of(Path(options.only_compare)), FRACTIONS, MAX_IFD)
        print(Path("/proc/self/status").read_text(encoding="utf-8"))
        return
    rng = np.random.default_rng(0)
    easy = rng.normal(0, 0.3, options.rows)
    sides = [losses(rng, easy) for _ in range(2)]
    with tempfile.TemporaryDirectory() as folder:
        for name, side, unit_rows in zip(
            "ab", sides, (options.unit_rows, options.other_unit_rows), strict=True
        ):
            write_set(Location(f"{folder}/{name}"), name, side, unit_rows)
        a, b = sets_of(Path(folder))
        columns = [[np.exp(d), np.exp(c), np.exp(c - d)] for d, c in sides]
        times = median_s(
            options.repeat,
            {
                "compare": lambda: compare_sets(a, b, FRACTIONS, MAX_IFD),
                "scipy": lambda: [spearmanr(x, y) for x, y in zip(*columns, strict=True)],
            },
        )
        consistency = compare_sets(a, b, FRACTIONS, MAX_IFD).consistency
        peak_kb = peak_of(__file__, "--only-compare", folder)
        idle_kb = peak_of("-c", _IDLE)
    expected = spearmanr(columns[0][2], columns[1][2]).statistic
    print(f"{options.rows:,} rows, units of {options.unit_rows} and {options.other_unit_rows}")
    print(f"compare against scipy.stats.spearmanr of the three scores: "
          f"{times['compare'] / times['scipy']:.2f}x the time")  # fmt: skip
    print(f"rank correlation of IFD {consistency.ifd:.6f}, scipy {expected:.6f}")
    print(f"peak memory {peak_kb / 1024:,.0f} MiB, of that imports {idle_kb / 1024:,.0f} MiB")


def losses(rng: np.random.Generator, easy: Floats) -> tuple[Floats, Floats]:
    """[n] direct and conditioned losses of one model, in nats.

    `easy` [n] is what each prompt adds to the loss of its answer, the same for both models.
    """
    direct = rng.gamma(8, 0.25, len(easy))
    return direct, np.maximum(direct + easy - 0.4 + rng.normal(0, 0.2, len(easy)), 0.01)


def write_set(place: Location, model: str, side: tuple[Floats, Floats], unit_rows: int) -> None:
    score_set = score_set_of(place, {"model": model, "unit_rows": unit_rows})
    describe(score_set, model)
    for first in range(0, len(side[0]), SHARD_ROWS):
        direct, conditioned = (losses[first : first + SHARD_ROWS] for losses in side)
        name = f"{first // SHARD_ROWS:05d}.parquet"
        shard = Shard(File(f"/{name}", name, len(direct), "1"), (len(direct),), 0)
        for unit in units_of(shard.row_groups, unit_rows):
            rows = slice(unit.start, unit.stop)
            table = table_of(name, unit.start, direct[rows], conditioned[rows])
            put_table(score_set.pieces.join(shard.piece(unit)), table, SCORE_ENCODING)


def table_of(shard: str, start: int, direct: Floats, conditioned: Floats) -> pa.Table:
    rows = len(direct)
    values = {
        "shard": pa.repeat(pa.scalar(shard), rows),
        "row": np.arange(start, start + rows),
        "status": pa.repeat(pa.scalar("ok"), rows),
        "truncated": pa.repeat(pa.scalar(False), rows),
        "loss_direct": direct,
        "loss_conditioned": conditioned,
        "ppl_direct": np.exp(direct),
        "ppl_conditioned": np.exp(conditioned),
        "ifd": np.exp(conditioned - direct),
    }
    empty = {field.name: pa.nulls(rows, field.type) for field in SCORE_SCHEMA}
    return pa.table(empty | values, schema=SCORE_SCHEMA)


def sets_of(folder: Path) -> tuple[ScoreSet, ScoreSet]:
    a, b = (find_score_set(Location(str(folder / name)), None) for name in "ab")
    return a, b


def peak_of(*arguments: str) -> int:
    """Peak KiB of a Python process with these arguments, which prints its /proc/self/status."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)
    return int(re.search(r"VmHWM:\s+(\d+) kB", done.stdout)[1])


if __name__ == "__main__":
    main()
