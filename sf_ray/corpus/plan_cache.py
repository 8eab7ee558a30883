"""What planning learned from a corpus, kept beside the scores for the next run.

    SCORES/_footers.arrow    the footer of every shard: a later run reads those of new shards only
    SCORES/_sample.json      some rows, from which the format of the corpus is resolved

Both name shards by their shard ids, as score pieces do, so that nothing is taken for a shard that
changed. Both only save requests: a file that is absent, or was written by another version, is made
again. Knows no Ray and no model.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
from pydantic import TypeAdapter

from sf_ray.corpus.formats import SampleRow
from sf_ray.corpus.planning import Corpus
from sf_ray.corpus.sampling import sample_rows, sampled_shards
from sf_ray.corpus.units import Footer
from sf_ray.errors import SfRayError
from sf_ray.runtime.log import say
from sf_ray.storage.failures import may_pass
from sf_ray.storage.files import TooLargeError, put_bytes, read_bounded_or_none
from sf_ray.storage.json_files import parse_json
from sf_ray.storage.location import Location

_FOOTERS_NAME = "_footers.arrow"  # not Parquet: every *.parquet below SCORES is a score piece
_FOOTERS_VERSION = 3  # several schemas; version 2 had one
_SAMPLE_NAME = "_sample.json"
_SAMPLE_VERSION = 1
# Bytes of the largest that are read: footers of a million shards, and some rows, which may be long.
_MOST_FOOTER_BYTES, _MOST_SAMPLE_BYTES = 1 << 29, 1 << 28


@dataclass(frozen=True)
class Sample:
    """Some rows of a corpus.

    Attributes:
        shard_ids: The shards that the rows come from.
        rows: The rows, whose values have passed through JSON. A value that JSON cannot hold, such
            as a date, is None.
        is_kept: Whether the rows were read from beside the scores, and not from the corpus.
    """

    shard_ids: tuple[str, ...]
    rows: tuple[SampleRow, ...]
    is_kept: bool = False


def read_footers(scores: Location) -> dict[str, Footer]:
    """Reads the kept footers.

    Returns:
        Shard id -> footer; empty where the file is absent or cannot be understood. Footers with
        equal schemas share one object.

    Raises:
        SfRayError: Storage failed.
    """
    data = _kept(scores.join(_FOOTERS_NAME), _MOST_FOOTER_BYTES)
    if data is None:
        return {}
    try:
        table = pa.ipc.open_file(pa.BufferReader(data)).read_all()
        table.validate(full=True)
        header = parse_json(table.schema.metadata[b"sf_ray"])
        if header["version"] == 2:
            header["schemas"] = [header["schema"]]
            table = table.append_column("schema", pa.array([0] * table.num_rows))
        elif header["version"] != _FOOTERS_VERSION:
            return {}
        schemas = [
            pa.ipc.read_schema(pa.py_buffer(bytes.fromhex(schema))) for schema in header["schemas"]
        ]
        names = ("shard_id", "row_groups", "starts", "schema")
        return {
            str(shard_id): Footer(_counts(row_groups), schemas[number], _counts(starts))
            for shard_id, row_groups, starts, number in zip(
                *(table[name].to_pylist() for name in names), strict=True
            )
        }
    except (pa.ArrowException, OSError, LookupError, ValueError, TypeError):
        return {}


def _counts(values: list[object]) -> tuple[int, ...]:
    """Rows or bytes: whole numbers that are not negative."""
    counts = tuple(value for value in values if isinstance(value, int) and value >= 0)
    if len(counts) != len(values):
        raise ValueError("no counts")
    return counts


def _kept(place: Location, limit: int) -> bytes | None:
    """What an earlier run has kept; None where it is absent, cannot be read, or is too large.

    Raises:
        SfRayError: Storage did not answer: the run would fail at the next request.
    """
    try:
        return read_bounded_or_none(place, limit)
    except TooLargeError:
        return None
    except SfRayError as error:
        if may_pass(error):
            raise
        say(f"note: the corpus's footers or sample are read again: {error}")
        return None


def keep_footers(scores: Location, corpus: Corpus, known: Mapping[str, Footer]) -> None:
    """Writes the footers of a corpus over the kept ones, if they differ.

    Args:
        scores: The folder of the scores.
        corpus: The corpus, as planned.
        known: The kept footers, from `read_footers`.
    """
    if known.keys() == {shard.shard_id for shard in corpus.shards}:
        return
    schemas = [schema.serialize().to_pybytes().hex() for schema in corpus.schemas]
    header = {"version": _FOOTERS_VERSION, "schemas": schemas}
    numbers = pa.list_(pa.int64())
    table = pa.table(
        {
            "shard_id": pa.array([shard.shard_id for shard in corpus.shards], pa.string()),
            "row_groups": pa.array([shard.row_groups for shard in corpus.shards], numbers),
            "starts": pa.array([shard.starts for shard in corpus.shards], numbers),
            "schema": pa.array([shard.schema for shard in corpus.shards], pa.int32()),
        }
    ).replace_schema_metadata({"sf_ray": json.dumps(header)})
    buffer = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(buffer, table.schema, options=options) as writer:
        writer.write_table(table)
    _keep(scores.join(_FOOTERS_NAME), buffer.getvalue().to_pybytes())


def sample_of(scores: Location | None, corpus: Corpus) -> Sample:
    """The kept sample of a corpus, or one that is read now.

    Args:
        scores: The folder of the scores; None where there is none.
        corpus: The corpus, as planned.

    Raises:
        SfRayError: Not one row can be read, or storage failed.
    """
    shard_ids = tuple(shard.shard_id for shard in sampled_shards(corpus))
    kept = _read_sample(scores, shard_ids) if scores else None
    if kept is not None:
        return kept
    # Through JSON here too, so that the format that a sample leads to is the same on every run.
    text = json.dumps([vars(row) for row in sample_rows(corpus)], default=lambda _: None)
    return Sample(shard_ids, _sample_rows(json.loads(text)))


def keep_sample(scores: Location, sample: Sample) -> None:
    """Writes a sample beside the scores, over an older one, unless it was read from there."""
    if sample.is_kept:
        return
    payload = {
        "version": _SAMPLE_VERSION,
        "shard_ids": sample.shard_ids,
        "rows": [vars(row) for row in sample.rows],
    }
    _keep(scores.join(_SAMPLE_NAME), json.dumps(payload).encode())


def _read_sample(scores: Location, shard_ids: tuple[str, ...]) -> Sample | None:
    """The kept sample; None where it is absent, is of other shards, or cannot be understood."""
    data = _kept(scores.join(_SAMPLE_NAME), _MOST_SAMPLE_BYTES)
    if data is None:
        return None
    try:
        payload = parse_json(data)
        if payload["version"] == _SAMPLE_VERSION and tuple(payload["shard_ids"]) == shard_ids:
            return Sample(shard_ids, _sample_rows(payload["rows"]), is_kept=True)
    except (ValueError, KeyError, TypeError):
        pass
    return None


def _sample_rows(payload: object) -> tuple[SampleRow, ...]:
    return _SAMPLE_ROWS.validate_python(payload)


_SAMPLE_ROWS = TypeAdapter(tuple[SampleRow, ...])


def _keep(place: Location, data: bytes) -> None:
    """Writes a file that saves requests; a run whose storage takes no more goes on without it."""
    try:
        put_bytes(place, data)
    except SfRayError as error:
        say(f"note: the next run has to read the corpus's footers or sample again: {error}")
