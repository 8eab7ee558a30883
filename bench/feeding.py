"""Whether CPUs can feed a GPU: rows a second of one core in each stage beside the model.

python bench/feeding.py --corpus DIR [--rows 8192] [--unit-rows 2048] [--card-rows-per-s 4000]
                        [--model demo] [--max-length 1024] [--repeat 3] [--beside WORKTREE]

reading     what a CPU task does with a unit: read, render, encode, and hand it to Ray
the actor   what the one thread that feeds a GPU does with a unit, without Ray and without the
            model: a decoder and a head that cost nothing take their place, and numbers stay on the
            CPU
writing     what a CPU task does with the scores of a unit

Everything runs on one thread; a figure is CPU time, the least of --repeat, so that other processes
do not count. The engine works as on CUDA: batches of 65,536 tokens, in float16. What is not in it:
launching kernels (`bench/engine.py --device cuda` measures that), Ray's own threads.

--beside measures another checkout too, in turns, each time in a new process, and prints ratios.
"""

import argparse
import inspect
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from time import process_time
from types import SimpleNamespace
from typing import Any

# Libraries read these when they are loaded, which is below.
os.environ |= {"RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from common import load_rows, record
from support.models import make_model

from sf_ray.corpus.bundles import UnitRows, bundle_of, units_of_bundle
from sf_ray.corpus.formats import resolve_format
from sf_ray.corpus.planning import plan_corpus
from sf_ray.corpus.rows import read_units, rows_of
from sf_ray.corpus.units import group_reads, units_of
from sf_ray.encoding.encoded_table import sequences_of
from sf_ray.encoding.specs import EncodingSpec, ModelSpec
from sf_ray.engine.engine import Engine
from sf_ray.engine.memory import keep_freed_memory
from sf_ray.engine.model_files import resolve_model
from sf_ray.engine.pending import Usage
from sf_ray.engine.pool import Pool
from sf_ray.engine.prefix_tree import PrefixTree
from sf_ray.scoring.score_table import SCORE_ENCODING, score_table
from sf_ray.scoring.stages.tally import UnitCounts
from sf_ray.scoring.unit_scorer import UnitScorer
from sf_ray.storage.files import put_table
from sf_ray.storage.location import Location

CARD_TOKEN_BUDGET = 65536
TURNS = 2  # of each checkout, where there are two

# What a core does with a row, stage by stage; a part is counted in the stage before it.
STAGES = {
    "reading": {
        "read": "Parquet -> Arrow",
        "encode": "Arrow -> encoded rows",
        "render": "  of it: Arrow -> Python rows -> examples",
        "to Ray": "encoded rows -> Arrow's stream format",
    },
    "the actor": {
        "from Ray": "Arrow's stream format -> encoded rows",
        "score": "encoded rows -> score table",
        "sequences": "  of it: encoded rows -> sequences",
        "engine": "  of it: the engine without a model",
        "order": "    of that: equal sequences, prefixes",
        "tree": "    or, where it pays: those and one tree",
        "score table": "  of it: losses -> score table",
    },
    "writing": {"piece": "score table -> Parquet"},
}
PARTS = {"render", "sequences", "engine", "order", "tree", "score table"}


def main() -> None:
    options = options_of_command_line()
    if options.beside:
        here, there = in_turns(options)
        print_stages(options, here, there)
    else:
        print_stages(options, measure(options))


def options_of_command_line() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", help="directory of Parquet shards; default: the demo's")
    parser.add_argument("--rows", type=int, default=8192, help="a smaller corpus is repeated")
    parser.add_argument("--unit-rows", type=int, default=2048)
    parser.add_argument("--card-rows-per-s", type=float, default=4000, metavar="R")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--max-length", type=int, default=1024)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--beside", metavar="WORKTREE", help="another checkout")
    parser.add_argument("--figures", help="file to which figures are appended")
    parser.add_argument("--label", default="feeding", help="first part of the figures' names")
    parser.add_argument("--json", action="store_true", help="print us a row of each stage as JSON")
    return parser.parse_args()


