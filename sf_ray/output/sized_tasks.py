"""Kept rows in the order of the input, written in Ray tasks to files of about one size.

How large rows become in an output file is found on a sample of them: another compression, and what
was not kept, change it.
"""

import functools
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from sf_ray.corpus.units import Place
from sf_ray.output.shard_writer import WrittenShard
from sf_ray.output.sized_parts import FileOfRows, bytes_in_corpus, count_kept, cut
from sf_ray.output.sorted_parts import output_columns
from sf_ray.output.writers.shard_form import AskedForm
from sf_ray.selection.chunks import Chunk, Kept
from sf_ray.selection.selection import Selection
from sf_ray.storage.location import Location

# Where units are written for a trial, and how many follow each other there: few would make little
# more than the beginning and the end of a file.
_TRIALS, _UNITS_A_TRIAL = 8, 4


def rows_to_file(selection: Selection, ifd_column: str, asked: AskedForm) -> FileOfRows:
    """How kept rows become a file; all files have the columns of the first shard.

    Raises:
        BadShardError: That shard changed, is gone, or cannot be read.
        SfRayError: Storage failed.
    """
    corpus = selection.corpus
    schema, form = output_columns(corpus.location, corpus.shards[0], ifd_column, asked)
    return FileOfRows(corpus.location, schema, form, selection.kept)


def plan_files(
    selection: Selection, file_of_rows: FileOfRows, file_bytes: int, name: str
) -> list[Chunk]:
    """The units of each file.

    Args:
        selection: The kept rows.
        file_of_rows: How they become a file.
        file_bytes: The size of a file, about.
        name: A name of such a file.

    Raises:
        MarkedBadError: Shards turned out to be bad.
        SfRayError: Storage failed.
    """
    places, rows = _kept_of_units(selection)
    unit_bytes = bytes_in_corpus(places, rows)
    filled = np.flatnonzero(rows)
    if not len(filled):
        return []
    starts = np.unique(np.linspace(0, len(filled) - 1, _TRIALS).round().astype(np.int64))
    trials = [slice(at, at + _UNITS_A_TRIAL) for at in filled[starts].tolist()]
    size = functools.partial(_size, file_of_rows, name)
    chunks = [_chunk(selection, places[trial]) for trial in trials]
    written = sum(selection.corpus_pass.over(size, chunks))
    unit_bytes *= written / sum(unit_bytes[trial].sum() for trial in trials)
    return [_chunk(selection, places[units]) for units in cut(unit_bytes, file_bytes)]


def write_sized(
    selection: Selection,
    file_of_rows: FileOfRows,
    chunks: Sequence[Chunk],
    names: Sequence[str],
    data: Location,
) -> list[WrittenShard]:
    """Writes the kept rows of a corpus, in its order, a file for each chunk.

    Args:
        selection: The kept rows.
        file_of_rows: How they become a file.
        chunks: From `plan_files`.
        names: The names of the files, in the same order.
        data: The folder that they go to.

    Raises:
        MarkedBadError: Shards turned out to be bad.
        SfRayError: A row has a field of the added column's name already, or storage failed.
    """
    name_of = {chunk.start: name for chunk, name in zip(chunks, names, strict=True)}
    put = functools.partial(_put, file_of_rows, data, name_of)
    return list(selection.corpus_pass.over(put, chunks))


def _kept_of_units(selection: Selection) -> tuple[list[Place], NDArray[np.int64]]:
    """All units of the corpus, and how many rows of each are kept."""
    chunks = selection.chunks()
    to_count = selection.corpus_pass
    if selection.kept.eligible.grouping is None:
        to_count = to_count.for_scores(selection.units)
    count = functools.partial(_count, selection.kept)
    counts = dict(to_count.over(count, chunks))
    places = [place for chunk in chunks for place in chunk.places]
    rows = [counts[chunk.start] for chunk in chunks if chunk.places]
    return places, np.concatenate(rows) if rows else np.empty(0, np.int64)


def _count(kept: Kept, chunk: Chunk) -> tuple[int, NDArray[np.int64]]:
    """The position of a chunk, and the kept rows of each of its units."""
    return chunk.start, count_kept(kept, chunk)


def _size(file_of_rows: FileOfRows, name: str, chunk: Chunk) -> int:
    return file_of_rows.size(name, chunk)


def _put(
    file_of_rows: FileOfRows, data: Location, name_of: Mapping[int, str], chunk: Chunk
) -> WrittenShard:
    return file_of_rows.put(data, name_of[chunk.start], chunk)


def _chunk(selection: Selection, places: Sequence[Place]) -> Chunk:
    (chunk,) = selection.with_known([Chunk(places).without(selection.dropped)])
    return chunk
