"""Damages shards of every kind, and counts how a process ends that plans, reads and copies them.

python bench/mutants.py [--kind parquet] [--mutants 5000] [--seed 1] [--keep DIR]

Good ends are two: the file is read to its end, or refused by its name. Exits with 1 if a mutant
ended otherwise: by a signal, another exception, after a minute, or with over 1 GiB.
"""

import argparse
import sys
import time
from pathlib import Path

from support.mutants import KINDS, run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", choices=sorted(KINDS), action="append", help="Default: all.")
    parser.add_argument("--mutants", type=int, default=5000, help="of each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="folder for a mutant of each bad end")
    options = parser.parse_args()
    failed = False
    for kind in options.kind or KINDS:
        began = time.monotonic()
        ends = run(kind, options.mutants, options.seed)
        ways = ", ".join(f"{count} {way}" for way, count in ends.counts.most_common())
        print(
            f"{kind}: {ends.mutants} mutants in {time.monotonic() - began:.0f} s: {ways}; "
            f"slowest {ends.slowest_s:.1f} s, peak {ends.peak_bytes >> 20} MiB",
            flush=True,
        )
        failed |= bool(ends.problems)
        if options.keep:
            options.keep.mkdir(parents=True, exist_ok=True)
            for number, (way, data) in enumerate(ends.bad.items()):
                (options.keep / f"{kind}-{number}{KINDS[kind].suffix}").write_bytes(data)
                (options.keep / f"{kind}-{number}.txt").write_text(way)
    sys.exit(failed)


if __name__ == "__main__":
    main()