def in_turns(options: argparse.Namespace) -> list[dict[str, float]]:
    """The stages of this checkout and of the other one: the least of their turns."""
    checkouts = [str(Path(__file__).parents[1]), str(Path(options.beside).resolve())]
    found: list[dict[str, float]] = [{}, {}]
    for _ in range(TURNS):
        for least, checkout in zip(found, checkouts, strict=True):
            done = subprocess.run(
                [sys.executable, *sys.argv, "--beside=", "--json"],
                env={**os.environ, "PYTHONPATH": checkout},
                capture_output=True,
                text=True,
            )
            if done.returncode:
                raise SystemExit(f"{checkout}: {done.stderr}")
            for stage, us in json.loads(done.stdout.splitlines()[-1]).items():
                least[stage] = min(us, least.get(stage, us))
    return found


def print_stages(
    options: argparse.Namespace, stages: dict[str, float], others: dict[str, float] | None = None
) -> None:
    """Prints what each stage takes, and what a card of the asked speed would need."""
    if options.json:
        print(json.dumps(stages))
        return
    print(f"{options.rows} rows of {options.corpus or 'the demo'}, units of {options.unit_rows}")
    print(f"{'':46} {'us/row':>8} {'rows/s/core':>12}" + (f" {'ratio':>6}" if others else ""))
    for group, names in STAGES.items():
        print(group)
        for stage, name in names.items():
            print(_line(name, stages[stage], others and others[stage]))
        print(_line("in all", total(stages, group), others and total(others, group)))
    reading_us, actor_us, writing_us = (total(stages, group) for group in STAGES)
    card = options.card_rows_per_s
    print(
        f"a GPU that scores {card:,.0f} rows/s needs {(reading_us + writing_us) * card / 1e6:.1f} "
        f"cores to read and write, and {actor_us * card / 1e6:.0%} of its actor's thread before "
        "the first launch"
    )
    figures = {"reading, rows/s/core": 1e6 / reading_us, "actor, us/row": actor_us}
    record(options.figures, {f"{options.label}.{name}": value for name, value in figures.items()})
    print(f"reading {1e6 / reading_us:.0f} rows/s/core, actor {actor_us:.1f} us/row")


def _line(name: str, us: float, other: float | None) -> str:
    ratio = f" {other / us:5.2f}x" if other else ""
    return f"  {name:44} {us:8.2f} {1e6 / us:12,.0f}{ratio}"


def total(stages: dict[str, float], group: str) -> float:
    """Microseconds a row of the stages of a group together."""
    return sum(stages[stage] for stage in STAGES[group] if stage not in PARTS)


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Microseconds of CPU time a row of each stage."""
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        return dict(stages_of(options, Path(folder)))


def stages_of(options: argparse.Namespace, root: Path) -> Iterator[tuple[str, float]]:
    """Runs one stage after the other over all units; yields the name and us a row of each."""

    def timed(stage: str, call: Callable[[], object]) -> tuple[str, float]:
        return stage, min(_cpu_s(call) for _ in range(options.repeat)) / table.num_rows * 1e6

    table = load_rows(options.corpus, options.rows)
    (root / "corpus").mkdir()
    pq.write_table(table, root / "corpus/0.parquet", row_group_size=options.unit_rows)
    corpus = plan_corpus(Location(str(root / "corpus")))
    (shard,) = corpus.shards
    places = [
        (plan, unit)
        for plan in group_reads(shard, units_of(shard.row_groups, options.unit_rows))
        for unit in plan.units
    ]
    plans = list(dict.fromkeys(plan for plan, _ in places))
    encoding = encoding_of(options, table.column_names)

    def read() -> list[pa.Table]:
        return [
            rows for plan in plans for rows in read_units(corpus.location, plan, encoding.columns)
        ]

    def encoded(encoding: EncodingSpec) -> list[UnitRows]:
        return [
            UnitRows.of(plan, unit, encoding.encode(rows, shard.file.relative, unit.start))
            for (plan, unit), rows in zip(places, tables, strict=True)
        ]

    tables = read()
    yield timed("read", read)
    render = encoding.format.render
    yield timed("render", lambda: [[render(row) for row in rows_of(rows)] for rows in tables])
    # Each time with a new tokenizer: tokenizers remember the words that they have met.
    news = [encoding_of(options, table.column_names) for _ in range(options.repeat)]
    yield timed("encode", lambda: encoded(news.pop()))
    units = encoded(encoding)
    yield timed("to Ray", lambda: [_stream_of(bundle_of([unit])) for unit in units])

    streams = [_stream_of(bundle_of([unit])) for unit in units]
    yield timed("from Ray", lambda: [_unit_of(stream) for stream in streams])
    units = [_unit_of(stream) for stream in streams]
    engine = engine_without_model(root)
    sequences = [sequences_of(unit.rows) for unit in units]
    losses = [engine.losses(pool) for pool in sequences]
    yield timed("sequences", lambda: [sequences_of(unit.rows) for unit in units])
    yield timed("engine", lambda: [engine.losses(pool) for pool in sequences])
    for stage, prepare in prefixes().items():
        yield timed(stage, lambda prepare=prepare: [prepare(pool) for pool in sequences])
    yield timed(
        "score table",
        lambda: [
            score_table(unit.shard, unit.start, unit.rows, of_unit)
            for unit, of_unit in zip(units, losses, strict=True)
        ],
    )
    scorer = UnitScorer(engine)
    yield timed("score", lambda: [_scored(scorer, unit) for unit in units])
    scored = [_scored(scorer, unit) for unit in units]
    pieces = Location(str(root / "pieces"))

    def put() -> None:
        for unit in scored:
            put_table(pieces.join(unit.piece), unit.rows, SCORE_ENCODING)

    yield timed("piece", put)


def _cpu_s(call: Callable[[], object]) -> float:
    start = process_time()
    call()
    return process_time() - start


def encoding_of(options: argparse.Namespace, columns: list[str]) -> EncodingSpec:
    """How a job would encode the corpus; its tokenizer is loaded."""
    fingerprint = resolve_model(options.model).fingerprint
    model = ModelSpec(options.model, fingerprint)
    encoding = EncodingSpec(resolve_format(columns), model, options.max_length, "reference")
    encoding.check()
    return encoding


def _stream_of(bundle: pa.Table) -> pa.Buffer:
    """A bundle as Ray's object store holds it."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, bundle.schema) as writer:
        writer.write_table(bundle)
    return sink.getvalue()


