"""Embedding rows on a cluster until all that are kept have one, whatever is lost on the way.

    kept rows without embedding -> texts (CPU tasks) -> EmbedUnits (actors: encoder) -> sidecars

What travels between them are `bundles` of whole units.
"""

import functools
import gc
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import monotonic

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data

from sf_ray.config.options import SelectionOptions
from sf_ray.corpus.bundles import rewrap_unit, unwrap_bundle, unwrap_unit, wrap_bundle, wrap_unit
from sf_ray.corpus.examples import Example
from sf_ray.corpus.formats import Format
from sf_ray.corpus.planning import Corpus
from sf_ray.corpus.rows import BadLine, read_units, rows_of
from sf_ray.corpus.units import Place, group_reads
from sf_ray.errors import BadShardError, ClusterError
from sf_ray.runtime.actor_pool import ActorPool, size_pool
from sf_ray.runtime.cluster import resolve_device
from sf_ray.runtime.log import duration, say
from sf_ray.runtime.signals import watched
from sf_ray.runtime.tasks import Patience, set_context, user_errors
from sf_ray.scoring.score_set import ShardUnits, bad_shards, mark_bad
from sf_ray.selection.bitmap import Bitmap
from sf_ray.selection.chunks import Chunk, Kept, Numbers
from sf_ray.selection.corpus_pass import CorpusPass, MarkedBadError, chunks_of
from sf_ray.selection.diversity.embedder import EmbedderSpec
from sf_ray.selection.diversity.embedding_set import Embedded, EmbeddingSet, embedded_of, table_of
from sf_ray.storage.files import map_requests
from sf_ray.storage.lease import lease
from sf_ray.storage.location import Location

# What travels together: enough for an encoder to sort by length, and little enough to lose.
_BUNDLE_ROWS, _BUNDLE_BYTES = 2048, 16 << 20
# Units of one task that reads.
_UNITS_A_TASK = 16
_SAY_S = 30.0


@dataclass(frozen=True)
class _EmbeddingJob:
    """What is embedded, from where to where."""

    corpus: Location
    format: Format
    kept: Kept
    target: EmbeddingSet
    passes: CorpusPass

    def missing(self, chunk: Chunk) -> list[tuple[Place, Numbers]]:
        """Units of a chunk with kept rows that have no embedding, and those rows."""

        def lacks(unit: tuple[Place, Numbers]) -> tuple[Place, Numbers]:
            (shard, its_unit), numbers = unit
            there = self.target.read(shard.piece(its_unit))
            return unit[0], there.lacks(numbers) if there else numbers

        units = map_requests(self.target.pieces, lacks, self.kept.of_units(chunk))
        return [(place, numbers) for place, numbers in units if len(numbers)]


def embed_kept(
    options: SelectionOptions,
    corpus: Corpus,
    passes: CorpusPass,
    units: ShardUnits,
    dropped: Bitmap | None,
    kept: Kept,
    embedder: EmbedderSpec,
    row_format: Format,
    target: EmbeddingSet,
) -> None:
    """Sees to it that every kept row has an embedding.

    Args:
        options: Of the run.
        corpus: The corpus.
        passes: How to go over it.
        units: All of it.
        dropped: Which rows are not kept whatever `kept` says.
        kept: Reads which rows are kept.
        embedder: The encoder.
        row_format: Of the rows.
        target: Where embeddings go.

    Raises:
        LeaseError: Another run makes embeddings of this encoder there.
        ClusterError: Three times in a row nothing got done.
        MarkedBadError: Shards turned out to be bad.
        SfRayError: What is wrong with the encoder, or with storage.
    """
    job = _EmbeddingJob(corpus.location, row_format, kept, target, passes)
    chunks = chunks_of(units, dropped, _UNITS_A_TASK)
    left, todo = _todo(job, chunks)
    if not todo:
        return
    with lease(target.pieces):
        target.describe(Location(embedder.model.name).public_uri)
        patience = Patience(left)
        while todo:
            problem = ClusterError("some rows have no embedding after embedding them")
            try:
                _embed_once(options, job, todo, left, embedder)
            except ClusterError as error:
                problem = ClusterError(str(error))  # without its traceback, which holds the actors
            if passes.skip_bad and corpus.without(bad_shards(passes.pieces)) != corpus:
                raise MarkedBadError
            left, todo = _todo(job, chunks)
            patience.after_try(left, problem)
            if todo:
                say(f"note: {problem}; going on with the {left:,} rows that have no embedding")


def _todo(job: _EmbeddingJob, chunks: Sequence[Chunk]) -> tuple[int, list[Chunk]]:
    """How many rows need an embedding, and the chunks that have such rows."""
    rows = dict(job.passes.over(functools.partial(_count_missing, job), chunks))
    return sum(rows.values()), [chunk for chunk in chunks if rows[chunk.start]]


def _count_missing(job: _EmbeddingJob, chunk: Chunk) -> tuple[int, int]:
    return chunk.start, sum(len(numbers) for _, numbers in job.missing(chunk))


