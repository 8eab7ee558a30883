import bz2
import gzip
import io
import lzma
import random
import struct
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from sf_ray.corpus.readers.codecs import packed_file, unpacked
from tests.support.packing import packed

CODECS = ["gzip", "bz2", "xz", "zstd", "lz4"]
# The field's own readers, where Python has them.
READERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.decompress,
    "bz2": bz2.decompress,
    "xz": lzma.decompress,
}
TEXT = b'{"a": "some text"}\n' * 700
SKIPPED = struct.pack("<II", 0x184D2A50, 5) + b"index"


def read(data: bytes, codec: str, buffer_bytes: int = 1 << 16) -> bytes:
    return unpacked(io.BufferedReader(io.BytesIO(data)), codec, buffer_bytes).read()


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("buffer_bytes", [16, 1 << 16])
def test_all_members_of_a_file_are_read(codec: str, buffer_bytes: int) -> None:
    one, none = packed(TEXT, codec), packed(b"", codec)
    assert read(one, codec, buffer_bytes) == TEXT
    assert read(one + one, codec, buffer_bytes) == TEXT * 2
    assert read(none, codec, buffer_bytes) == b""
    # As bgzip ends each file, and `cat` joins such files.
    assert read(one + none + one + none, codec, buffer_bytes) == TEXT * 2


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_frames_to_be_skipped_are_skipped(codec: str) -> None:
    one = packed(TEXT, codec)
    assert read(SKIPPED + one + SKIPPED + SKIPPED + one + SKIPPED, codec) == TEXT * 2


@pytest.mark.parametrize("codec", ["gzip", "bz2", "xz"])
@pytest.mark.parametrize("zeros", [4, 512, 3 << 20])
def test_zeros_behind_the_content_are_padding(codec: str, zeros: int) -> None:
    one = packed(TEXT, codec)
    assert read(one + bytes(zeros), codec) == TEXT
    assert read(one + bytes(zeros) + one, codec) == TEXT * 2


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("behind", [b"more", b"{}\n" * 99, b"\x1f\x8c" * 9])
def test_something_else_behind_the_content_is_an_error(codec: str, behind: bytes) -> None:
    with pytest.raises(OSError, match=f"something that is not {codec}|cut off: its lz4"):
        read(packed(TEXT, codec) + behind, codec)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("left", [1, 8, -1, -9])
def test_a_cut_file_is_an_error_that_says_so(codec: str, left: int) -> None:
    one = packed(TEXT, codec)
    for data in (one[:left] if left != 1 else one[:5], one + one[:left]):
        with pytest.raises(OSError, match=f"cut off: its {codec} content"):
            read(data, codec)


@pytest.mark.parametrize("codec", ["gzip", "bz2", "xz"])  # Arrow writes no checksums
def test_damage_is_an_error_that_names_the_compression(codec: str) -> None:
    data = bytearray(packed(random.Random(0).randbytes(9000), codec))
    data[4000:4500] = b"\xff" * 500
    with pytest.raises(OSError, match=f"damaged: no valid {codec} content"):
        read(bytes(data), codec)


def test_a_window_that_needs_too_much_memory_is_told() -> None:
    # A frame by hand: magic, a descriptor without a single segment, and a window of 2 GiB.
    frame = b"\x28\xb5\x2f\xfd" + bytes([0x00, 21 << 3]) + b"\x01\x00\x00"
    with pytest.raises(OSError, match="window is larger than 128 MiB.*without --long"):
        read(frame, "zstd")


@pytest.mark.parametrize("codec", CODECS)
def test_a_stream_seeks_forward(codec: str) -> None:
    data = bytes(range(256)) * 999
    stream = unpacked(io.BufferedReader(io.BytesIO(packed(data, codec))), codec, 1 << 10)
    for offset in (3, 3, 70_000, 200_001):
        assert stream.seek(offset) == offset
        assert stream.read(5) == data[offset : offset + 5]
    assert stream.read() == data[200_006:]


@pytest.mark.parametrize("codec", [*CODECS, None])
def test_what_is_written_is_read_by_the_fields_own_readers(
    tmp_path: Path, codec: str | None
) -> None:
    for name in ("a", "b"):
        with packed_file(tmp_path / name, codec) as file:
            file.write(TEXT[:100])
            file.write(TEXT[100:])
    data = (tmp_path / "a").read_bytes()
    assert data == (tmp_path / "b").read_bytes()
    if codec in READERS:
        assert READERS[codec](data) == TEXT
    elif codec is None:
        assert data == TEXT
    else:
        with pa.CompressedInputStream(pa.BufferReader(data), codec) as stream:
            assert stream.read() == TEXT
