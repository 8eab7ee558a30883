"""The whole scoring job on Ray against the bare engine on the same units, in one run.

python bench/pipeline.py [--corpus DIR] [--rows 250] [--model demo] [--unit-rows 50]

The job reads, encodes, scores and puts pieces, and pays for the start of its actors. The engine
has the same token ids in memory already. Both use all cores of this machine.
"""

import argparse
import os
import tempfile
from pathlib import Path
from time import perf_counter

import pyarrow.dataset as ds
import pyarrow.parquet as pq

from sf_ray import pipeline
from sf_ray.config import ScoreOptions
from sf_ray.demo import write_corpus
from sf_ray.encoding import Encoder
from sf_ray.engine import Engine
from sf_ray.formats import resolve_format
from sf_ray.locations import Location
from sf_ray.models import load_tokenizer, resolve_model
from sf_ray.planning import plan_corpus
from sf_ray.tables import encoded_table, sequences_of
from sf_ray.units import units_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", help="directory of Parquet shards; default: the demo's")
    parser.add_argument("--rows", type=int, default=250)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--unit-rows", type=int, default=50)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if options.corpus is None:
            write_corpus(root / "whole")
            options.corpus = str(root / "whole")
        table = ds.dataset(sorted(Path(options.corpus).rglob("*.parquet"))).head(options.rows)
        (root / "corpus").mkdir()
        pq.write_table(table, root / "corpus/0.parquet")

        engine_s = bare_engine(root / "corpus", options.model, options.unit_rows)
        job_s, commits = whole_job(root, options.model, options.unit_rows)
    # From the first commit to the last, the one actor scores all units but the first.
    first, last = min(commits, key=commits.__getitem__), max(commits.values())
    busy_s = last - commits[first]
    engine_busy_s = sum(engine_s.values()) - engine_s[first]
    print(f"{table.num_rows} rows in {len(commits)} units, {options.model}, CPU")
    print(f"bare engine / whole job: {sum(engine_s.values()) / job_s:.2f}")
    print(f"bare engine / job once its actors run: {engine_busy_s / busy_s:.2f}")


def bare_engine(corpus: Path, model: str, unit_rows: int) -> dict[str, float]:
    """Piece name -> seconds to score its unit, with the model loaded and the rows encoded."""
    resolved = resolve_model(model)
    encoder = Encoder(load_tokenizer(resolved), 1024)
    engine = Engine(resolved.path, threads=os.cpu_count())
    shard = plan_corpus(Location(str(corpus))).shards[0]
    table = pq.read_table(corpus / "0.parquet")
    row_format = resolve_format(table.column_names)
    encoded = {}
    for unit in units_of(shard.row_groups, unit_rows):
        rows = table.slice(unit.start, unit.stop - unit.start).to_pylist()
        examples = [row_format.render(row) for row in rows]
        encoded[shard.piece(unit)] = encoded_table(encoder.encode(examples))
    engine.losses(sequences_of(next(iter(encoded.values())))[:4])  # first touch of the weights
    seconds = {}
    for piece, unit_table in encoded.items():
        start = perf_counter()
        engine.losses(sequences_of(unit_table))
        seconds[piece] = perf_counter() - start
    return seconds


def whole_job(root: Path, model: str, unit_rows: int) -> tuple[float, dict[str, float]]:
    """Seconds of `sf-ray score`, and piece name -> when it was committed."""
    start = perf_counter()
    options = ScoreOptions(
        input=str(root / "corpus"),
        scores=str(root / "scores"),
        model=model,
        unit_rows=unit_rows,
        ray_address="local",
    )
    pipeline.score(options)
    whole = perf_counter() - start
    return whole, {path.name: path.stat().st_mtime for path in (root / "scores").rglob("*.parquet")}


if __name__ == "__main__":
    main()
