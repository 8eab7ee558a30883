"""Footers that an earlier run has read, kept beside the scores: the same shard is not read again.

They are named by shard id, as score pieces are, so that a changed shard has none here.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from sf_ray.corpus.formats import SampleRow
from sf_ray.corpus.planning import Corpus
from sf_ray.corpus.sampling import sample_rows, sampled_shards
from sf_ray.corpus.units import Footer
from sf_ray.storage.files import put_bytes, read_bytes_or_none
from sf_ray.storage.location import Location

_FOOTERS_NAME = "_footers.arrow"  # no Parquet: every *.parquet below SCORES is a score piece
_FOOTERS_VERSION = 2


def read_footers(scores: Location) -> dict[str, Footer]:
    """Footers by shard id; none where the file is not there, or not to be understood."""
    data = read_bytes_or_none(scores.join(_FOOTERS_NAME))
    if data is None:
        return {}
    try:
        table = pa.ipc.open_file(pa.BufferReader(data)).read_all()
        told = json.loads(table.schema.metadata[b"sf_ray"])
        if told["version"] != _FOOTERS_VERSION:
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
    told = {"version": _FOOTERS_VERSION, "schema": corpus.schema.serialize().to_pybytes().hex()}
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
    put_bytes(scores.join(_FOOTERS_NAME), buffer.getvalue().to_pybytes())


_SAMPLE_NAME = "_sample.json"

_SAMPLE_VERSION = 1


@dataclass(frozen=True)
class Sample:
    """Some rows of a corpus.

    Attributes:
        shard_ids: Of the shards that they come from.
        rows: Their values are what JSON can say; None stands for all else, e.g. dates.
        is_kept: They were read from beside the scores.
    """

    shard_ids: tuple[str, ...]
    rows: tuple[SampleRow, ...]
    is_kept: bool = False


def sample_of(scores: Location | None, corpus: Corpus) -> Sample:
    """The sample of a corpus, as an earlier run has kept it beside its scores, or else read now.

    Raises:
        SfRayError: Not one row can be read, or storage failed.
    """
    shard_ids = tuple(shard.shard_id for shard in sampled_shards(corpus))
    kept = _kept(scores, shard_ids) if scores else None
    if kept is not None:
        return kept
    text = json.dumps([vars(row) for row in sample_rows(corpus)], default=lambda _: None)
    # By way of JSON here too, so that what is found from a sample is the same on every run.
    return Sample(shard_ids, _rows(json.loads(text)))


def keep_sample(scores: Location, sample: Sample) -> None:
    """Keeps a sample beside the scores, in place of an older one."""
    if sample.is_kept:
        return
    told = {
        "version": _SAMPLE_VERSION,
        "shard_ids": sample.shard_ids,
        "rows": [vars(row) for row in sample.rows],
    }
    put_bytes(scores.join(_SAMPLE_NAME), json.dumps(told).encode())


def _kept(scores: Location, shard_ids: tuple[str, ...]) -> Sample | None:
    data = read_bytes_or_none(scores.join(_SAMPLE_NAME))
    if data is None:
        return None
    try:
        told = json.loads(data)
        if told["version"] == _SAMPLE_VERSION and tuple(told["shard_ids"]) == shard_ids:
            return Sample(shard_ids, _rows(told["rows"]), is_kept=True)
    except (ValueError, KeyError, TypeError):
        pass  # it saves requests, and no more: they are made again
    return None


def _rows(told: list[dict[str, object]]) -> tuple[SampleRow, ...]:
    return tuple(SampleRow(**row) for row in told)  # type: ignore[arg-type]
