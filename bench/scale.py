"""How time and memory grow with rows and shards, against other tools, on one machine.

python bench/scale.py selection [--rows 1e6 1e7 1e8]    ours / Ray Data's sort / Polars
python bench/scale.py pipeline [--rows 1e6 1e7]         the whole job / Ray Data read, map, write
python bench/scale.py compare [--rows 2e6 8e6]          peak memory of `sf-ray compare`
python bench/scale.py planning [--shards 100 1000 10000]

Every measurement is a process of its own, with a Ray of its own. Memory is the sum of the
proportional set sizes of all its processes, less that of the idle Ray before. Ratios are of wall
time on an idle machine; those of CPU time hold on a busy one too. `planning` works on a
bucket of the server in SF_RAY_TEST_S3_ENDPOINT, else of moto.
"""

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from support import free_scorer
from support.corpora import WORDS
from support.models import make_model
from support.processes import measure_apart, measured, report

from sf_ray.corpus.planning import plan_corpus
from sf_ray.corpus.units import Shard, units_of
from sf_ray.scoring.score_set import describe, score_set_of
from sf_ray.scoring.score_table import SCORE_ENCODING
from sf_ray.storage.listing import File
from sf_ray.storage.location import Location

SHARD_ROWS, UNIT_ROWS = 1_000_000, 2048
KEEP = 0.1
GIVE_UP_S = 900
WHOLE_S = 3600
# Of a score set, what `compare` looks at.
COMPARED = {"dtype": "float32", "alignment": "reference", "max_length": 128, "unit_rows": UNIT_ROWS}
GIVE_UP_TIMES = 15  # another tool is stopped when it takes this many times as long as ours


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=["selection", "pipeline", "compare", "planning", "measure"])
    parser.add_argument("--rows", type=float, nargs="*")
    parser.add_argument("--shards", type=int, nargs="*", default=[100, 1000, 10_000])
    parser.add_argument("--repeat", type=int, default=3, help="runs of `pipeline`, for medians")
    parser.add_argument("--folder", help="where to work; default: a temporary folder")
    parser.add_argument("--measure", nargs="*", default=[], help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    os.environ["RAY_num_workers_soft_limit"] = "10"  # noqa: SIM112 (as `start_ray` has it)
    if options.part == "measure":
        name, *arguments = options.measure
        report(globals()[f"measure_{name}"](*arguments))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        if options.part == "selection":
            selection([int(rows) for rows in options.rows or [1e6, 1e7, 1e8]], Path(folder))
        elif options.part == "pipeline":
            sizes = [int(rows) for rows in options.rows or [1e6, 1e7]]
            pipeline(sizes, Path(folder), options.repeat)
        elif options.part == "compare":
            compare_sizes([int(rows) for rows in options.rows or [2e6, 8e6]], Path(folder))
        else:
            planning(options.shards, Path(folder))


def apart(*what: object, limit_s: float = GIVE_UP_S) -> dict[str, Any] | None:
    return measure_apart(__file__, *what, limit_s=limit_s)


def start_ray() -> None:
    import ray

    ray.init(
        address="local", num_cpus=2, include_dashboard=False, logging_level="error",
        object_store_memory=2 << 30,
    )  # fmt: skip
    time.sleep(3)  # until the workers have started that an idle Ray has
    ray.data.DataContext.get_current().enable_progress_bars = False


# Selection


def shards_of(rows: int) -> list[Shard]:
    shards = []
    for start in range(0, rows, SHARD_ROWS):
        file = File("x", f"{start // SHARD_ROWS:05d}.parquet", 1, "1")
        shards.append(Shard(file, (min(SHARD_ROWS, rows - start),), start))
    return shards


def write_scores(folder: str, shard: Shard) -> None:
    """Writes score pieces for ours; for the others a file a shard, as many files slow them down."""
    pieces = []
    for unit in units_of(shard.row_groups, UNIT_ROWS):
        tokens = pa.chunked_array([np.full(unit.rows, 99, np.int32)])
        scores = free_scorer.free_scores(shard.file.relative, unit.start, unit.rows, tokens)
        pq.write_table(scores, f"{folder}/pieces/{shard.piece(unit)}", **SCORE_ENCODING)
        pieces.append(scores)
    pq.write_table(pa.concat_tables(pieces), f"{folder}/shards/{shard.file.relative}")


def selection(sizes: list[int], folder: Path) -> None:
    print("selection of the best 10 %: wall time and peak memory of all processes, above idle Ray")
    for rows in sizes:
        scores = folder / f"{rows}"
        for name in ("pieces", "shards"):
            (scores / name).mkdir(parents=True)
        with ProcessPoolExecutor(2) as processes:
            list(processes.map(write_scores, [str(scores)] * 999, shards_of(rows)))
        ours = apart("ours", scores / "pieces", rows)
        assert ours
        line = f"{rows:>11,} rows  ours 1.00x, {mib(ours['peak'])}, driver {mib(ours['driver'])}"
        for name in ("polars", "sort"):
            limit_s = 120 + GIVE_UP_TIMES * ours["wall_s"]
            other = apart(name, scores / "shards", rows, limit_s=limit_s)
            if other is None:
                line += f"  {name}: stopped after {limit_s / ours['wall_s']:.0f}x the time of ours"
                continue
            assert other["result"] == ours["result"], (name, other["result"], ours["result"])
            line += f"  {name} {other['wall_s'] / ours['wall_s']:.2f}x, "
            line += f"CPU {other['cpu_s'] / ours['cpu_s']:.2f}x, {mib(other['peak'])}"
        print(f"{line}  (ours: {ours['wall_s']:.1f} s, CPU {ours['cpu_s']:.1f} s)", flush=True)
        shutil.rmtree(scores)


def mib(size: float) -> str:
    return f"{size / 2**20:,.0f} MiB"


def measure_ours(pieces: str, rows: str) -> dict[str, Any]:
    from sf_ray.selection.chunks import Eligible
    from sf_ray.selection.corpus_pass import CorpusPass, chunks_of
    from sf_ray.selection.cutoff_tasks import rank
    from sf_ray.selection.cutoffs import Bounds
    from sf_ray.selection.ranking import GroupRequest
    from sf_ray.selection.read_tables import ReadTables

    start_ray()

    def select() -> float:
        total, scores = int(rows), Location(pieces)
        units = [(shard, units_of(shard.row_groups, UNIT_ROWS)) for shard in shards_of(total)]
        corpus_pass = CorpusPass(scores, False, GIVE_UP_S).for_scores(units)
        asked = [GroupRequest("", total, int(total * KEEP))]
        eligible, known = Eligible(scores, Bounds(0, 1)), ReadTables.with_room(total)
        ranking = rank(corpus_pass, chunks_of(units), total, eligible, asked, known)
        (cutoff,) = ranking.cutoffs.by_group
        assert cutoff
        return cutoff.value

    return measured(select)


def measure_sort(shards: str, rows: str) -> dict[str, Any]:
    import ray

    start_ray()

    def select() -> float:
        scores = ray.data.read_parquet(shards, columns=["shard", "row", "ifd"])
        best = scores.sort(["ifd", "shard", "row"], descending=[True, False, False])
        last = None
        for batch in best.limit(int(int(rows) * KEEP)).iter_batches(batch_format="pyarrow"):
            last = batch["ifd"][-1].as_py()
        assert last
        return float(last)

    return measured(select)


def measure_polars(shards: str, rows: str) -> dict[str, Any]:
    import polars

    def select() -> float:
        scores = polars.scan_parquet(f"{shards}/*.parquet").select("shard", "row", "ifd")
        best = scores.sort(["ifd", "shard", "row"], descending=[True, False, False])
        return float(best.head(int(int(rows) * KEEP)).collect()["ifd"][-1])

    return measured(select)


# The whole pipeline


def write_corpus(folder: str, number: int, rows: int) -> None:
    rng = np.random.default_rng(number)

    def texts(count: int, low: int, high: int) -> pa.Array:
        return pa.array(
            [" ".join(rng.choice(WORDS, rng.integers(low, high))) for _ in range(count)]
        )

    instructions, outputs = texts(3000, 5, 20), texts(10_000, 20, 90)
    table = pa.table(
        {
            "id": np.arange(number * SHARD_ROWS, number * SHARD_ROWS + rows),
            "instruction": instructions.take(pa.array(rng.integers(0, 3000, rows))),
            "input": pa.repeat(pa.scalar(""), rows),
            "output": outputs.take(pa.array(rng.integers(0, 10_000, rows))),
            "source": pa.array([f"source {n}" for n in range(20)]).take(
                pa.array(rng.integers(0, 20, rows))
            ),
        }
    )
    pq.write_table(
        table, f"{folder}/{number:05d}.parquet", row_group_size=50_000, compression="snappy",
        use_dictionary=False,
    )  # fmt: skip


def pipeline(sizes: list[int], folder: Path, repeat: int) -> None:
    print("the whole job with a scorer that costs nothing, against Ray Data's read, map, write")
    make_model(folder / "model")
    for rows in sizes:
        corpus = folder / f"corpus-{rows}"
        corpus.mkdir()
        with ProcessPoolExecutor(2) as processes:
            parts = [min(SHARD_ROWS, rows - start) for start in range(0, rows, SHARD_ROWS)]
            list(processes.map(write_corpus, [str(corpus)] * 999, range(len(parts)), parts))
        plain, whole = [], []
        for _ in range(repeat):  # in turns, so that a busy minute slows both
            plain.append(apart("plain", corpus, folder / "plain"))
            whole.append(apart("whole", corpus, folder / "out", folder / "model"))
            page = (folder / "out/report.html").stat().st_size
            shutil.rmtree(folder / "plain")
            shutil.rmtree(folder / "out")
        print(
            f"{rows:>11,} rows  {median(plain, 'wall_s') / median(whole, 'wall_s'):.2f}x the "
            f"rows/s of read, map, write  ({rows / median(whole, 'wall_s'):,.0f} against "
            f"{rows / median(plain, 'wall_s'):,.0f} rows/s; medians of {repeat})\n"
            f"             {median(plain, 'cpu_s') / median(whole, 'cpu_s'):.2f}x by CPU time  "
            f"({median(whole, 'cpu_s'):.1f} against {median(plain, 'cpu_s'):.1f} CPU seconds)"
        )
        for name, runs in (("whole job", whole), ("read, map, write", plain)):
            print(
                f"             {name}: driver {mib(median(runs, 'driver'))}, largest worker "
                f"{mib(median(runs, 'largest_worker'))}, all {mib(median(runs, 'peak'))}"
            )
        stages = whole[-1]["result"]
        print(f"             stages: {stages}")
        print(
            f"             report.html: {page / 1e6:.2f} MB; the survey for it takes "
            f"{stages['survey'] / sum(stages.values()):.1%} of the time",
            flush=True,
        )
        shutil.rmtree(corpus)


def median(runs: list[dict[str, Any]], figure: str) -> float:
    return statistics.median(run[figure] for run in runs)


def measure_plain(corpus: str, out: str) -> dict[str, Any]:
    import ray

    start_ray()

    def job() -> None:
        ray.data.read_parquet(corpus).map_batches(lambda batch: batch).write_parquet(out)

    return measured(job)


def measure_whole(corpus: str, out: str, model: str) -> dict[str, Any]:
    from sf_ray.commands.pipeline import run
    from sf_ray.config.selection_options import RunOptions

    specs = free_scorer.specs()
    start_ray()
    options = RunOptions(input=corpus, output=out, model=model, keep_fraction=KEEP, max_length=128)

    def job() -> dict[str, float]:
        stdout = os.dup(1)
        os.dup2(2, 1)
        run(options, specs)
        os.dup2(stdout, 1)
        stages: dict[str, float] = json.loads((Path(out) / "manifest.json").read_text())["wall_s"]
        return stages

    return measured(job)


# Comparing


def compare_sizes(sizes: list[int], folder: Path) -> None:
    print("`sf-ray compare` of two score sets: peak memory of its process, and time")
    for rows in sizes:
        sides = []
        for model in "ab":
            score_set = score_set_of(
                Location(str(folder / f"{rows}-{model}")), {**COMPARED, "model": model}
            )
            sides.append(score_set)
            pieces = Path(str(score_set.pieces.path))
            (pieces / "pieces").mkdir(parents=True)
            (pieces / "shards").mkdir()
            describe(score_set, model)
            with ProcessPoolExecutor(2) as processes:
                list(processes.map(write_scores, [str(pieces)] * 999, shards_of(rows)))
            shutil.rmtree(pieces / "shards")
            for piece in (pieces / "pieces").iterdir():
                piece.rename(pieces / piece.name)
        compared = apart("compare", *(side.location.uri for side in sides), limit_s=WHOLE_S)
        assert compared
        print(
            f"{rows:>11,} rows of each: {mib(compared['driver'])}, {compared['wall_s']:.0f} s "
            f"(CPU {compared['cpu_s']:.0f} s)",
            flush=True,
        )
        for side in sides:
            shutil.rmtree(side.location.path)


def measure_compare(a: str, b: str) -> dict[str, Any]:
    from sf_ray.commands.compare.command import compare
    from sf_ray.config.options import CompareOptions

    def job() -> None:
        stdout = os.dup(1)
        os.dup2(2, 1)
        compare(CompareOptions(scores_a=a, scores_b=b))
        os.dup2(stdout, 1)

    return measured(job)


# Planning


def planning(sizes: list[int], folder: Path) -> None:
    from chaos import moto

    make_model(folder / "model")
    print("planning a corpus in a bucket: time, and requests")
    with moto() as storage_options:
        for shards in sizes:
            bucket = f"s3://sf-ray-plan-{os.getpid()}-{shards}"
            location = Location(bucket, storage_options)
            location.fs.mkdir(bucket)
            table = pa.table({name: ["a b c"] for name in ("instruction", "output")})
            sink = pa.BufferOutputStream()
            pq.write_table(table, sink)
            data = sink.getvalue().to_pybytes()

            def put(number: int, location: Location = location, data: bytes = data) -> None:
                name = f"corpus/{number % 100:02d}/{number:05d}.parquet"
                location.fs.pipe_file(location.join(name).path, data)

            with ThreadPoolExecutor(32) as threads:
                list(threads.map(put, range(shards)))
            planned = apart(
                "plan", bucket, json.dumps(storage_options), folder / "model", limit_s=WHOLE_S
            )
            assert planned
            print(f"{shards:>7,} shards  {planned['result']}", flush=True)


def measure_plan(bucket: str, storage: str, model: str) -> dict[str, Any]:
    """Plans the corpus and counts requests; then runs the job, and runs it again."""
    import ray

    from sf_ray.commands.pipeline import run
    from sf_ray.config.selection_options import RunOptions

    storage_options = json.loads(storage)
    specs = free_scorer.specs()
    location = Location(f"{bucket}/corpus", storage_options)
    urls: list[str] = []  # of all requests
    fs = location.fs
    fs.exists(bucket)  # connects
    fs._s3.meta.events.register("before-send.s3.*", lambda request, **_: urls.append(request.url))

    start = time.perf_counter()
    corpus = plan_corpus(location)
    plan_s = time.perf_counter() - start
    listings = sum("list-type" in url for url in urls)
    footers = len(urls) - listings

    start = time.perf_counter()
    start_ray()
    ray_s = time.perf_counter() - start - 3  # start_ray sleeps for 3 s
    options = RunOptions(
        input=f"{bucket}/corpus", output=f"{bucket}/out", model=model, keep_fraction=KEEP,
        max_length=128, storage_options=storage_options, device="cpu",
    )  # fmt: skip
    stdout = os.dup(1)
    os.dup2(2, 1)
    run(options, specs)
    urls.clear()
    start = time.perf_counter()
    run(options, specs)
    again_s = time.perf_counter() - start
    os.dup2(stdout, 1)
    reads = [url for url in urls if "/corpus/" in url and "list-type" not in url]
    ray.shutdown()
    return {
        "result": f"plan {plan_s:.1f} s: {listings} pages of one listing, "
        f"{footers / len(corpus.shards):.2f} requests a shard beyond; second run, nothing new: "
        f"{again_s / plan_s:.3f} of the plan's time without Ray's start ({ray_s:.1f} s), "
        f"{len(urls)} requests, {len(reads)} of them to shards"
    }


if __name__ == "__main__":
    main()
