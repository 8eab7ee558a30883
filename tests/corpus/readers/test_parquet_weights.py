"""Parquet rows that are small in the file and would be huge in memory."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sf_ray.corpus.readers import parquet_weights
from sf_ray.corpus.readers.parquet import ParquetReader, StoredParquetReader
from sf_ray.corpus.readers.parquet_levels import longest_delta_text
from sf_ray.corpus.readers.parquet_weights import page_header
from sf_ray.corpus.readers.thrift_compact import I32, STRUCT, Struct, decode, encode
from sf_ray.errors import BadShardError
from sf_ray.storage.listing import list_files
from sf_ray.storage.location import Location
from sf_ray.storage.versioned_file import open_bytes
from tests.support.parquet_bytes import (
    DELTA_BYTE_ARRAY,
    INT32,
    RLE_DICTIONARY,
    TEXT,
    ZSTD,
    data_page,
    delta_packed,
    dictionary_page,
    parquet_bytes,
    runs,
    varint,
)

MIB = 1 << 20
READERS = [ParquetReader, StoredParquetReader]


def batches(
    path: Path, reads: type[ParquetReader] | type[StoredParquetReader], rows: int = 4096
) -> list[pa.RecordBatch]:
    location = Location(str(path))
    (file,) = list_files(location)
    with open_bytes(location, file) as handle:
        return list(reads(file, handle).batches(rows))


def nulls(rows: int, last: int) -> bytes:
    """Empty lists, and a last row of `last` nulls: (levels of rows, levels of nulls)."""
    levels = runs((rows, 0), (last - 1, 1)) + runs((rows - 1, 1), (last, 2))
    page = data_page(levels, rows - 1 + last)
    return parquet_bytes([page], rows, rows - 1 + last, INT32, is_list=True)


def texts(rows: int, last: int, size: int) -> bytes:
    """Empty lists, and a last row of `last` times one text of a dictionary."""
    levels = runs((rows, 0), (last - 1, 1)) + runs((rows - 1, 1), (last, 3))
    values = data_page(
        levels + b"\1" + varint(last << 1) + b"\0", rows - 1 + last, RLE_DICTIONARY, ZSTD
    )
    pages = [dictionary_page(b"x" * size, ZSTD), values]
    return parquet_bytes(pages, rows, rows - 1 + last, TEXT, is_list=True, codec=ZSTD)


@pytest.mark.parametrize("reads", READERS)
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (nulls(1, 10**9), "a row in it has 1,000,000,000 values, more than --max-row-bytes allows"),
        (nulls(1000, 3 * 10**8), "a row in it has 300,000,000 values"),
        (texts(1, 3000, MIB), "a row in it may take 3,000 MiB, more than --max-row-bytes allows"),
        (texts(50, 3000, MIB), "a row in it may take 3,000 MiB"),
    ],
    ids=["nulls", "nulls behind empty lists", "texts", "texts behind empty lists"],
)  # fmt: skip
def test_a_list_that_would_fill_the_memory_is_refused(
    tmp_path: Path,
    reads: type[ParquetReader] | type[StoredParquetReader],
    data: bytes,
    reason: str,
) -> None:
    assert len(data) < 10_000
    (tmp_path / "a.parquet").write_bytes(data)
    with pytest.raises(BadShardError, match=reason):
        batches(tmp_path, reads)


@pytest.mark.parametrize("reads", READERS)
@pytest.mark.parametrize("free", [0, 128 * MIB])
def test_lists_that_rows_may_have_are_read(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    reads: type[ParquetReader] | type[StoredParquetReader],
    free: int,
) -> None:
    monkeypatch.setattr(parquet_weights, "_FREE_BYTES", free)
    for name, data, rows, last in [
        ("a", nulls(5, 1000), 5, 1000),
        ("b", texts(5, 100, 1000), 5, 100),
    ]:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "a.parquet").write_bytes(data)
        table = pa.Table.from_batches(batches(folder, reads))
        assert table.num_rows == rows
        column = table.column(0)
        if reads is StoredParquetReader:  # as it is stored, a list is a struct of a list
            column = column.combine_chunks().flatten()[0]
        lengths = [len(column[row].values or ()) for row in range(rows)]
        assert lengths == [0] * (rows - 1) + [last]


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("codec", ["none", "snappy", "gzip", "brotli", "zstd", "lz4"])
def test_lists_are_judged_in_pages_of_every_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, codec: str
) -> None:
    """A batch has fewer rows where a row is large, whatever the pages look like."""
    monkeypatch.setattr(parquet_weights, "_FREE_BYTES", 0)
    lists = [[f"{row % 3}" * 1000] * (1 + row % 40) for row in range(400)]
    pq.write_table(
        pa.table({"a": lists, "b": [[[row, None]] * 3 for row in range(400)]}),
        tmp_path / "a.parquet",
        compression=codec,
        data_page_version=version,
        data_page_size=500,
        write_batch_size=16,
    )
    whole = pa.Table.from_batches(batches(tmp_path, ParquetReader))
    monkeypatch.setattr(parquet_weights, "REPEATED_BYTES", 2_000_000)
    read = batches(tmp_path, ParquetReader)
    assert pa.Table.from_batches(read).equals(whole)
    assert whole["a"].to_pylist() == lists
    # 40 texts of 1,008 bytes are a row.
    assert max(batch.num_rows for batch in read) <= 2_000_000 // 40_000


@pytest.mark.parametrize("reads", READERS)
def test_a_text_that_goes_on_from_the_one_before_makes_smaller_batches(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    reads: type[ParquetReader] | type[StoredParquetReader],
) -> None:
    monkeypatch.setattr(parquet_weights, "REPEATED_BYTES", 8 * MIB)
    rows, size = 300, 100_000
    body = delta_packed(0, size, rows - 1) + delta_packed(size, 0, rows - 1) + b"x" * size
    page = data_page(runs((rows, 1)) + body, rows, DELTA_BYTE_ARRAY, ZSTD)
    data = parquet_bytes([page], rows, rows, TEXT, is_list=False, codec=ZSTD)
    assert len(data) < 10_000
    (tmp_path / "a.parquet").write_bytes(data)
    read = batches(tmp_path, reads)
    assert max(batch.num_rows for batch in read) <= 8 * MIB // size // 4
    sizes = [len(text.as_py()) for batch in read for text in batch.column(0)]
    assert sizes == [size] * rows


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["none", "zstd"])
@pytest.mark.parametrize("has_nulls", [False, True])
def test_chats_whose_texts_go_on_from_each_other_are_read_as_any(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    version: str,
    compression: str,
    has_nulls: bool,
) -> None:
    """A page of a mebibyte does not make each of its texts one."""
    found = []

    def noted(values: bytes) -> int | None:
        found.append(longest_delta_text(values))
        return found[-1]

    monkeypatch.setattr(parquet_weights, "longest_delta_text", noted)
    texts = [f"{turn * turn:x}" * (turn % 50 + 1) for turn in range(400)]
    rows: list[list[str | None]] = [[*texts[at:], *texts[:at]] for at in range(0, 400, 20)]
    if has_nulls:
        rows += [[None, *texts], [None]]
    element = pa.field("element", pa.string(), nullable=has_nulls)
    schema = pa.schema([pa.field("a", pa.list_(element), nullable=has_nulls)])
    table = pa.Table.from_pydict({"a": rows}, schema=schema)
    pq.write_table(
        table, tmp_path / "a.parquet", use_dictionary=False, compression=compression,
        column_encoding={"a.list.element": "DELTA_BYTE_ARRAY"}, data_page_version=version,
        data_page_size=20_000, write_batch_size=100,
    )  # fmt: skip
    read = batches(tmp_path, ParquetReader)
    assert [row for batch in read for row in batch.column(0).to_pylist()] == rows
    assert len(read) == 1
    assert len(found) > 2
    assert max(found, key=lambda size: size or 0) == max(map(len, texts))
    assert None not in found


def test_columns_count_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_weights, "REPEATED_BYTES", 8 * MIB)
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 600, pa.int32()), ["x" * 100_000])
    table = pa.table({f"c{number}": text for number in range(4)})
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd", store_schema=False)
    read = batches(tmp_path, ParquetReader)
    assert max(batch.num_rows for batch in read) <= 8 * MIB // 400_000
    assert sum(batch.num_rows for batch in read) == 600


def test_nothing_stays_in_memory_of_rows_that_were_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arrow's reader keeps an error that it was given, and with it what the error refers to."""
    monkeypatch.setattr(parquet_weights, "REPEATED_BYTES", 4 * MIB)
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 600, pa.int32()), ["x" * 50_000])
    table = pa.table({"a": text, "b": text})
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd", store_schema=False)
    batches(tmp_path, ParquetReader)
    before = pa.total_allocated_bytes()
    for _ in range(3):
        batches(tmp_path, ParquetReader)
    assert pa.total_allocated_bytes() - before < MIB


@pytest.mark.parametrize(("nulls", "levels"), [(6, 5), (-1, 5), (5, -1), (2**31 - 1, 0)])
def test_a_page_with_more_levels_than_bytes_is_damaged(nulls: int, levels: int) -> None:
    inside: Struct = dict(enumerate(((I32, n) for n in (3, 0, 3, 7, nulls, levels)), 1))
    header = encode({1: (I32, 3), 2: (I32, 10), 3: (I32, 10), 8: (STRUCT, inside)})
    with pytest.raises(pa.ArrowInvalid, match="a page header in it is damaged"):
        page_header(decode(header)[0])
