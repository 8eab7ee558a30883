"""What the first bytes of a file say that it is, whatever its name says.

Looks at bytes only: opens no file.
"""

import codecs
import re
from dataclasses import dataclass

# As many bytes as `content_of` looks at.
HEAD_BYTES = 512


@dataclass(frozen=True)
class Content:
    """What a file is.

    Attributes:
        what: Its format, as part of a sentence.
        codecs: The compressions that it can be.
        suffix: What the name of such a file ends with; "" where no such file is read.
        advice: What to do where no other name helps.
    """

    what: str
    codecs: tuple[str, ...] = ()
    suffix: str = ""
    advice: str = "convert it to JSON Lines or Parquet"


_UTF_16 = Content("UTF-16 text", advice="make it UTF-8, e.g. with `iconv -f UTF-16 -t UTF-8`")
_UTF_32 = Content("UTF-32 text", advice="make it UTF-8, e.g. with `iconv -f UTF-32 -t UTF-8`")
_PAGE = Content("a page in HTML or XML, as a server answers", advice="download it again")
_FRAMES = Content("zstd or lz4", ("zstd", "lz4"), ".zst")
# In this order: UTF-32's mark begins with UTF-16's.
_MAGIC = (
    (b"\x1f\x8b", Content("gzip", ("gzip",), ".gz")),
    (b"\x28\xb5\x2f\xfd", Content("zstd", ("zstd",), ".zst")),
    (b"BZh", Content("bzip2", ("bz2",), ".bz2")),
    (b"\xfd7zXZ\0", Content("xz", ("xz",), ".xz")),
    (b"\x04\x22\x4d\x18", Content("lz4", ("lz4",), ".lz4")),
    (b"\x02\x21\x4c\x18", Content("lz4's old format", advice="pack it again, or unpack it")),
    (b"PAR1", Content("Parquet", suffix=".parquet")),
    (b"PARE", Content("encrypted Parquet", advice="decrypt it")),
    (b"ARROW1", Content("Arrow", suffix=".arrow")),
    (b"\xff\xff\xff\xff", Content("Arrow", suffix=".arrow")),
    (b"FEA1", Content("Feather, version 1", advice="write it as Parquet")),
    (b"PK\x03\x04", Content("a zip archive", advice="unpack it")),
    (b"7z\xbc\xaf\x27\x1c", Content("a 7z archive", advice="unpack it")),
    (b"Rar!\x1a\x07", Content("a rar archive", advice="unpack it")),
    (b"Obj\x01", Content("Avro")),
    (b"ORC", Content("ORC")),
    (b"SQLite format 3\0", Content("an SQLite database")),
    (b"\x89HDF\r\n", Content("HDF5")),
    (b"%PDF-", Content("PDF")),
    (
        b"version https://git-lfs",
        Content("a pointer of Git LFS, not the file itself", advice="fetch it with `git lfs pull`"),
    ),
    (
        b"\x1e",
        Content(
            "a JSON text sequence (RFC 7464)", advice="remove the bytes 0x1e before its objects"
        ),
    ),
    (codecs.BOM_UTF32_LE, _UTF_32),
    (codecs.BOM_UTF32_BE, _UTF_32),
    (codecs.BOM_UTF16_LE, _UTF_16),
    (codecs.BOM_UTF16_BE, _UTF_16),
    (
        b"\0" * 16,
        Content(
            "NUL bytes, as a crash while writing leaves them",
            advice="copy or write it again",
        ),
    ),
)
# Frames of any content, which unpacking passes over: pzstd and seekable formats put them first.
_SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")
_PAGE_START = re.compile(rb"\s*<(!doctype|html|\?xml)", re.IGNORECASE)
_PICKLE = re.compile(rb"\x80[\x02-\x05](\x95|[\]}(c])", re.DOTALL)
# JSON in UTF-16 without a byte order mark: every other byte is zero.
_UNMARKED_UTF_16 = re.compile(rb"([\[{\s]\0[^\0]\0)|(\0[\[{\s]\0[^\0])")


def is_json_text(head: bytes) -> bool:
    """Whether a file may begin as an object or an array of JSON does."""
    return head.removeprefix(codecs.BOM_UTF8).lstrip()[:1] in (b"{", b"[") and not (
        _UNMARKED_UTF_16.match(head)
    )


def content_of(head: bytes) -> Content | None:
    """What a file is that is not JSON text; None where nothing speaks against that.

    Args:
        head: Its first `HEAD_BYTES`, or all of it.
    """
    if is_json_text(head):
        return None
    for magic, content in _MAGIC:
        if head.startswith(magic):
            return content
    if _SKIPPABLE.match(head):
        return _FRAMES
    if _UNMARKED_UTF_16.match(head):
        return _UTF_16
    if _PAGE_START.match(head.removeprefix(codecs.BOM_UTF8)):
        return _PAGE
    if _PICKLE.match(head):
        return Content("a Python pickle")
    if head[257:262] == b"ustar":
        return Content("a tar archive", advice="unpack it")
    return None
