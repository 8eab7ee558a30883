import bz2
import gzip
import json
import lzma
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sf_ray.corpus.planning import plan_corpus
from sf_ray.corpus.readers.row_limits import _sizes_of_rows, rows_problem, size_of, split
from sf_ray.corpus.rows import read_units, rows_of
from sf_ray.corpus.units import group_reads, units_of
from sf_ray.errors import BadShardError
from sf_ray.storage.location import Location
from tests.support.arrow_types import arrays

MOST = 4096


def read(folder: Path, max_row_bytes: int = MOST, columns: list[str] | None = None) -> int:
    """Reads all rows of the only shard; returns how many there are."""
    place = Location(str(folder), max_row_bytes=max_row_bytes)
    corpus = plan_corpus(place)
    (shard,) = corpus.shards
    return sum(
        len(list(rows_of(table)))
        for plan in group_reads(shard, units_of(shard.row_groups, 2048))
        for table in read_units(place, plan, columns or ["instruction", "output"])
    )


def packed(suffix: str, data: bytes) -> bytes:
    if suffix == "zst" or suffix == "lz4":
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, {"zst": "zstd"}.get(suffix, suffix)) as stream:
            stream.write(data)
        return bytes(sink.getvalue().to_pybytes())
    pack = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}
    return pack[suffix](data) if suffix in pack else data


SUFFIXES = ["plain", "gz", "zst", "bz2", "xz", "lz4"]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("shape", ["lines", "array"])
def test_a_row_is_as_long_as_it_may_be_and_no_longer(
    tmp_path: Path, suffix: str, shape: str
) -> None:
    def row(size: int) -> bytes:
        empty = json.dumps({"instruction": "x", "output": ""})
        return json.dumps({"instruction": "x", "output": "a" * (size - len(empty))}).encode()

    name = "a.json" + "l" * (shape == "lines") + (f".{suffix}" if suffix != "plain" else "")
    for size, is_good in ((MOST, True), (MOST + 1, False), (3 << 20, False)):
        rows = [row(50), row(size), row(50)]
        data = b"\n".join(rows) if shape == "lines" else b"[" + b",\n".join(rows) + b"]"
        (tmp_path / name).write_bytes(packed(suffix, data))
        if is_good:
            assert read(tmp_path) == 3
            continue
        place = "line 2" if shape == "lines" else "at byte 53"
        with pytest.raises(BadShardError, match=rf"shard {name}: .*{place}.*--max-row-bytes 4096"):
            read(tmp_path)


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.json.gz"])
@pytest.mark.parametrize("blanks", [b" ", b"\n"])
def test_blanks_without_end_are_refused(tmp_path: Path, name: str, blanks: bytes) -> None:
    data = b'{"instruction":"a","output":"b"}\n' + blanks * (4 << 20) + b'{"instruction":"a"}'
    if ".json." in name:
        data = blanks * (4 << 20) + b"[{}]"
    (tmp_path / name).write_bytes(gzip.compress(data))
    with pytest.raises(BadShardError, match="--max-row-bytes"):
        read(tmp_path)


def test_an_xz_file_that_asks_for_gigabytes_of_memory_is_refused(tmp_path: Path) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 20}]
    data = bytearray(lzma.compress(b'{"instruction":"a","output":"b"}\n', filters=filters))
    at = data.index(bytes([0x21, 0x01])) + 2  # the size of the dictionary, in the block's header
    data[at] = 40  # 4 GiB - 1
    import zlib

    header = 12
    size = (data[header] + 1) * 4
    data[header + size - 4 : header + size] = zlib.crc32(data[header : header + size - 4]).to_bytes(
        4, "little"
    )
    (tmp_path / "a.jsonl.xz").write_bytes(data)
    with pytest.raises(BadShardError, match=r"a\.jsonl\.xz: .*[Mm]emory"):
        read(tmp_path)


@pytest.mark.parametrize("is_file", [False, True])
@pytest.mark.parametrize("has_dictionary", [False, True])
def test_a_compressed_batch_that_unpacks_to_far_more_is_refused(
    tmp_path: Path, is_file: bool, has_dictionary: bool
) -> None:
    texts = pa.array(["a" * 20_000] * 64)
    table = pa.table({"instruction": texts, "output": texts})
    if has_dictionary:
        table = table.append_column("kind", pa.array(["b" * 999] * 64).dictionary_encode())
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    new = pa.ipc.new_file if is_file else pa.ipc.new_stream
    with new(tmp_path / "a.arrow", table.schema, options=options) as writer:
        writer.write_table(table)
    assert read(tmp_path, max_row_bytes=1 << 20) == 64
    with pytest.raises(BadShardError, match="claims to unpack to .* more than --max-row-bytes"):
        read(tmp_path)


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_pages_that_unpack_to_far_more_are_refused(tmp_path: Path, version: str) -> None:
    texts = ["a" * 2000] * 2000
    pq.write_table(
        pa.table({"instruction": texts, "output": texts}),
        tmp_path / "a.parquet",
        use_dictionary=False,
        compression="zstd",
        data_page_version=version,
    )
    assert read(tmp_path, max_row_bytes=1 << 20) == 2000
    with pytest.raises(BadShardError, match="pages claim to unpack to .* more than --max-row"):
        read(tmp_path)
    with pytest.raises(BadShardError, match="pages claim to unpack to"):  # to be copied
        read_whole(tmp_path)


