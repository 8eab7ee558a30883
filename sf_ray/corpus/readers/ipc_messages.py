"""What the messages of Arrow IPC say of themselves: rows, size, compression, byte order.

Arrow's own readers tell this only together with the values. Read from the messages alone, a shard
of any size is counted without its values. Decodes the few fields that are needed of the flatbuffers
in Arrow's format/Message.fbs, Schema.fbs and File.fbs. Opens no file.
"""

import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

import pyarrow as pa

FILE_MAGIC = b"ARROW1"
# The first message begins here, at a multiple of 8.
FIRST_MESSAGE = 8

_SCHEMA, _DICTIONARY, _RECORD_BATCH = 1, 2, 3  # values of `MessageHeader`
_CODECS = ["lz4", "zstd"]  # values of `CompressionType`
_CONTINUATION = 0xFFFFFFFF
# Longer than any real schema; a length beyond is rubbish, and must not be asked of the memory.
_METADATA_BYTES = 256 << 20
_NO_FILE = 1 << 60  # nor is there a file of so many bytes


class Block(NamedTuple):
    """Where a record batch lies in an IPC file.

    Attributes:
        offset: Byte at which its message begins.
        metadata_bytes: Length of the message before its values.
        body_bytes: Length of its values.
    """

    offset: int
    metadata_bytes: int
    body_bytes: int


@dataclass(frozen=True)
class Message:
    """A message of a stream.

    Attributes:
        start: Byte at which it begins.
        end: Byte behind its values.
        rows: Of a record batch; None for other messages.
        codec: How its values are compressed: "lz4", "zstd" or None.
        buffers: Bytes at which the compressed buffers begin, each with the length of its content.
        is_native: False for a schema whose values are in the other byte order.
    """

    start: int
    end: int
    rows: int | None = None
    codec: str | None = None
    is_native: bool = True
    buffers: tuple[int, ...] = ()


def messages(stream: BinaryIO, start: int) -> Iterator[Message]:
    """The messages of a stream, up to its end; their values are passed over.

    Args:
        stream: A file that may seek.
        start: Byte at which a message begins.

    Raises:
        pa.ArrowInvalid: The stream is damaged, or is cut off inside a message.
    """
    stream.seek(start)
    while True:
        prefix = stream.read(4)
        if len(prefix) == 4 and _uint32(prefix) == _CONTINUATION:
            prefix = stream.read(4)
        elif not prefix:
            return  # a stream may end without a mark
        if len(prefix) < 4:
            raise pa.ArrowInvalid("the stream is cut off")
        length = _uint32(prefix)  # older than Arrow 0.15, a message has nothing before its length
        if not length:
            return
        metadata = stream.read(length) if length <= _METADATA_BYTES else b""
        if len(metadata) < length:
            raise pa.ArrowInvalid("the stream is cut off, or is no Arrow IPC stream")
        message = parse(metadata, start, stream.tell())
        yield message
        start = stream.seek(message.end)


def blocks(footer: bytes) -> tuple[list[Block], list[Block]]:
    """Where the dictionaries of an IPC file lie, and its record batches.

    Args:
        footer: The flatbuffer in front of the last ten bytes.

    Raises:
        pa.ArrowInvalid: The footer is damaged.
    """
    try:
        root = _Table.root(footer)
        found = [root.structs(field, "<qixxxxq") for field in (2, 3)]
    except struct.error as error:
        raise pa.ArrowInvalid("its footer is damaged") from error
    for block in itertools.chain(*found):
        if any(not 0 <= number < _NO_FILE for number in block):
            raise pa.ArrowInvalid("its footer is damaged")
    dictionaries, batches = ([Block(*block) for block in blocks] for blocks in found)
    return dictionaries, batches


def parse(metadata: bytes, start: int, body: int) -> Message:
    """What a message says of itself.

    Args:
        metadata: The flatbuffer of the message.
        start: Byte at which the message begins.
        body: Byte at which its values begin.

    Raises:
        pa.ArrowInvalid: The message is damaged.
    """
    try:
        message = _Table.root(metadata)
        header_type = message.number(1, "<B")
        end = body + message.number(3, "<q")
        header = message.table(2)
        if not body <= end < _NO_FILE or not header:
            raise pa.ArrowInvalid("a message in it is damaged")
        if header_type == _SCHEMA:
            return Message(start, end, is_native=header.number(0, "<h") == 0)
        batch = header if header_type == _RECORD_BATCH else None
        if header_type == _DICTIONARY:
            batch = header.table(1)
        if not batch:
            return Message(start, end)
        compression = batch.table(3)
        codec, buffers = None, []
        if compression:
            codec = _CODECS[compression.number(0, "<B")]
            buffers = [body + at for at, length in batch.structs(2, "<qq") if length]
        rows = batch.number(0, "<q")
        if rows < 0 or not all(body <= at <= end for at in buffers):
            raise pa.ArrowInvalid("a message in it is damaged")
        counted = rows if header_type == _RECORD_BATCH else None
        return Message(start, end, rows=counted, codec=codec, buffers=tuple(buffers))
    except (struct.error, IndexError) as error:
        raise pa.ArrowInvalid("a message in it is damaged") from error


@dataclass(frozen=True)
class _Table:
    """A table of a flatbuffer: its fields are found by number, through a table of offsets."""

    data: bytes
    position: int

    @classmethod
    def root(cls, data: bytes) -> "_Table":
        return cls(data, _unpack("<I", data, 0))

    def at(self, field: int) -> int:
        """Where a field lies; 0 for one that is absent."""
        offsets = self.position - _unpack("<i", self.data, self.position)
        slot = 4 + 2 * field
        if slot >= _unpack("<H", self.data, offsets):
            return 0
        offset = _unpack("<H", self.data, offsets + slot)
        return self.position + offset if offset else 0

    def number(self, field: int, form: str) -> int:
        """A number; 0 for an absent field, which is the default of all that are read here."""
        at = self.at(field)
        return _unpack(form, self.data, at) if at else 0

    def structs(self, field: int, form: str) -> list[tuple[int, ...]]:
        """The structs of a vector; none for an absent field."""
        at = self.at(field)
        if not at:
            return []
        vector = at + _unpack("<I", self.data, at)
        count = _unpack("<I", self.data, vector)
        size = struct.calcsize(form)
        return [struct.unpack_from(form, self.data, vector + 4 + size * i) for i in range(count)]

    def table(self, field: int) -> "_Table | None":
        at = self.at(field)
        return _Table(self.data, at + _unpack("<I", self.data, at)) if at else None


def _unpack(form: str, data: bytes, at: int) -> int:
    if at < 0:  # would count from the end
        raise struct.error("an offset points before the beginning")
    number: int = struct.unpack_from(form, data, at)[0]
    return number


def _uint32(data: bytes) -> int:
    return int.from_bytes(data, "little")
