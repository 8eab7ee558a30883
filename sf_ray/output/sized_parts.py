"""Kept rows in the order of the input, cut into files of about one size. No Ray, no model.

A file has whole units, so that each can be written by a task of its own which reads nothing else.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sf_ray.corpus.units import Place
from sf_ray.output.shard_writer import Writer, WrittenShard, writer_for
from sf_ray.output.sorted_parts import kept_tables
from sf_ray.output.writers.shard_form import ShardForm
from sf_ray.selection.chunks import Chunk, Kept
from sf_ray.storage.files import put_whole
from sf_ray.storage.location import Location

# Units whose scores one read looks at together, however many a file has.
_UNITS_AT_ONCE = 256


@dataclass(frozen=True)
class FileOfRows:
    """How the kept rows of some units become a file.

    Attributes:
        corpus: The folder of the shards.
        schema: The schema of a file.
        form: How it is stored.
        kept: Reads which rows are kept.
    """

    corpus: Location
    schema: pa.Schema
    form: ShardForm
    kept: Kept

    def put(self, data: Location, name: str, chunk: Chunk) -> WrittenShard:
        """Writes the kept rows of a chunk, in the order of the corpus.

        Args:
            data: The folder that the file goes to.
            name: Its name.
            chunk: The units.

        Raises:
            BadShardError: A shard changed, is gone, or cannot be read.
            SfRayError: A row has a field of the added column's name already, a shard stores its
                columns otherwise than the first, or storage failed.
        """
        with put_whole(data.join(name)) as path:
            rows = self._write(path, name, chunk)
            return WrittenShard(name, rows, path.stat().st_size)

    def size(self, name: str, chunk: Chunk) -> int:
        """Bytes of the file that the kept rows of a chunk make; raises what `put` raises."""
        with TemporaryDirectory() as folder:
            path = Path(folder, name)
            self._write(path, name, chunk)
            return path.stat().st_size

    def _write(self, path: Path, name: str, chunk: Chunk) -> int:
        rows = 0
        with writer_for(name, path, self.schema, self.form) as writer:
            for part in parts_of_chunk(chunk, _UNITS_AT_ONCE):
                rows += self._write_some(writer, part)
        return rows

    def _write_some(self, writer: Writer, chunk: Chunk) -> int:
        with_position = self.schema.append(pa.field("position", pa.int64(), nullable=False))
        rows = 0
        for table in kept_tables(self.corpus, with_position, self.kept.read(chunk), chunk):
            columns = pa.Table.from_arrays(table.columns[:-1], schema=self.schema)
            for batch in columns.to_batches():
                writer.write(batch)
            rows += table.num_rows
        return rows


def count_kept(kept: Kept, chunk: Chunk) -> NDArray[np.int64]:
    """[units] the kept rows of each unit of a chunk.

    Raises:
        BadShardError: A shard cannot be read.
        SfRayError: A score piece cannot be read.
    """
    is_kept = ~np.isnan(kept.read(chunk).ifd)
    ends = np.cumsum([unit.rows for _, unit in chunk.places])
    counted = np.concatenate([[0], np.cumsum(is_kept)])[np.concatenate([[0], ends])]
    rows: NDArray[np.int64] = np.diff(counted)
    return rows


def bytes_in_corpus(places: Sequence[Place], rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """[units] about the bytes that some rows of each unit take in their shard.

    Args:
        places: The units.
        rows: [units] how many rows of each.
    """
    row_bytes = [place.shard.file.size / max(1, place.shard.rows) for place in places]
    return np.multiply(rows, row_bytes, dtype=np.float64)


def cut(unit_bytes: NDArray[np.float64], file_bytes: int) -> list[slice]:
    """Which units follow each other into one file.

    Files get about equal sizes: the last one is not what the others have left.

    Args:
        unit_bytes: [units] what the kept rows of each unit take.
        file_bytes: The size of a file, about; one unit may have more.
    """
    ends = np.cumsum(unit_bytes)
    if not len(ends) or not ends[-1]:
        return []
    files = max(1, round(ends[-1] / file_bytes))
    # The file in which the middle of a unit lies.
    number = ((ends - unit_bytes / 2) * files / ends[-1]).astype(np.int64).clip(max=files - 1)
    edges = np.flatnonzero(np.diff(number)) + 1
    starts, stops = np.concatenate([[0], edges]), np.concatenate([edges, [len(ends)]])
    return [
        slice(int(start), int(stop))
        for start, stop in zip(starts, stops, strict=True)
        if unit_bytes[start:stop].any()  # no file is empty
    ]


def parts_of_chunk(chunk: Chunk, units: int) -> Iterator[Chunk]:
    """A chunk in smaller ones of at most so many units."""
    for at in range(0, len(chunk.places), units):
        yield Chunk(chunk.places[at : at + units], known=chunk.known).without(chunk.dropped)
