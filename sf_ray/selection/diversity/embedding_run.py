"""Embeds the kept rows on a cluster until every one has an embedding, whatever is lost on the way.

    _read_texts (CPU tasks)  ->  EmbedUnits (actors with the encoder)  ->  _put (CPU tasks)

Between the stages travel bundles of whole units. Only rows that have no embedding yet are read.
"""

import functools
import gc
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data

from sf_ray.config.selection_options import SelectionOptions
from sf_ray.corpus.bundles import UnitRows, bundle_of, bundles_of, units_of_bundle
from sf_ray.corpus.contained import contained
from sf_ray.corpus.examples import Example
from sf_ray.corpus.formats import Format
from sf_ray.corpus.rows import BadLine, read_units, rows_of
from sf_ray.corpus.units import Shard, Unit, group_reads
from sf_ray.errors import ClusterError, SfRayError
from sf_ray.runtime.actor_pool import ActorPool, size_pool
from sf_ray.runtime.cluster import resolve_device
from sf_ray.runtime.log import duration, say
from sf_ray.runtime.signals import watched
from sf_ray.runtime.tasks import set_context, until_done, user_errors
from sf_ray.scoring.score_set import bad_shards, or_mark
from sf_ray.selection.chunks import Chunk, Kept, PlacedRows, RowNumbers
from sf_ray.selection.corpus_pass import CorpusPass, MarkedBadError
from sf_ray.selection.diversity.embedder import EmbedderSpec
from sf_ray.selection.diversity.embedding_set import Embedded, EmbeddingSet, embedded_of, table_of
from sf_ray.selection.selection import Selection
from sf_ray.storage.files import map_requests
from sf_ray.storage.lease.lease import lease
from sf_ray.storage.location import Location

# Texts at which a bundle is full: enough for the encoder to sort them by length, and few enough
# to lose with a node.
_BUNDLE_ROWS = 2048
# Units of one task that reads.
_UNITS_A_TASK = 16
# Seconds between two lines that say how far the embedding is.
_SAY_S = 30.0


@dataclass(frozen=True)
class _EmbeddingJob:
    """What the tasks need: where rows are read from, which, and where their embeddings go."""

    corpus: Location
    format: Format
    kept: Kept
    target: EmbeddingSet
    corpus_pass: CorpusPass

    def missing(self, chunk: Chunk) -> list[PlacedRows]:
        """The units of a chunk with kept rows that have no embedding, and the numbers of these."""

        def without_embedding(kept: PlacedRows) -> PlacedRows:
            place, numbers = kept
            shard, unit = place
            embedded = self.target.read(shard.piece(unit))
            return PlacedRows(place, embedded.lacks(numbers) if embedded else numbers)

        units = map_requests(self.target.pieces, without_embedding, self.kept.of_units(chunk))
        return [rows for rows in units if len(rows.numbers)]


class _Missing(NamedTuple):
    """Kept rows without an embedding: how many, and the chunks that have such rows."""

    rows: int
    chunks: list[Chunk]


def embed_kept(
    options: SelectionOptions,
    selection: Selection,
    embedder: EmbedderSpec,
    row_format: Format,
    target: EmbeddingSet,
) -> None:
    """Embeds every kept row that has no embedding.

    Args:
        options: Options of the run.
        selection: The kept rows.
        embedder: The encoder.
        row_format: The format of the rows.
        target: Where the embeddings go.

    Raises:
        LeaseError: Another run makes embeddings of this encoder there.
        ClusterError: Three attempts in a row embedded no row.
        MarkedBadError: Shards turned out to be bad.
        SfRayError: Something is wrong with the encoder or with storage.
    """
    corpus, corpus_pass = selection.corpus, selection.corpus_pass
    job = _EmbeddingJob(corpus.location, row_format, selection.kept, target, corpus_pass)
    chunks = selection.chunks(_UNITS_A_TASK)

    def attempt(todo: _Missing) -> None:
        _embed_once(options, job, todo, embedder)

    def missing() -> _Missing:
        # Shards that the attempt marked change the corpus, and with it which rows are kept.
        if corpus_pass.skip_bad and corpus.without(bad_shards(corpus_pass.pieces)) != corpus:
            raise MarkedBadError
        return _missing(job, chunks)

    def before_retry(rows: int, problem: ClusterError) -> None:
        say(f"note: {problem}; going on with the {rows:,} rows that have no embedding")

    todo = _missing(job, chunks)
    if not todo.rows:
        return
    with lease(target.pieces):
        target.describe(Location(embedder.model.name).public_uri)
        until_done(
            todo,
            attempt,
            missing,
            lambda todo: todo.rows,
            before_retry,
            "some rows have no embedding after embedding them",
        )


def _missing(job: _EmbeddingJob, chunks: Sequence[Chunk]) -> _Missing:
    rows = dict(job.corpus_pass.over(functools.partial(_count_missing, job), chunks))
    return _Missing(sum(rows.values()), [chunk for chunk in chunks if rows[chunk.start]])


def _count_missing(job: _EmbeddingJob, chunk: Chunk) -> tuple[int, int]:
    """Start of the chunk, and how many of its kept rows have no embedding."""
    return chunk.start, sum(len(numbers) for _, numbers in job.missing(chunk))


