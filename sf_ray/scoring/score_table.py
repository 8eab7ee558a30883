"""The score table: one Arrow row for each row of a unit, as a score piece holds it.

Knows neither files nor models.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sf_ray.corpus.status import Status
from sf_ray.engine.sequences import Ints
from sf_ray.scoring.ifd import TurnLosses, scores_of

# A turn of a chat.
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
        # Of the text of the example: rows with equal digests are copies of each other.
        pa.field("digest", pa.binary(16)),
        # The turns of a row with several scored turns; null for other rows.
        pa.field("turns", pa.list_(TURN_TYPE)),
    ]
)

# How Parquet stores a score table: counts as differences, repeated text by number, and losses
# plain, because their mantissas have no pattern. Nearly as small as zstd over all columns makes it,
# and less work.
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
        encoded: [n] rows of `encoded_table`. Rows that do not follow each other in the shard have
            their numbers in a column "row" beside.
        losses: [spans] mean loss of each span of `sequences_of`, in nats per token, in their order.

    Returns:
        [n] rows of `SCORE_SCHEMA`; null where there is no value, never NaN.
    """
    rows = encoded.num_rows
    turns = _turn_losses(encoded, losses)
    is_ok = pc.equal(encoded["status"], Status.OK.value)
    scores = scores_of(is_ok.to_numpy(), turns)
    non_finite = pa.scalar(Status.NON_FINITE.value)
    columns = {
        "shard": pa.repeat(pa.scalar(shard), rows),
        "row": encoded["row"] if "row" in encoded.column_names else start + np.arange(rows),
        "status": pc.if_else(scores.non_finite, non_finite, encoded["status"]),
        "prompt_tokens": encoded["prompt_tokens"],
        "answer_tokens": encoded["answer_tokens"],
        "truncated": encoded["truncated"],
    }
    for name in ("loss_direct", "loss_conditioned", "ppl_direct", "ppl_conditioned", "ifd"):
        columns[name] = _nullable(getattr(scores, name))
    columns |= {"digest": encoded["digest"], "turns": _turn_column(turns, rows)}
    return pa.table(columns, schema=SCORE_SCHEMA)


class TurnSpans(NamedTuple):
    """The spans of m turns.

    Attributes:
        row: [m] index of the row that each turn belongs to, ascending.
        conditioned: [m] its span behind the prompt.
        direct: [m] its span on its own.
    """

    row: Ints
    conditioned: Ints
    direct: Ints


def spans_of_turns(encoded: pa.Table) -> TurnSpans:
    """The spans of all turns. A row with t turns has 2 t spans: t conditioned, then t direct.

    Args:
        encoded: Rows of `encoded_table`; spans are counted as `sequences_of` has them.
    """
    turns = encoded["conditioned_tokens"].combine_chunks().value_lengths().to_numpy()  # of each row
    row = np.repeat(np.arange(len(turns)), turns)
    # Before the conditioned span of a turn stand one conditioned span for each turn before it, and
    # one direct span for each turn of the rows before its own.
    conditioned = np.arange(len(row)) + np.repeat(np.cumsum(turns) - turns, turns)
    return TurnSpans(row, conditioned, conditioned + np.repeat(turns, turns))


def _turn_losses(encoded: pa.Table, losses: NDArray[np.float64]) -> TurnLosses:
    turns = spans_of_turns(encoded)
    conditioned_tokens, direct_tokens = (
        encoded[name].combine_chunks().flatten().to_numpy()
        for name in ("conditioned_tokens", "direct_tokens")
    )
    return TurnLosses(
        row=turns.row,
        conditioned=losses[turns.conditioned],
        direct=losses[turns.direct],
        conditioned_tokens=conditioned_tokens,
        direct_tokens=direct_tokens,
    )


def _turn_column(turns: TurnLosses, rows: int) -> pa.Array:
    """[rows] the turns of each row with several turns; null for other rows."""
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
    """The values, with null in place of those that are not finite."""
    return pa.array(np.where(np.isfinite(values), values, np.nan), pa.float64(), from_pandas=True)
