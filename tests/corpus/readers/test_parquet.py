"""Parquet files that are cut, encrypted or large; batches that are bounded by bytes."""

import base64
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow.parquet import encryption

from sf_ray.corpus.readers import parquet_rows
from sf_ray.corpus.readers.parquet import (
    ParquetReader,
    StoredParquetReader,
    read_parquet_footer,
)
from sf_ray.errors import BadShardError
from sf_ray.storage.listing import list_files
from sf_ray.storage.location import Location
from sf_ray.storage.versioned_file import open_bytes


class Keys(encryption.KmsClient):  # type: ignore[misc]
    """Wraps keys by writing them in base64."""

    def wrap_key(self, key: bytes, name: str) -> bytes:
        return base64.b64encode(key)

    def unwrap_key(self, wrapped: bytes, name: str) -> bytes:
        return base64.b64decode(wrapped)


@pytest.mark.parametrize("is_footer_plain", [True, False])
def test_an_encrypted_file_is_refused_by_that_name(tmp_path: Path, is_footer_plain: bool) -> None:
    properties = encryption.CryptoFactory(lambda _: Keys()).file_encryption_properties(
        encryption.KmsConnectionConfig(),
        encryption.EncryptionConfiguration(
            footer_key="f", column_keys={"c": ["b"]}, plaintext_footer=is_footer_plain
        ),
    )
    table = pa.table({"a": ["x"], "b": ["y"]})
    path = tmp_path / "a.parquet"
    with pq.ParquetWriter(path, table.schema, encryption_properties=properties) as writer:
        writer.write_table(table)
    location = Location(str(path))
    (file,) = list_files(location)
    with pytest.raises(BadShardError, match="a.parquet: encrypted Parquet"):
        read_parquet_footer(location, file)


def test_the_types_of_a_plan_are_those_of_the_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    times = pa.array([0, 1], pa.timestamp("us"))
    pq.write_table(pa.table({"at": times}), path, use_deprecated_int96_timestamps=True)
    location = Location(str(path))
    (file,) = list_files(location)
    with open_bytes(location, file) as handle:
        reader = ParquetReader(file, handle)
        assert reader.schema.field("at").type == pa.timestamp("us")
        assert read_parquet_footer(location, file).schema.equals(reader.schema)


@pytest.mark.parametrize("together_bytes", [1, 100_000, 128 << 20])
@pytest.mark.parametrize("reads", [ParquetReader, StoredParquetReader])
def test_batches_are_bounded_by_bytes_and_rows_stay_in_order(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    reads: type[ParquetReader] | type[StoredParquetReader],
    together_bytes: int,
) -> None:
    path = tmp_path / "a.parquet"
    texts = [f"{row} " * 2000 if row < 50 else "short" for row in range(500)]
    pq.write_table(
        pa.table({"a": texts, "n": range(500)}), path, row_group_size=50, use_dictionary=False
    )
    monkeypatch.setattr(parquet_rows, "_BATCH_BYTES", 50_000)
    monkeypatch.setattr(parquet_rows, "_TOGETHER_BYTES", together_bytes)
    location = Location(str(path))
    (file,) = list_files(location)
    with open_bytes(location, file) as handle:
        batches = list(reads(file, handle).batches(200))
    assert max(batch.num_rows for batch in batches) <= 200
    assert max(batch.nbytes for batch in batches) < 100_000
    assert [row for batch in batches for row in batch[1].to_pylist()] == list(range(500))
    if together_bytes == 1:  # each row group alone: small rows do not pay for the large ones
        assert max(batch.num_rows for batch in batches) == 50


def test_text_that_is_stored_once_and_repeated_makes_smaller_batches(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    texts = [f"{row % 7} " * 200_000 for row in range(2_000)]  # 2.8 MB as a dictionary
    pq.write_table(pa.table({"a": texts}), path, compression="none")
    location = Location(str(path))
    (file,) = list_files(location)
    with open_bytes(location, file) as handle:
        rows = [batch.num_rows for batch in StoredParquetReader(file, handle).batches(8192)]
    assert max(rows) < 200
    assert sum(rows) == 2_000
