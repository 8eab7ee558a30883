"""Near copies: what is found of planted ones, against comparing all pairs; and many rows in memory.

python bench/near_copies.py --corpus DIR [--rows 999] [--planted 200]
python bench/near_copies.py --synthetic 200000

The first plants edited rows of a corpus among its own: 25 of each kind of `EDITS`. All of them are
embedded by the encoder that `--encoder` names, and compared

    by embedding   in cells, also across their borders, as a run does on a cluster; many small ones
    by text        by MinHash

and the rows that are dropped are held against those that greedy drops over all pairs: exact cosines
and exact Jaccard indexes. Rows are ranked at random.

The second divides synthetic embeddings of 384 numbers, a twentieth of them planted near copies,
over Ray tasks, and watches the memory of all processes. The sample that every run takes says what
is found, and a part of the rows is compared pair by pair for the time that all pairs would take.
"""

import argparse
import os
import random
import re
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import psutil
import pyarrow as pa
import ray
from ray._private.internal_api import memory_summary

from bench.common import load_rows
from bench.diversity import like_text
from sf_ray.corpus.examples import Example
from sf_ray.corpus.formats import resolve_format
from sf_ray.corpus.units import Place, Shard, units_of
from sf_ray.engine.model_files import resolve_model
from sf_ray.selection.bitmap import Bitmap
from sf_ray.selection.chunks import Chunk
from sf_ray.selection.corpus_pass import CorpusPass
from sf_ray.selection.diversity.division import is_drawn
from sf_ray.selection.diversity.embedder import Embedder
from sf_ray.selection.near import embedding_tasks
from sf_ray.selection.near.cells import EmbeddedRows, near_by_cosine, of_norm_1
from sf_ray.selection.near.greedy import Near, by_rank, judge, settle
from sf_ray.selection.near.near_copies import NearCopies
from sf_ray.selection.near.signatures import (
    SignedRows,
    band_keys,
    judge_buckets,
    shingles_of,
    signatures_of,
)
from sf_ray.storage.listing import File
from sf_ray.storage.location import Location

COSINES = (0.99, 0.97, 0.95, 0.92, 0.9, 0.85)
JACCARDS = (0.95, 0.9, 0.8, 0.7, 0.6, 0.5)
PART_ROWS, BIN_ROWS = 512, 256
# Rows that all pairs are compared of, for the time that it takes.
PAIRWISE_ROWS = 20_000

SYNONYMS = {
    "big": "large", "small": "little", "important": "significant", "help": "assist",
    "show": "display", "make": "create", "use": "utilize", "people": "individuals",
    "create": "make", "provide": "give", "also": "additionally", "many": "numerous",
    "good": "beneficial", "different": "various", "various": "different", "such": "like",
    "new": "novel", "need": "require", "ensure": "guarantee", "improve": "enhance",
    "increase": "raise", "reduce": "lower", "example": "instance", "however": "yet",
    "because": "since", "can": "may", "most": "nearly all", "get": "obtain", "start": "begin",
    "end": "finish", "the": "this", "and": "as well as", "is": "remains", "are": "remain",
    "write": "compose", "describe": "depict", "explain": "clarify", "list": "enumerate",
    "find": "locate", "give": "provide", "sentence": "phrase", "following": "below",
    "generate": "produce", "identify": "determine", "suggest": "propose", "name": "mention",
}  # fmt: skip
FILLERS = "really also quite perhaps indeed simply rather certainly".split()
REWORDINGS = (
    "Could you please {}?", "I would like you to {}.", "Your task is as follows: {}.",
    "Please {}, and be as clear as you can.", "Do this for me: {}.",
)  # fmt: skip

Fields = dict[str, str]