def _embed_once(
    options: SelectionOptions,
    job: _EmbeddingJob,
    todo: Sequence[Chunk],
    rows: int,
    embedder: EmbedderSpec,
) -> None:
    gc.collect()  # as before scoring: what hangs in a traceback holds actors
    device = resolve_device(options.device)
    pool = size_pool(device, len(todo))
    say(f"encoder {embedder.model.name} on {device}: {rows:,} rows to embed")
    stalled = ClusterError(
        f"no row has been embedded for {duration(options.stall_s)}: the cluster may lack what an "
        "embedding actor needs, or storage may hang; look at `ray status`, or raise --stall-s"
    )
    done, due = 0, monotonic() + _SAY_S
    embedded = _embedded(job, todo, pool, embedder, device)
    with user_errors(), watched(lambda: done, options.stall_s, stalled):
        for batch in embedded.iter_batches(batch_size=None, batch_format="pyarrow"):
            done += pc.sum(batch["rows"]).as_py() or 0
            if monotonic() >= due:
                say(f"embedding: {done:,} of {rows:,} rows")
                due = monotonic() + _SAY_S


def _embedded(
    job: _EmbeddingJob,
    todo: Sequence[Chunk],
    pool: ActorPool,
    embedder: EmbedderSpec,
    device: str,
) -> ray.data.Dataset:
    """The lazy dataset of how many rows were embedded, a row for each unit."""
    set_context()
    return (
        ray.data.from_items(
            [{"chunk": ray.cloudpickle.dumps(chunk)} for chunk in todo],
            override_num_blocks=len(todo),
        )
        .map_batches(
            functools.partial(_read_texts, job),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=pool.for_reading,
        )
        .map_batches(
            EmbedUnits, fn_constructor_args=(embedder, device, pool.threads), **pool.of_bundles
        )
        .map_batches(
            functools.partial(_put, job.target),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=pool.write_cpus,
        )
    )


def _read_texts(job: _EmbeddingJob, batch: pa.Table) -> Iterator[pa.Table]:
    """One chunk -> bundles of its units, each with the texts of rows without an embedding."""
    chunk: Chunk = ray.cloudpickle.loads(batch["chunk"][0].as_py())
    held: list[pa.Table] = []
    rows = size = 0
    for shard, of_shard in itertools.groupby(job.missing(chunk), key=lambda one: one[0][0]):
        wanted = {unit: numbers for (_, unit), numbers in of_shard}
        try:
            for plan in group_reads(shard, wanted):
                units = read_units(job.corpus, plan, job.format.top_columns)
                for unit, table in zip(plan.units, units, strict=True):
                    texts = _texts(job.format, table.take(wanted[unit] - unit.start))
                    held.append(wrap_unit(plan, unit, _text_table(wanted[unit], texts)))
                    rows, size = rows + len(texts), size + held[-1].nbytes
                    if rows >= _BUNDLE_ROWS or size >= _BUNDLE_BYTES:
                        yield wrap_bundle(held)
                        held, rows, size = [], 0, 0
        except BadShardError as error:
            if not job.passes.skip_bad:
                raise
            mark_bad(job.passes.pieces, shard.stem, error.reason)
    if held:
        yield wrap_bundle(held)


def _text_table(numbers: Numbers, texts: Sequence[str]) -> pa.Table:
    return pa.table({"row": numbers, "text": pa.array(texts, pa.large_string())})


def _texts(row_format: Format, rows: pa.Table) -> list[str]:
    """All that a row's example says, in the plain rendering."""
    texts = []
    for row in rows_of(rows):
        example = None if isinstance(row, BadLine) else row_format.render(row)
        assert isinstance(example, Example), "a row that is kept could be scored"
        texts.append(example.text)
    return texts


class EmbedUnits:
    """An actor that holds the encoder, and embeds a bundle of units at a time."""

    def __init__(self, embedder: EmbedderSpec, device: str, threads: int | None) -> None:
        self._embedder = embedder.start(device, threads)

    def __call__(self, bundle: pa.Table) -> pa.Table:
        """Units with texts -> the same with embeddings."""
        assert bundle.num_rows == 1, "a batch is one bundle"
        units = unwrap_bundle(bundle)
        rows = [unwrap_unit(unit) for unit in units]
        texts = [text for table in rows for text in table["text"].to_pylist()]
        embeddings = self._embedder.embed(texts)
        of_units = np.split(embeddings, np.cumsum([table.num_rows for table in rows])[:-1])
        return wrap_bundle(
            [
                rewrap_unit(unit, table_of(Embedded(table["row"].to_numpy(), its)))
                for unit, table, its in zip(units, rows, of_units, strict=True)
            ]
        )


def _put(target: EmbeddingSet, bundle: pa.Table) -> pa.Table:
    """Puts the embeddings of a bundle's units; tells how many rows of each."""

    def put(unit: pa.Table) -> int:
        embedded = embedded_of(unwrap_unit(unit))
        target.add(unit["piece"][0].as_py(), embedded)
        return len(embedded.numbers)

    rows = map_requests(target.pieces, put, unwrap_bundle(bundle))
    return pa.table({"rows": pa.array(rows, pa.int64())})