def _embed_once(
    options: SelectionOptions, job: _EmbeddingJob, todo: _Missing, embedder: EmbedderSpec
) -> None:
    # Cycles in the traceback of an attempt before this one keep its actors alive, and with them
    # the CPUs that the new actors wait for.
    gc.collect()
    device = resolve_device(options.device)
    pool = size_pool(device, len(todo.chunks))
    say(f"encoder {embedder.model.name} on {device}: {todo.rows:,} rows to embed")
    stalled = ClusterError(
        f"no row has been embedded for {duration(options.stall_s)}: the cluster may lack what an "
        "embedding actor needs, or storage may hang; look at `ray status`, or raise --stall-s"
    )
    done, due_s = 0, monotonic() + _SAY_S
    embedded = _embedded(job, todo.chunks, pool, embedder, device)
    with user_errors(), watched(lambda: done, options.stall_s, stalled):
        for batch in embedded.iter_batches(batch_size=None, batch_format="pyarrow"):
            done += pc.sum(batch["rows"]).as_py() or 0
            if monotonic() >= due_s:
                say(f"embedding: {done:,} of {todo.rows:,} rows")
                due_s = monotonic() + _SAY_S


def _embedded(
    job: _EmbeddingJob,
    chunks: Sequence[Chunk],
    pool: ActorPool,
    embedder: EmbedderSpec,
    device: str,
) -> ray.data.Dataset:
    """A dataset, not yet run: one row for each unit, with the number of rows that were embedded."""
    set_context()
    return (
        ray.data.from_items(
            [{"chunk": ray.cloudpickle.dumps(chunk)} for chunk in chunks],
            override_num_blocks=len(chunks),
        )
        .map_batches(
            functools.partial(_read_texts, job),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=pool.read_cpus,
        )
        .map_batches(
            EmbedUnits,
            fn_constructor_args=(embedder, device, pool.threads),
            **pool.map_batches_options,
        )
        .map_batches(
            functools.partial(_put, job.target),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=pool.write_cpus,
        )
    )


def _read_texts(job: _EmbeddingJob, batch: pa.Table) -> Iterator[pa.Table]:
    """One chunk -> bundles of its units, each unit with the texts of its rows without embedding."""
    chunk: Chunk = ray.cloudpickle.loads(batch["chunk"][0].as_py())
    missing_by_shard = itertools.groupby(job.missing(chunk), key=lambda missing: missing[0][0])
    units = (
        unit
        for shard, missing in missing_by_shard
        for unit in _units_with_texts(job, shard, {unit: numbers for (_, unit), numbers in missing})
    )
    return bundles_of(units, max_rows=_BUNDLE_ROWS)


def _units_with_texts(
    job: _EmbeddingJob, shard: Shard, numbers_of: dict[Unit, RowNumbers]
) -> Iterator[UnitRows]:
    """Units of one shard, each with the texts of some of its rows."""
    with or_mark(job.corpus_pass.pieces, job.corpus_pass.skip_bad, [shard]):
        for plan in group_reads(shard, numbers_of):
            tables = read_units(job.corpus, plan, job.format.top_columns)
            for unit, table in zip(plan.units, tables, strict=True):
                numbers = numbers_of[unit]
                texts = _texts(job.format, table.take(numbers - unit.start))
                columns = {"row": numbers, "text": pa.array(texts, pa.large_string())}
                yield UnitRows.of(plan, unit, pa.table(columns))


def _texts(row_format: Format, rows: pa.Table) -> list[str]:
    """[rows] the whole text of each row's example, in the plain rendering."""
    texts = []
    for row in rows_of(rows):
        example = row if isinstance(row, BadLine) else row_format.render(row)
        text = contained(_text, example) if isinstance(example, Example) else example
        if not isinstance(text, str):
            raise SfRayError(
                f"a row that has a score cannot be read any more ({text.reason}): its score is "
                "of an older version; score the corpus again"
            )
        texts.append(text)
    return texts


def _text(example: Example) -> str:
    return example.text


class EmbedUnits:
    """An actor that holds the encoder, and embeds one bundle of units at a time."""

    def __init__(self, embedder: EmbedderSpec, device: str, threads: int | None) -> None:
        self._embedder = embedder.start(device, threads)

    def __call__(self, bundle: pa.Table) -> pa.Table:
        """A bundle of units with texts -> the same units with embeddings."""
        assert bundle.num_rows == 1, "a batch is one bundle"
        units = units_of_bundle(bundle)
        # All texts of the bundle at once, so that the encoder can sort them by length.
        embeddings = self._embedder.embed(
            [text for unit in units for text in unit.rows["text"].to_pylist()]
        )
        ends = np.cumsum([unit.rows.num_rows for unit in units])
        return bundle_of(
            [
                unit.with_rows(table_of(Embedded(unit.rows["row"].to_numpy(), of_unit)))
                for unit, of_unit in zip(units, np.split(embeddings, ends[:-1]), strict=True)
            ]
        )


def _put(target: EmbeddingSet, bundle: pa.Table) -> pa.Table:
    """Puts the embeddings of a bundle's units; returns the number of rows of each unit."""

    def put(unit: UnitRows) -> int:
        embedded = embedded_of(unit.rows)
        target.add(unit.piece, embedded)
        return len(embedded.numbers)

    rows = map_requests(target.pieces, put, units_of_bundle(bundle))
    return pa.table({"rows": pa.array(rows, pa.int64())})
