"""The compressions of JSON shards: unpacks a file of any number of members, and packs one.

A member is what one run of gzip, xz, ... writes; files of several are common (bgzip, `cat`, logs).
Knows bytes only.
"""

import bz2
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import pyarrow as pa

_BUFFER_BYTES = 1 << 20
# Packed bytes given to zlib at a time: it copies those that it has no room yet to unpack.
_PACKED_BYTES = 1 << 17
# What each member begins with, for the compressions that Python's own modules unpack: Arrow's
# stumbles over bzip2 members without content and over padding, and has no xz.
_MAGIC = {"gzip": b"\x1f\x8b", "bz2": b"BZh", "xz": b"\xfd7zXZ\0"}
# Faster than the usual 6 by far, for files larger by some percent.
_XZ_PRESET = 2
# Four times what `xz -9` needs; a file may claim to need gigabytes.
_XZ_MEMORY_BYTES = 256 << 20


class ByteSink(Protocol):
    """A file to write to."""

    def write(self, data: bytes, /) -> object:
        """Writes all of the bytes."""


class _Member(Protocol):
    """Unpacks one member, as the classes of `bz2` and `lzma` do."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Source(Protocol):
    def read(self, size: int, /) -> bytes: ...


def unpacked(packed: io.BufferedReader, codec: str, buffer_bytes: int) -> io.BufferedReader:
    """The content of a compressed file as a stream that seeks forward.

    Args:
        packed: The file, from its beginning.
        codec: Its compression.
        buffer_bytes: How much to unpack at a time.

    Raises:
        OSError: While reading: the content is damaged, cut off, or followed by something else. Its
            text says which.
    """
    stream: io.RawIOBase = _Unpacked(packed, codec)
    return io.BufferedReader(stream, buffer_bytes)


class _Unpacked(io.RawIOBase):
    """The content of a compressed file; seeks forward by unpacking all bytes up to the target."""

    def __init__(self, packed: io.BufferedReader, codec: str) -> None:
        self._source: _Source = (
            _Members(packed, codec) if codec in _MAGIC else _ArrowSource(packed, codec)
        )
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        assert whence == io.SEEK_SET, "only from the beginning"
        assert offset >= self._position, "only forward"
        while self._position < offset:
            data = self._source.read(min(_BUFFER_BYTES, offset - self._position))
            if not data:
                break
            self._position += len(data)
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._source.read(len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


class _Members:
    """The content of a file of gzip, bzip2 or xz members; zeros may follow them, as on tapes."""

    def __init__(self, packed: io.BufferedReader, codec: str) -> None:
        self._packed, self._codec = packed, codec
        makers: dict[str, Callable[[], _Member]] = {
            "gzip": _GzipMember,
            "bz2": bz2.BZ2Decompressor,
            "xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, _XZ_MEMORY_BYTES),
        }
        self._make = makers[codec]
        self._member: _Member | None = None
        self._ahead = b""  # read, and not given to a member yet

    def read(self, size: int) -> bytes:
        while self._member or self._begin_member():
            member = self._member
            assert member is not None
            data = self._ahead
            if member.needs_input and not data:
                data = self._packed.read1(_PACKED_BYTES)
                if not data:
                    raise OSError(f"cut off: its {self._codec} content goes on behind its end")
            self._ahead = b""
            try:
                unpacked = member.decompress(data, size)
            except (zlib.error, lzma.LZMAError, OSError) as error:
                raise OSError(f"damaged: no valid {self._codec} content ({error})") from error
            if member.eof:
                self._ahead, self._member = member.unused_data, None
            if unpacked:
                return unpacked
        return b""

    def _begin_member(self) -> bool:
        """Goes to the next member; returns False at the end of the file."""
        magic = _MAGIC[self._codec]
        ahead = self._ahead
        while len(ahead := ahead.lstrip(b"\0")) < len(magic):
            data = self._packed.read1(_PACKED_BYTES)
            if not data:
                break
            ahead += data
        if not ahead:
            return False
        if not ahead.startswith(magic):
            if magic.startswith(ahead):
                raise OSError(f"cut off: its {self._codec} content goes on behind its end")
            raise OSError(f"something that is not {self._codec} follows its {self._codec} content")
        self._ahead, self._member = ahead, self._make()
        return True


class _GzipMember:
    """`zlib` with the interface of `bz2` and `lzma`."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=31)  # 31: with gzip's header, length and CRC
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        unpacked = self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)
        self.needs_input = len(unpacked) < max_length
        return unpacked


class _ArrowSource:
    """The content of a zstd or lz4 file, unpacked by Arrow; frames to be skipped are skipped."""

    def __init__(self, packed: io.BufferedReader, codec: str) -> None:
        self._codec = codec
        self._stream = pa.CompressedInputStream(pa.PythonFile(_Lent(packed), mode="r"), codec)

    def read(self, size: int) -> bytes:
        try:
            data: bytes = self._stream.read(size)
            return data
        except (pa.ArrowException, OSError) as error:
            raise OSError(self._explained(str(error))) from error

    def _explained(self, text: str) -> str:
        if "Truncated" in text:
            return f"cut off: its {self._codec} content goes on behind its end"
        if "too much memory" in text:
            return (
                "its zstd window is larger than 128 MiB, as `zstd --long` with 28 or more makes it:"
                " pack it again without --long"
            )
        if "Unknown frame" in text or "frameType_unknown" in text:
            return f"something that is not {self._codec} is in or behind its {self._codec} content"
        return f"damaged: no valid {self._codec} content ({text})"


class _Lent(io.RawIOBase):
    """A stream for Arrow, which closes every stream that it gets: the one behind stays open."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self._lent = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        return self._lent.readinto(buffer)


@contextmanager
def packed_file(path: Path, codec: str | None) -> Iterator[ByteSink]:
    """Opens a local file for writing. The same bytes make the same file.

    Args:
        path: The file.
        codec: Its compression; None for none.
    """
    if codec == "xz":
        with lzma.open(path, "wb", preset=_XZ_PRESET) as sink:
            yield sink
        return
    with pa.OSFile(str(path), "wb") as file:
        if codec is None:
            yield file
            return
        with pa.CompressedOutputStream(file, codec) as stream:
            yield stream
