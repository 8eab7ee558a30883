"""Arrow tables at the boundaries: rows ready for the engine, and the score table.

Knows neither files nor models.
"""

from collections.abc import Sequence
from itertools import chain

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sf_ray.encoding.encoder import EncodedRow
from sf_ray.engine.sequences import TokenSequence
from sf_ray.scoring.ifd import Status, TurnLosses, scores_of

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
        # Of each sequence: first those of the conditioned passes, then an answer a turn.
        ("ids", pa.list_(pa.list_(pa.int32()))),
        # Where each of its spans begins and ends, one after the other.
        ("spans", pa.list_(pa.list_(pa.int32()))),
        # Of each turn: scored tokens of its conditioned and of its direct pass.
        ("conditioned_tokens", pa.list_(pa.int32())),
        ("direct_tokens", pa.list_(pa.int32())),
        ("digest", pa.binary(16)),
    ]
)


def encoded_table(rows: list[EncodedRow]) -> pa.Table:
    """Encoded rows, in order, as a table that travels between processes."""
    sequences = [(*row.conditioned, *row.direct) for row in rows]
    return pa.table(
        {
            "status": [row.status.value for row in rows],
            "prompt_tokens": [row.prompt_tokens for row in rows],
            "answer_tokens": [row.answer_tokens for row in rows],
            "truncated": [row.truncated for row in rows],
            "ids": [[s.ids for s in of_row] for of_row in sequences],
            "spans": [[list(chain(*s.spans)) for s in of_row] for of_row in sequences],
            "conditioned_tokens": [[n for s in row.conditioned for n in s.lengths] for row in rows],
            "direct_tokens": [[n for s in row.direct for n in s.lengths] for row in rows],
            "digest": [row.digest for row in rows],
        },
        schema=_ENCODED_SCHEMA,
    )


def sequences_of(encoded: pa.Table) -> list[TokenSequence]:
    """The sequences of encoded rows: of each row those of its conditioned passes, then its answers.

    Their spans are, for each row, those of its turns in the conditioned passes and then in the
    direct ones.
    """
    ids, spans = (_arrays(_flat(encoded[name])) for name in ("ids", "spans"))
    return [
        TokenSequence(tokens, tuple(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)))
        for tokens, edges in zip(ids, spans, strict=True)
    ]


def without_rows(encoded: pa.Table, bad: Sequence[int]) -> pa.Table:
    """The same rows, of which the bad ones have nothing to score and say that the engine failed."""
    rows = encoded.to_pylist()
    for index in bad:
        if rows[index]["status"] == Status.OK.value:
            rows[index]["status"] = Status.ENGINE_ERROR.value
        rows[index] |= {
            name: [] for name in ("ids", "spans", "conditioned_tokens", "direct_tokens")
        }
    return pa.Table.from_pylist(rows, schema=encoded.schema)


def score_table(shard: str, start: int, encoded: pa.Table, losses: NDArray[np.float64]) -> pa.Table:
    """The score table of n encoded rows.

    Args:
        shard: Relative path of the shard.
        start: Row number in the shard of the first encoded row.
        encoded: From `encoded_table`, n rows.
        losses: Nats of the spans of `sequences_of`, in order.

    Returns:
        n rows of `SCORE_SCHEMA`; null where there is no value, never NaN.
    """
    rows = encoded.num_rows
    turns = _turn_losses(encoded, losses)
    scores = scores_of([Status(value) for value in encoded["status"].to_pylist()], turns)
    columns = {
        "shard": pa.repeat(pa.scalar(shard), rows),
        "row": np.arange(start, start + rows),
        "status": [value.value for value in scores.status],
        "prompt_tokens": encoded["prompt_tokens"],
        "answer_tokens": encoded["answer_tokens"],
        "truncated": encoded["truncated"],
    }
    for name in ("loss_direct", "loss_conditioned", "ppl_direct", "ppl_conditioned", "ifd"):
        columns[name] = _nullable(getattr(scores, name))
    columns |= {"digest": encoded["digest"], "turns": _turn_column(turns, rows)}
    return pa.table(columns, schema=SCORE_SCHEMA)


def _turn_losses(encoded: pa.Table, losses: NDArray[np.float64]) -> TurnLosses:
    counts = encoded["conditioned_tokens"].combine_chunks().value_lengths().to_numpy()
    row = np.repeat(np.arange(len(counts)), counts)
    # Of each row, its turns' conditioned losses stand before the direct ones.
    first = np.arange(len(row)) + np.repeat(np.cumsum(counts) - counts, counts)
    return TurnLosses(
        row=row,
        conditioned=losses[first],
        direct=losses[first + np.repeat(counts, counts)],
        conditioned_tokens=_flat(encoded["conditioned_tokens"]).to_numpy(),
        direct_tokens=_flat(encoded["direct_tokens"]).to_numpy(),
    )


def _turn_column(turns: TurnLosses, rows: int) -> pa.Array:
    """Of each row with several turns, a list of them."""
    counts = np.bincount(turns.row, minlength=rows)
    several = counts > 1
    kept = several[turns.row]
    values = pa.StructArray.from_arrays(
        [
            pa.array(turns.conditioned_tokens[kept], pa.int32()),
            _nullable(turns.direct[kept]),
            _nullable(turns.conditioned[kept]),
        ],
        fields=list(TURN_TYPE),
    )
    ends = np.cumsum(np.where(several, counts, 0))
    return pa.ListArray.from_arrays(
        pa.array(np.concatenate([[0], ends]), pa.int32()),
        values,
        type=pa.list_(TURN_TYPE),
        mask=pa.array(~several),
    )


def _nullable(values: NDArray[np.float64]) -> pa.Array:
    return pa.array(np.where(np.isfinite(values), values, np.nan), pa.float64(), from_pandas=True)


def _flat(lists: pa.ChunkedArray) -> pa.Array:
    return lists.combine_chunks().flatten()


def _arrays(lists: pa.Array) -> list[NDArray[np.int32]]:
    flat = lists.flatten().to_numpy(zero_copy_only=False)
    ends = np.cumsum(lists.value_lengths().to_numpy(zero_copy_only=False))
    return np.split(flat, ends[:-1]) if len(ends) else []