def swap_words(rng: random.Random, text: str) -> str:
    words = text.split(" ")
    for _ in range(max(1, len(words) // 20)):
        at = rng.randrange(max(1, len(words) - 1))
        words[at : at + 2] = reversed(words[at : at + 2])
    return " ".join(words)


def drop_words(rng: random.Random, text: str) -> str:
    words = text.split(" ")
    dropped = set(rng.sample(range(len(words)), max(1, len(words) // 20)))
    return " ".join(word for at, word in enumerate(words) if at not in dropped)


def add_words(rng: random.Random, text: str) -> str:
    words = text.split(" ")
    for _ in range(max(1, len(words) // 20)):
        words.insert(rng.randrange(len(words) + 1), rng.choice(FILLERS))
    return " ".join(words)


def use_synonyms(rng: random.Random, text: str) -> str:
    """At most every second word that has a synonym, and at least one."""
    words = text.split(" ")
    known = [at for at, word in enumerate(words) if word.lower() in SYNONYMS]
    for at in rng.sample(known, -(-len(known) // 2)):
        words[at] = SYNONYMS[words[at].lower()]
    return " ".join(words)


def change_marks(rng: random.Random, text: str) -> str:
    """Case, punctuation and white space."""
    text = re.sub(r"[.,;:!?]", lambda _: rng.choice([".", "!", " ;", " -", ""]), text)
    return re.sub(" ", lambda _: rng.choice([" ", " ", "  ", "\n"]), rng.choice(
        [text.upper(), text.lower(), text.title()]
    ))  # fmt: skip


def reorder_sentences(rng: random.Random, text: str) -> str:
    sentences = re.split(r"(?<=[.!?\n])\s+", text)
    moved = sentences[1:] + sentences[:1]
    return " ".join(moved) if len(sentences) < 4 else " ".join(rng.sample(moved, len(moved)))


def reword(rng: random.Random, text: str) -> str:
    """An instruction in one of a few frames."""
    plain = text.strip().rstrip(".?!")
    return rng.choice(REWORDINGS).format(plain[:1].lower() + plain[1:])


Edit = Callable[[random.Random, Fields], Fields]


def answers(edit: Callable[[random.Random, str], str]) -> Edit:
    return lambda rng, row: row | {"output": edit(rng, row["output"])}


def reworded(rng: random.Random, row: Fields) -> Fields:
    return row | {"instruction": reword(rng, row["instruction"])}


def paraphrased(rng: random.Random, row: Fields) -> Fields:
    """The instruction in another frame, and synonyms, dropped and added words in the answer."""
    output = add_words(rng, drop_words(rng, use_synonyms(rng, row["output"])))
    return reworded(rng, row) | {"output": output}


EDITS: dict[str, Edit] = {
    "case, punctuation, white space": lambda rng, row: {
        name: change_marks(rng, text) for name, text in row.items()
    },
    "words swapped (1 in 20)": answers(swap_words),
    "words dropped (1 in 20)": answers(drop_words),
    "words added (1 in 20)": answers(add_words),
    "synonyms": answers(use_synonyms),
    "sentences reordered": answers(reorder_sentences),
    "instruction reworded": reworded,
    "paraphrased: all but the order": paraphrased,
}


@dataclass(frozen=True)
class Planted:
    """A corpus with planted rows behind its own.

    Attributes:
        texts: [n] of all rows.
        kinds: [planted] of the planted rows.
        sources: [planted] the row that each is an edited copy of.
        values: [n] what rows are ranked by.
    """

    texts: list[str]
    kinds: list[str]
    sources: np.ndarray
    values: np.ndarray


def plant(table: pa.Table, planted: int, seed: int = 0) -> Planted:
    rng = random.Random(seed)
    row_format = resolve_format(table.column_names)
    rows = [{name: row[name] or "" for name in row_format.top_columns} for row in table.to_pylist()]
    names = list(EDITS) * -(-planted // len(EDITS))
    # Long enough for every kind of edit to change something.
    long = [at for at, row in enumerate(rows) if len(re.findall(r"[.!?\n]\s", row["output"])) > 1]
    sources = rng.sample(long, planted)
    edited = [EDITS[name](rng, rows[at]) for name, at in zip(names, sources, strict=False)]
    examples = [row_format.render(row) for row in [*rows, *edited]]
    texts = [example.text for example in examples if isinstance(example, Example)]
    assert len(texts) == len(rows) + planted, "all rows of the corpus can be read"
    values = np.random.default_rng(seed).random(len(texts))
    return Planted(texts, names[:planted], np.array(sources), values)


def dropped_of_all_pairs(near: Near, values: np.ndarray) -> set[int]:
    """What greedy drops where every row is compared with every other one."""
    order = by_rank(values, np.arange(len(values)))

    def near_ranked(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        return near(order[rows], order[others])

    settled = settle(len(values), lambda state: [judge(near_ranked, order, state)])
    return positions_in(settled.dropped)


def positions_in(rows: Bitmap) -> set[int]:
    return set(np.flatnonzero(np.unpackbits(rows.bits, bitorder="little")).tolist())


@dataclass(frozen=True)
class Held:
    """Reads embeddings from Ray's object store, as a run reads them from their files."""

    embeddings: list[ray.ObjectRef]
    values: np.ndarray
    rows: int

    def __call__(self, chunk: Chunk, share: float = 1.0) -> EmbeddedRows:
        drawn = chunk.positions[is_drawn(chunk.positions, share)]
        blocks = {at // self.rows for at in drawn.tolist()}
        found = [
            ray.get(self.embeddings[block])[drawn[drawn // self.rows == block] % self.rows]
            for block in sorted(blocks)
        ]
        none = np.empty((0, 0), np.float16)
        return EmbeddedRows(drawn, self.values[drawn], np.concatenate(found) if found else none)


def near_on_ray(embeddings: np.ndarray, values: np.ndarray, threshold: float) -> NearCopies:
    """What a run finds, once rows have embeddings."""
    n, block = len(embeddings), 8192
    shard = Shard(File("/x", "x", n, "1"), (n,), 0)
    places = [Place(shard, unit) for unit in units_of((n,), 2048)]
    step = max(1, embedding_tasks.CHUNK_ROWS // 2048)
    chunks = [Chunk(places[at : at + step]) for at in range(0, len(places), step)]
    refs = [ray.put(embeddings[at : at + block]) for at in range(0, n, block)]
    corpus_pass = CorpusPass(Location("/nowhere"), False, 3600.0)
    read = Held(refs, values, block)
    return embedding_tasks.find_near_by_embedding(corpus_pass, chunks, read, n, n, threshold)


def by_signatures(signatures: np.ndarray, values: np.ndarray, threshold: float) -> set[int]:
    n = len(values)
    keys = band_keys(signatures, threshold)
    rows = SignedRows(np.arange(n), values, signatures).take(np.repeat(np.arange(n), keys.shape[1]))
    flat = keys.reshape(-1)
    return positions_in(
        settle(n, lambda state: [judge_buckets(rows, flat, threshold, state)]).dropped
    )


def all_jaccards(shingles: Sequence[np.ndarray]) -> np.ndarray:
    """[n, n] exact indexes."""
    n = len(shingles)
    ids = {each: at for at, each in enumerate(np.unique(np.concatenate(shingles)).tolist())}
    has = np.zeros((n, len(ids)), np.float32)
    for row, of_row in enumerate(shingles):
        has[row, [ids[each] for each in of_row.tolist()]] = 1
    both, sizes = has @ has.T, has.sum(axis=1)
    return both / (sizes[:, None] + sizes - both)


def on_a_corpus(planted: Planted, encoder: str) -> None:
    embeddings = Embedder(resolve_model(encoder, {}).path).embed(planted.texts)
    single = of_norm_1(embeddings)
    embedding_tasks.EXACT_ROWS = 0  # by parts, however few rows there are
    embedding_tasks.PART_ROWS, embedding_tasks._BIN_ROWS = PART_ROWS, BIN_ROWS
    found = {
        threshold: positions_in(near_on_ray(embeddings, planted.values, threshold).rows)
        for threshold in COSINES
    }
    exact = {
        threshold: dropped_of_all_pairs(near_by_cosine(single, threshold), planted.values)
        for threshold in COSINES
    }
    print(f"{len(planted.texts)} rows, {len(planted.kinds)} of them planted")
    table("by embedding, in cells, cosine of at least", found, exact, planted)
    shingles = [shingles_of(text) for text in planted.texts]
    signatures, jaccards = signatures_of(shingles), all_jaccards(shingles)
    found = {each: by_signatures(signatures, planted.values, each) for each in JACCARDS}
    exact = {
        each: dropped_of_all_pairs(
            lambda rows, others, each=each: jaccards[rows][:, others] >= each - 1e-6,
            planted.values,
        )
        for each in JACCARDS
    }
    table("by text, MinHash, Jaccard index of at least", found, exact, planted)


def table(
    title: str, found: dict[float, set[int]], exact: dict[float, set[int]], planted: Planted
) -> None:
    own = len(planted.texts) - len(planted.kinds)
    pairs = [(int(at), own + copy) for copy, at in enumerate(planted.sources)]
    print(f"\n{title:46}" + "".join(f"{each:8}" for each in found))

    def line(name: str, values: list[float]) -> None:
        print(f"  {name:44}" + "".join(f"{value:8.3f}" for value in values))

    both = {each: len(found[each] & exact[each]) for each in found}
    line("precision against all pairs", [n / (len(found[e]) or 1) for e, n in both.items()])
    line("recall against all pairs", [n / (len(exact[e]) or 1) for e, n in both.items()])
    print(f"  {'rows that are dropped':44}" + "".join(f"{len(each):8}" for each in found.values()))
    # Rows that are near another row of the corpus itself: neither planted nor copied.
    touched = {row for pair in pairs for row in pair}
    print(
        f"  {'of them neither planted nor copied':44}"
        + "".join(f"{len(each - touched):8}" for each in found.values())
    )
    print("  planted rows of which one of the two is dropped:")
    for kind in EDITS:
        of_kind = [pair for pair, name in zip(pairs, planted.kinds, strict=True) if name == kind]
        if of_kind:
            line("  " + kind, [
                sum(bool(each & set(pair)) for pair in of_kind) / len(of_kind)
                for each in found.values()
            ])  # fmt: skip
    line("  all", [sum(bool(e & set(p)) for p in pairs) / len(pairs) for e in found.values()])


@contextmanager
def watched_memory() -> Iterator[dict[str, float]]:
    """Peaks in GiB: what the driver adds, the largest worker, all workers, the object store.

    Of processes without what they map of the object store, which the last figure has.
    """
    peaks = dict.fromkeys(("driver", "largest worker", "all workers", "object store"), 0.0)
    ended = threading.Event()
    address = ray.get_runtime_context().gcs_address  # others may run a Ray here too
    driver = psutil.Process()
    before = own_bytes(driver)

    def look() -> None:
        while not ended.wait(0.2):
            workers = [0]
            for process in driver.children(recursive=True):
                with suppress(psutil.Error):
                    if process.name().startswith("ray::"):
                        workers.append(own_bytes(process))
            for name, value in zip(
                peaks, (own_bytes(driver) - before, max(workers), sum(workers)), strict=False
            ):
                peaks[name] = max(peaks[name], value / 2**30)

    def look_at_store() -> None:
        while not ended.wait(0.5):
            summary = memory_summary(address, stats_only=True)
            used = re.search(r"Plasma memory usage (\d+) MiB", summary)
            if used:
                peaks["object store"] = max(peaks["object store"], int(used[1]) / 2**10)

    threads = [threading.Thread(target=each) for each in (look, look_at_store)]
    for thread in threads:
        thread.start()
    try:
        yield peaks
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def own_bytes(process: psutil.Process) -> int:
    memory = process.memory_info()
    return int(memory.rss - memory.shared)


def with_planted(rows: int, threshold: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings with planted near copies; returns also [planted, 2] which are near which."""
    embeddings = like_text(rows, seed)
    rng = np.random.default_rng(seed + 1)
    copies = rng.choice(rows, rows // 20, replace=False)
    others = np.setdiff1d(np.arange(rows), copies)
    sources = others[rng.integers(0, len(others), len(copies))]
    cosine = rng.uniform(threshold + 0.002, 0.999, len(copies)).astype(np.float32)[:, None]
    aside = rng.standard_normal((len(copies), embeddings.shape[1]), dtype=np.float32)
    aside -= (aside * embeddings[sources]).sum(axis=1, keepdims=True) * embeddings[sources]
    aside /= np.linalg.norm(aside, axis=1, keepdims=True)
    embeddings[copies] = cosine * embeddings[sources] + np.sqrt(1 - cosine**2) * aside
    return embeddings.astype(np.float16), np.stack([sources, copies], axis=1)


def on_many_rows(rows: int, threshold: float) -> None:
    embeddings, pairs = with_planted(rows, threshold)
    values = np.random.default_rng(2).random(rows)
    with watched_memory() as peaks:
        start = perf_counter()
        near = near_on_ray(embeddings, values, threshold)
        wall_s = perf_counter() - start
    dropped = near.rows.contains(np.arange(rows))
    some = of_norm_1(embeddings[:PAIRWISE_ROWS])
    start = perf_counter()
    dropped_of_all_pairs(near_by_cosine(some, threshold), values[:PAIRWISE_ROWS])
    pairwise_s = (perf_counter() - start) * (rows / len(some)) ** 2
    assert near.sampled is not None
    sampled = near.sampled
    print(f"{rows} rows of {embeddings.shape[1]} numbers, cosine of at least {threshold}")
    print(f"dropped {dropped.sum()} in {near.rounds} rounds")
    print(f"planted pairs of which one is dropped: {dropped[pairs].any(axis=1).mean():.4f}")
    print(
        f"sample of {sampled.rows}: {sampled.found} of {sampled.near} rows near a better one found "
        f"({sampled.found / max(1, sampled.near):.4f})"
    )
    print("GiB at most: " + ", ".join(f"{name} {value:.2f}" for name, value in peaks.items()))
    print(f"the embeddings themselves: {embeddings.nbytes / 2**30:.2f} GiB")
    print(f"time over that of all pairs in one process: {wall_s / pairwise_s:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", help="a corpus of instructions and answers, in Parquet")
    parser.add_argument("--rows", type=int, default=999)
    parser.add_argument("--planted", type=int, default=200)
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--synthetic", type=int, help="rows of embeddings")
    parser.add_argument("--threshold", type=float, default=0.95)
    options = parser.parse_args()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with tempfile.TemporaryDirectory() as folder:
        # Workers import this module and the package.
        environment = {"env_vars": {"PYTHONPATH": str(Path(__file__).parents[1])}}
        ray.init(
            logging_level="warning",
            address="local", num_cpus=os.cpu_count(), include_dashboard=False,
            object_store_memory=2 << 30, _temp_dir=folder, runtime_env=environment,
            log_to_driver=False,
        )  # fmt: skip
        if options.corpus:
            on_a_corpus(
                plant(load_rows(options.corpus, options.rows), options.planted), options.encoder
            )
        if options.synthetic:
            on_many_rows(options.synthetic, options.threshold)
        ray.shutdown()


if __name__ == "__main__":
    main()