def read_whole(folder: Path) -> None:
    place = Location(str(folder), max_row_bytes=MOST)
    (shard,) = plan_corpus(place).shards
    for plan in group_reads(shard, units_of(shard.row_groups, 2048)):
        list(read_units(place, plan, None))


def test_a_long_text_that_many_rows_refer_to_is_refused(tmp_path: Path) -> None:
    texts = pa.array(["a" * (1 << 20)])
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 4096, pa.int32()), texts)
    table = pa.table({"instruction": ["q"] * 4096, "output": column})
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd", store_schema=False)
    with pytest.raises(BadShardError, match="rows 0 to 2048 take over 64 MiB together"):
        read(tmp_path, max_row_bytes=2 << 20)


@pytest.mark.parametrize("file_type", ["parquet", "arrow"])
def test_a_row_of_a_table_that_is_too_large_is_refused(tmp_path: Path, file_type: str) -> None:
    table = pa.table({"instruction": ["a"] * 9, "output": ["b"] * 8 + ["c" * 5000]})
    if file_type == "parquet":
        pq.write_table(table, tmp_path / "a.parquet")
    else:
        with pa.ipc.new_stream(tmp_path / "a.arrow", table.schema) as writer:
            writer.write_table(table)
    with pytest.raises(BadShardError, match=r"row 8 takes 5,0\d\d bytes, more than --max-row-b"):
        read(tmp_path)


def test_rows_that_no_file_can_hold_are_refused() -> None:
    assert rows_problem((10**12,), 100_000) == "it claims 1,000,000,000,000 rows in 100,000 bytes"
    assert rows_problem((5, -5), 100) == "it claims a row group of -5 rows"
    assert not rows_problem((1_000_000,), 100)
    assert not rows_problem((10**9,), 10**6)


@given(array=arrays(60, depth=2), most=st.integers(1, 500))
def test_a_batch_is_cut_without_losing_a_row(array: pa.Array, most: int) -> None:
    batch = pa.record_batch([array], ["a"])
    parts = list(split(batch, 0, 1 << 30, 7, most))
    assert sum(part.num_rows for part in parts) == 60
    assert all(0 < part.num_rows <= 7 for part in parts)
    several = [part for part in parts if part.num_rows > 1]
    assert all(min(part.nbytes, int(_sizes_of_rows(part).sum())) <= most for part in several)


def test_text_that_is_shared_counts_for_each_row() -> None:
    long = "a" * 1000
    words = pa.array([long])
    shared = {
        "dictionary": pa.DictionaryArray.from_arrays(pa.array([0] * 9 + [None], pa.int8()), words),
        "runs": pa.RunEndEncodedArray.from_arrays(pa.array([9, 10]), pa.array([long, None])),
        "views": pa.array([long] * 9 + [None], pa.string_view()),
        "list views": pa.ListViewArray.from_arrays([0] * 10, [1] * 9 + [0], words),
        "plain": pa.array([long] * 9 + [None]),
    }
    for name, array in shared.items():
        assert 9000 <= size_of(pa.record_batch([array], ["a"])) < 9300, name


def test_nulls_without_number_are_refused() -> None:
    lists = pa.ListArray.from_arrays(pa.array([0, 2**31 - 1], pa.int32()), pa.nulls(2**31 - 1))
    with pytest.raises(pa.ArrowInvalid, match="2,147,483,647 values that take no bytes"):
        list(split(pa.record_batch([lists], ["a"]), 0, MOST, 10, MOST))
    assert np.all(size_of(pa.record_batch([pa.nulls(100)], ["a"])) < MOST)


@pytest.mark.parametrize(
    "values",
    [
        pa.array([], pa.binary(0)),
        pa.array([], pa.list_(pa.int8(), 0)),
        pa.array([], pa.struct([])),
        pa.array([], pa.struct([pa.field("a", pa.binary(0))])),
    ],
    ids=lambda values: str(values.type),
)
def test_elements_that_take_no_bytes_are_counted_without_a_number_for_each(
    values: pa.Array,
) -> None:
    def empty(value_type: pa.DataType, count: int) -> pa.Array:
        children = [
            empty(value_type.field(i).type, 0 if pa.types.is_fixed_size_list(value_type) else count)
            for i in range(value_type.num_fields)
        ]
        own = [None, pa.py_buffer(b"")] if value_type.num_buffers > 1 else [None]
        return pa.Array.from_buffers(value_type, count, own, children=children)

    count = 2 * 10**9
    lists = pa.ListArray.from_arrays(pa.array([0, count], pa.int32()), empty(values.type, count))
    batch = pa.record_batch({"a": lists})
    with pytest.raises(pa.ArrowInvalid, match="row 0 takes .* more than --max-row-bytes"):
        list(split(batch, 0, 32 << 20, 10, 32 << 20))
