"""Embeddings of one encoder, kept beside the scores: one piece for each unit.

A piece has the rows of its unit that were kept so far by any selection; a selection that keeps
other rows adds theirs. No Ray, no model.

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

# Raised when the same rows would get other embeddings, which must not be mixed with those kept.
_EMBEDDING_VERSION = 1
# Embeddings hardly repeat: neither compression nor a dictionary makes them smaller.
_ENCODING = {"compression": "none", "use_dictionary": ["row"], "write_statistics": False}


@dataclass(frozen=True)
class Embedded:
    """Embeddings of some rows of a unit.

    Attributes:
        numbers: [k] numbers of the rows in their shard, increasing.
        embeddings: [k, d]
    """

    numbers: RowNumbers
    embeddings: Embeddings16

    def lacks(self, numbers: RowNumbers) -> RowNumbers:
        """Those of `numbers` whose rows have no embedding here."""
        return np.setdiff1d(numbers, self.numbers, assume_unique=True)

    def of(self, numbers: RowNumbers) -> Embeddings16:
        """[n] numbers of rows that all have one -> [n, d] embeddings."""
        return self.embeddings[np.searchsorted(self.numbers, numbers)]

    def with_others(self, others: "Embedded") -> "Embedded":
        """The rows of both; a row that both have keeps the embedding that it has here."""
        new = np.isin(others.numbers, self.numbers, invert=True)
        numbers = np.concatenate([self.numbers, others.numbers[new]])
        order = np.argsort(numbers)
        embeddings = np.concatenate([self.embeddings, others.embeddings[new]])
        return Embedded(numbers[order], embeddings[order])


@dataclass(frozen=True)
class EmbeddingSet:
    """All embeddings of one encoder and one format of rows.

    Attributes:
        pieces: The folder of the pieces.
        identity: All that decides an embedding.
    """

    pieces: Location
    identity: dict[str, Any]

    def read(self, piece: str) -> Embedded | None:
        """Reads the piece of this name; None where there is none.

        Raises:
            SfRayError: The piece cannot be read.
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
        """Reads the embeddings of some rows of each unit, several units at a time.

        Yields:
            [n, d] for each unit, in the order of the units.

        Raises:
            SfRayError: A row has no embedding, or a piece cannot be read.
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
        """Adds rows to the piece of this name; adding the same rows twice changes nothing."""
        known = self.read(piece)
        whole = known.with_others(embedded) if known else embedded
        put_table(self.pieces.join(piece), table_of(whole), _ENCODING)

    def describe(self, encoder_name: str) -> None:
        """Writes beside the pieces, for people, which encoder made them; once."""
        where = self.pieces.join("encoder.json")
        described = {"identity": self.identity, "encoder_name": encoder_name}
        if read_bytes_or_none(where) is None:
            put_bytes(where, json.dumps(described, indent=2, ensure_ascii=False).encode())


def embedding_set_of(scores: Location, encoder: str, row_format: Format) -> EmbeddingSet:
    """The set of embeddings of an encoder and a format.

    Args:
        scores: SCORES, below which the set lies.
        encoder: Fingerprint of the encoder.
        row_format: The format of the rows.
    """
    identity = {
        "embedding_version": _EMBEDDING_VERSION,
        "encoder": encoder,
        "format": row_format.name,
        "columns": dict(row_format.columns),
    }
    # Listings leave out folders whose names begin with "_", so embeddings are never taken for
    # scores.
    return EmbeddingSet(scores.join(f"_embeddings/{digest(identity)}"), identity)


def table_of(embedded: Embedded) -> pa.Table:
    """Embeddings as a table, for Ray and Parquet: columns "row" and "embedding"."""
    values = pa.array(embedded.embeddings.reshape(-1))
    width = embedded.embeddings.shape[1]
    lists = pa.FixedSizeListArray.from_arrays(values, width)
    return pa.table({"row": embedded.numbers, "embedding": lists})


def embedded_of(table: pa.Table) -> Embedded:
    """The embeddings of a table that `table_of` made."""
    lists = table["embedding"].combine_chunks()
    values = lists.flatten().to_numpy(zero_copy_only=False)
    return Embedded(table["row"].to_numpy(), values.reshape(-1, lists.type.list_size))
