"""Footers that an earlier run has read, kept beside the scores: the same shard is not read again.

They are named by shard id, as score pieces are, so that a changed shard has none here.
"""

import json
from collections.abc import Mapping

import pyarrow as pa

from sf_ray.corpus.planning import Corpus
from sf_ray.corpus.units import Footer
from sf_ray.storage.files import put_bytes, read_bytes_or_none
from sf_ray.storage.location import Location

_NAME = "_footers.arrow"  # no Parquet: every *.parquet below SCORES is a score piece
_VERSION = 2


def read_footers(scores: Location) -> dict[str, Footer]:
    """Footers by shard id; none where the file is not there, or not to be understood."""
    data = read_bytes_or_none(scores.join(_NAME))
    if data is None:
        return {}
    try:
        table = pa.ipc.open_file(pa.BufferReader(data)).read_all()
        told = json.loads(table.schema.metadata[b"sf_ray"])
        if told["version"] != _VERSION:
            return {}
        schema = pa.ipc.read_schema(pa.py_buffer(bytes.fromhex(told["schema"])))
        columns = (table[name].to_pylist() for name in ("shard_id", "row_groups", "starts"))
        return {
            one: Footer(tuple(rows), schema, tuple(starts))
            for one, rows, starts in zip(*columns, strict=True)
        }
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError):
        return {}  # it saves requests, and no more: they are made again


def keep_footers(scores: Location, corpus: Corpus, known: Mapping[str, Footer]) -> None:
    """Keeps the footers of a corpus, in place of those that were known, if any is new."""
    if known.keys() == {shard.shard_id for shard in corpus.shards}:
        return
    told = {"version": _VERSION, "schema": corpus.schema.serialize().to_pybytes().hex()}
    numbers = pa.list_(pa.int64())
    table = pa.table(
        {
            "shard_id": pa.array([shard.shard_id for shard in corpus.shards], pa.string()),
            "row_groups": pa.array([shard.row_groups for shard in corpus.shards], numbers),
            "starts": pa.array([shard.starts for shard in corpus.shards], numbers),
        }
    ).replace_schema_metadata({"sf_ray": json.dumps(told)})
    buffer = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(buffer, table.schema, options=options) as writer:
        writer.write_table(table)
    put_bytes(scores.join(_NAME), buffer.getvalue().to_pybytes())
