"""Arrow tables at the boundaries: rows ready for the engine, and the score table.

Knows neither files nor models.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sf_ray.encoding import EncodedRow, TokenSequence
from sf_ray.ifd import Status, scores_of

TURN_TYPE = pa.struct(
    [
        pa.field("answer_tokens", pa.int32(), nullable=False),
        pa.field("loss_direct", pa.float64()),
        pa.field("loss_conditioned", pa.float64()),
    ]
)

SCORE_SCHEMA = pa.schema(
    [
        pa.field("shard", pa.string(), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("prompt_tokens", pa.int32()),
        pa.field("answer_tokens", pa.int32()),
        pa.field("truncated", pa.bool_(), nullable=False),
        pa.field("loss_direct", pa.float64()),
        pa.field("loss_conditioned", pa.float64()),
        pa.field("ppl_direct", pa.float64()),
        pa.field("ppl_conditioned", pa.float64()),
        pa.field("ifd", pa.float64()),
        # Of the example's own text: rows with equal ones are copies of each other.
        pa.field("digest", pa.binary(16)),
        # Where an example is a chat with all of its turns scored: each of them.
        pa.field("turns", pa.list_(TURN_TYPE)),
    ]
)

# How a score table is best written: counts as differences, repeated text by number, mantissas of
# losses as they are. Nearly as small as with zstd over all of it, and less work.
SCORE_ENCODING = {
    "compression": "none",
    "use_dictionary": ["shard", "status"],
    "column_encoding": dict.fromkeys(
        ("row", "prompt_tokens", "answer_tokens"), "DELTA_BINARY_PACKED"
    ),
}

_ENCODED_SCHEMA = pa.schema(
    [
        ("status", pa.string()),
        ("prompt_tokens", pa.int32()),
        ("answer_tokens", pa.int32()),
        ("truncated", pa.bool_()),
        ("direct_ids", pa.list_(pa.int32())),
        ("direct_first", pa.int32()),
        ("conditioned_ids", pa.list_(pa.int32())),
        ("conditioned_first", pa.int32()),
        ("digest", pa.binary(16)),
    ]
)


def encoded_table(rows: list[EncodedRow]) -> pa.Table:
    """Encoded rows, in order, as a table that travels between processes."""
    return pa.table(
        {
            "status": [row.status.value for row in rows],
            "prompt_tokens": [row.prompt_tokens for row in rows],
            "answer_tokens": [row.answer_tokens for row in rows],
            "truncated": [row.truncated for row in rows],
            "direct_ids": [row.direct.ids for row in rows],
            "direct_first": [row.direct.first for row in rows],
            "conditioned_ids": [row.conditioned.ids for row in rows],
            "conditioned_first": [row.conditioned.first for row in rows],
            "digest": [row.digest for row in rows],
        },
        schema=_ENCODED_SCHEMA,
    )


def sequences_of(encoded: pa.Table) -> list[TokenSequence]:
    """The 2 n sequences of n encoded rows: all direct ones, then all conditioned ones."""
    return [
        TokenSequence(ids, first)
        for kind in ("direct", "conditioned")
        for ids, first in zip(
            _arrays(encoded[f"{kind}_ids"]), encoded[f"{kind}_first"].to_pylist(), strict=True
        )
    ]


def without_rows(encoded: pa.Table, bad: Sequence[int]) -> pa.Table:
    """The same rows, of which the bad ones have nothing to score and say that the engine failed."""
    rows = encoded.to_pylist()
    for index in bad:
        if rows[index]["status"] == Status.OK.value:
            rows[index]["status"] = Status.ENGINE_ERROR.value
        rows[index] |= {f"{kind}_ids": [] for kind in ("direct", "conditioned")}
    return pa.Table.from_pylist(rows, schema=encoded.schema)


def _arrays(lists: pa.ChunkedArray) -> list[NDArray[np.int32]]:
    values = lists.combine_chunks()
    flat = values.flatten().to_numpy(zero_copy_only=False)
    ends = np.cumsum(values.value_lengths().to_numpy(zero_copy_only=False))
    return np.split(flat, ends[:-1]) if len(ends) else []


def score_table(shard: str, start: int, encoded: pa.Table, losses: NDArray[np.float64]) -> pa.Table:
    """The score table of n encoded rows.

    Args:
        shard: Relative path of the shard.
        start: Row number in the shard of the first encoded row.
        encoded: From `encoded_table`, n rows.
        losses: [2 n] nats, in the order of `sequences_of`.

    Returns:
        n rows of `SCORE_SCHEMA`; null where there is no value, never NaN.
    """
    rows = encoded.num_rows
    status = [Status(value) for value in encoded["status"].to_pylist()]
    scores = scores_of(status, losses[:rows], losses[rows:])
    columns = {
        "shard": pa.repeat(pa.scalar(shard), rows),
        "row": np.arange(start, start + rows),
        "status": [value.value for value in scores.status],
        "prompt_tokens": encoded["prompt_tokens"],
        "answer_tokens": encoded["answer_tokens"],
        "truncated": encoded["truncated"],
    }
    for name in ("loss_direct", "loss_conditioned", "ppl_direct", "ppl_conditioned", "ifd"):
        columns[name] = pa.array(getattr(scores, name), pa.float64(), from_pandas=True)
    columns |= {"digest": encoded["digest"], "turns": pa.nulls(rows, pa.list_(TURN_TYPE))}
    return pa.table(columns, schema=SCORE_SCHEMA)
