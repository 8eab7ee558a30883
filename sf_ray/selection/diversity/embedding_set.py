"""Embeddings of one encoder as sidecars: a piece for each unit, of the rows that were asked for so
far. No Ray, no model.

    SCORES/_embeddings/<id>/encoder.json
    SCORES/_embeddings/<id>/<shard>.<shard id>.<first row>-<last row>.parquet     row, embedding
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sf_ray.corpus.formats import Format
from sf_ray.errors import SfRayError
from sf_ray.scoring.score_set import digest
from sf_ray.selection.chunks import PlacedRows, RowNumbers
from sf_ray.storage.files import map_requests, put_bytes, put_table, read_bytes_or_none
from sf_ray.storage.location import Location

# Half precision takes half the storage, and a cosine is off by less than 0.001.
Embeddings16 = NDArray[np.float16]

# Raised when the same rows would get other embeddings.
_EMBEDDING_VERSION = 1
# Numbers like these have no repeats and cannot be packed.
_ENCODING = {"compression": "none", "use_dictionary": ["row"], "write_statistics": False}


@dataclass(frozen=True)
class Embedded:
    """Embeddings of some rows of a unit.

    Attributes:
        numbers: [k] of the rows in their shard, increasing.
        embeddings: [k, d]
    """

    numbers: RowNumbers
    embeddings: Embeddings16

    def lacks(self, numbers: RowNumbers) -> RowNumbers:
        """Those of some rows that have no embedding here."""
        return np.setdiff1d(numbers, self.numbers, assume_unique=True)

    def of(self, numbers: RowNumbers) -> Embeddings16:
        """[n] rows that are all here -> [n, d]."""
        return self.embeddings[np.searchsorted(self.numbers, numbers)]

    def with_others(self, others: "Embedded") -> "Embedded":
        """The rows of both; of those that both have, ours."""
        new = np.isin(others.numbers, self.numbers, invert=True)
        numbers = np.concatenate([self.numbers, others.numbers[new]])
        order = np.argsort(numbers)
        embeddings = np.concatenate([self.embeddings, others.embeddings[new]])
        return Embedded(numbers[order], embeddings[order])


@dataclass(frozen=True)
class EmbeddingSet:
    """The embeddings of one identity.

    Attributes:
        pieces: Folder of its pieces.
        identity: All that decides an embedding.
    """

    pieces: Location
    identity: dict[str, Any]

    def read(self, piece: str) -> Embedded | None:
        """What a unit's piece holds; None where it has none.

        Raises:
            SfRayError: It cannot be read.
        """
        where = self.pieces.join(piece)
        data = read_bytes_or_none(where)
        if data is None:
            return None
        try:
            with pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True) as file:
                table = file.read(use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise SfRayError(
                f"embeddings {where.public_uri} cannot be read ({error}); delete the file, and "
                "they are made anew"
            ) from error
        return embedded_of(table)

    def read_rows(self, units: Sequence[PlacedRows]) -> Iterator[Embeddings16]:
        """[rows, d] of each unit's rows, several units at a time, in their order.

        Raises:
            SfRayError: A row has none, or a piece cannot be read.
        """

        def read(rows: PlacedRows) -> Embeddings16:
            (shard, unit), numbers = rows
            embedded = self.read(shard.piece(unit))
            if embedded is None or len(embedded.lacks(numbers)):
                where = self.pieces.join(shard.piece(unit)).public_uri
                raise SfRayError(f"embeddings {where} lack rows that they had; run again")
            return embedded.of(numbers)

        return map_requests(self.pieces, read, units)

    def add(self, piece: str, embedded: Embedded) -> None:
        """Puts embeddings of more rows of a unit; doing so twice changes nothing."""
        there = self.read(piece)
        whole = there.with_others(embedded) if there else embedded
        put_table(self.pieces.join(piece), table_of(whole), _ENCODING)

    def describe(self, encoder_name: str) -> None:
        """Leaves word beside the pieces of what made them."""
        where = self.pieces.join("encoder.json")
        described = {"identity": self.identity, "encoder_name": encoder_name}
        if read_bytes_or_none(where) is None:
            put_bytes(where, json.dumps(described, indent=2, ensure_ascii=False).encode())


def embedding_set_of(scores: Location, encoder: str, row_format: Format) -> EmbeddingSet:
    """The set of an encoder, by its fingerprint, and of a format, below SCORES."""
    identity = {
        "embedding_version": _EMBEDDING_VERSION,
        "encoder": encoder,
        "format": row_format.name,
        "columns": dict(row_format.columns),
    }
    # No listing of score pieces goes into a folder that begins so.
    return EmbeddingSet(scores.join(f"_embeddings/{digest(identity)}"), identity)


def table_of(embedded: Embedded) -> pa.Table:
    """Embeddings as Ray and Parquet carry them."""
    values = pa.array(embedded.embeddings.reshape(-1))
    width = embedded.embeddings.shape[1]
    lists = pa.FixedSizeListArray.from_arrays(values, width)
    return pa.table({"row": embedded.numbers, "embedding": lists})


def embedded_of(table: pa.Table) -> Embedded:
    """Embeddings as `table_of` had them."""
    lists = table["embedding"].combine_chunks()
    values = lists.flatten().to_numpy(zero_copy_only=False)
    return Embedded(table["row"].to_numpy(), values.reshape(-1, lists.type.list_size))
