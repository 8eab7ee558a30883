"""Compressed bytes of every kind that shards may have, made without the product's code."""

import bz2
import gzip
import lzma

import pyarrow as pa


def packed(data: bytes, codec: str | None) -> bytes:
    """One member, or frame, of a compression."""
    if codec == "gzip":
        return gzip.compress(data, mtime=0)  # bytes name test cases, so they must not change
    if codec == "bz2":
        return bz2.compress(data)
    if codec == "xz":
        return lzma.compress(data)
    if codec is None:
        return data
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, codec) as stream:
        stream.write(data)
    return bytes(sink.getvalue())