def _unit_of(stream: pa.Buffer) -> UnitRows:
    (unit,) = units_of_bundle(pa.ipc.open_stream(stream).read_all())
    return unit


def _scored(scorer: UnitScorer, unit: UnitRows) -> UnitRows:
    """What an actor does with a unit, beside Ray."""
    pending = scorer.begin(unit.shard, unit.start, unit.rows, lambda sequences, tokens: None)
    scores = pending.result()
    UnitCounts.of(scores, Usage())
    return unit.with_rows(scores)


def engine_without_model(root: Path) -> Engine:
    """An engine that does on the host what one on CUDA does, and computes nothing.

    It is loaded with a tiny model. Then free ones take the place of the decoder and the head, by a
    private attribute, because no user has a reason to do so.
    """
    arguments = {"dtype": "float16", "token_budget": CARD_TOKEN_BUDGET, "threads": 1}
    if "packed" in inspect.signature(Engine).parameters:
        arguments["packed"] = True
    else:  # a checkout from before tokens were packed: share prefixes where it would on CUDA
        from sf_ray.engine import prefix_batches

        prefix_batches._LEAST_SAVED["cpu"] = prefix_batches._LEAST_SAVED["cuda"]
    keep_freed_memory()  # as an actor does
    engine = Engine(make_model(root / "model"), **arguments)
    engine._model.decoder = free_decoder
    engine._model.head = SimpleNamespace(nll=lambda states, targets: torch.zeros(len(targets)))
    return engine


def prefixes() -> dict[str, Callable[[Any], object]]:
    """What the engine does to find equal sequences and shared prefixes."""
    if hasattr(Pool, "of"):
        return {
            "order": lambda sequences: Pool.of(sequences, True),
            "tree": lambda sequences: PrefixTree.of(sequences, Pool.of(sequences, True)[0].order),
        }
    from sf_ray.engine.prefix_tree import distinct  # a checkout from before sequences were flat

    return {"order": distinct, "tree": PrefixTree.of}


def free_decoder(input_ids: torch.Tensor, **_: object) -> SimpleNamespace:
    """Hidden states [batch, tokens, 0]: to take some of them costs nothing either."""
    return SimpleNamespace(last_hidden_state=torch.empty(*input_ids.shape, 0))


if __name__ == "__main__":
    main()
