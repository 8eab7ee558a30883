import io
import pickle
import tarfile
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sf_ray.corpus.readers.content import HEAD_BYTES, content_of, is_json_text
from tests.support.packing import packed


def parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"a": [1]}), sink)
    return sink.getvalue()


def arrow(is_file: bool) -> bytes:
    sink, table = io.BytesIO(), pa.table({"a": [1]})
    with (pa.ipc.new_file if is_file else pa.ipc.new_stream)(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def archive(kind: str) -> bytes:
    sink = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(sink, "w") as zipped:
            zipped.writestr("a.jsonl", "{}")
    else:
        with tarfile.open(fileobj=sink, mode="w") as tar:
            tar.addfile(tarfile.TarInfo("a.jsonl"))
    return sink.getvalue()


@pytest.mark.parametrize(
    ("data", "what"),
    [
        *((packed(b"{}", codec), codec) for codec in ("gzip", "zstd", "xz", "lz4")),
        (packed(b"{}", "bz2"), "bzip2"),
        (b"\x50\x2a\x4d\x18\0\0\0\0", "zstd or lz4"),
        (parquet(), "Parquet"),
        (arrow(is_file=True), "Arrow"),
        (arrow(is_file=False), "Arrow"),
        (archive("zip"), "a zip archive"),
        (archive("tar"), "a tar archive"),
        *((pickle.dumps([{"a": 1}], version), "a Python pickle") for version in (2, 3, 4, 5)),
        *(('{"a": 1}'.encode(name), "UTF-16 text") for name in ("utf-16", "utf-16-le")),
        ('\n[{"a": 1}'.encode("utf-16-be"), "UTF-16 text"),
        ('{"a": 1}'.encode("utf-32"), "UTF-32 text"),
        (b"\n<?xml version='1.0'?><Error>", "a page in HTML or XML, as a server answers"),
        (b'\x1e{"a": 1}\n', "a JSON text sequence (RFC 7464)"),
        (bytes(64), "NUL bytes, as a crash while writing leaves them"),
    ],
)
def test_a_file_is_what_its_bytes_say(data: bytes, what: str) -> None:
    content = content_of(data[:HEAD_BYTES])
    assert content is not None
    assert content.what == what
    assert not is_json_text(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b'{"a": 1}',
        b"\xef\xbb\xbf\r\n [",
        b"a,b\n",
        b"{'a': 1}",
        b" \n\t{",
        b"{}",
        b"{\n",
        b"[]",
    ],
)
def test_text_is_nothing_else(data: bytes) -> None:
    assert content_of(data) is None
    assert is_json_text(data) == (data not in (b"", b"a,b\n"))
