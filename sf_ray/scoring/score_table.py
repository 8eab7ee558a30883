"""Arrow tables at the boundaries: rows ready for the engine, and the score table.

Knows neither files nor models.
"""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sf_ray.corpus.status import Status
from sf_ray.encoding.encoded_table import _flat
from sf_ray.scoring.ifd import TurnLosses, scores_of

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
