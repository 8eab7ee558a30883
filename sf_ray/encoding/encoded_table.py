"""Encoded rows as an Arrow table, the form in which they travel between processes.

Opens no file and loads no model.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sf_ray.corpus.status import Status
from sf_ray.encoding.encoded_rows import EncodedRow, EncodedRows
from sf_ray.engine.sequences import Ints, TokenSequences, offsets, ranges

_ENCODED_SCHEMA = pa.schema(
    [
        ("status", pa.string()),
        ("prompt_tokens", pa.int32()),
        ("answer_tokens", pa.int32()),
        ("truncated", pa.bool_()),
        # One list for each sequence: those of the conditioned passes, then the answer of each turn.
        ("ids", pa.list_(pa.list_(pa.int32()))),
        # One list for each sequence: first, stop, first, stop, ... of its spans.
        ("spans", pa.list_(pa.list_(pa.int32()))),
        # One number for each turn: the scored tokens of its conditioned and of its direct pass.
        ("conditioned_tokens", pa.list_(pa.int32())),
        ("direct_tokens", pa.list_(pa.int32())),
        ("digest", pa.binary(16)),
    ]
)


def encoded_table(rows: EncodedRows | Sequence[EncodedRow]) -> pa.Table:
    """Makes a table with one row for each encoded row, in order; copies no token of `EncodedRows`.

    Raises:
        pa.ArrowInvalid: The rows have 2^31 tokens or more.
    """
    if not isinstance(rows, EncodedRows):
        rows = EncodedRows.of(rows)
    sequences = rows.sequences
    # Spans of a row:  of its turns in the conditioned passes | of its turns in the direct passes
    first_spans = offsets(2 * rows.turns)[:-1]
    conditioned, direct = (
        _lists(offsets(rows.turns), sequences.span_lengths[ranges(first, rows.turns)])
        for first in (first_spans, first_spans + rows.turns)
    )
    return pa.table(
        {
            "status": [status.value for status in rows.statuses],
            "prompt_tokens": pa.array(rows.prompt_tokens, pa.int32(), mask=~rows.rendered),
            "answer_tokens": pa.array(rows.answer_tokens, pa.int32(), mask=~rows.rendered),
            "truncated": rows.truncated,
            "ids": _lists(rows.starts, _lists(sequences.starts, sequences.ids)),
            "spans": _lists(
                rows.starts, _lists(2 * sequences.span_starts, sequences.spans.ravel())
            ),
            "conditioned_tokens": conditioned,
            "direct_tokens": direct,
            "digest": rows.digests,
        },
        schema=_ENCODED_SCHEMA,
    )


def sequences_of(encoded: pa.Table) -> TokenSequences:
    """The sequences of encoded rows, in the order of the rows; copies no token.

    Returns:
        For each row, the sequences of its conditioned passes, then one direct sequence for each
        turn. So the spans of a row's sequences are those of its turns in the conditioned passes,
        and then those of its turns in the direct passes.
    """
    ids, spans = (encoded[name].combine_chunks().flatten() for name in ("ids", "spans"))
    return TokenSequences(
        _values(ids),
        offsets(_lengths(ids)),
        _values(spans).astype(np.int64).reshape(-1, 2),
        offsets(_lengths(spans) // 2),
    )


def without_rows(encoded: pa.Table, bad: Sequence[int]) -> pa.Table:
    """Takes the sequences of some rows away, so that the engine does not meet them again.

    Args:
        encoded: Encoded rows.
        bad: Indices of rows on which the engine failed; their status becomes `engine_error`.
    """
    rows = encoded.to_pylist()
    for index in bad:
        if rows[index]["status"] == Status.OK.value:
            rows[index]["status"] = Status.ENGINE_ERROR.value
        rows[index] |= {
            name: [] for name in ("ids", "spans", "conditioned_tokens", "direct_tokens")
        }
    return pa.Table.from_pylist(rows, schema=encoded.schema)


def _values(lists: pa.Array) -> NDArray[np.int32]:
    values: NDArray[np.int32] = lists.flatten().to_numpy(zero_copy_only=False)
    return values


def _lengths(lists: pa.Array) -> NDArray[np.int32]:
    lengths: NDArray[np.int32] = lists.value_lengths().to_numpy(zero_copy_only=False)
    return lengths


def _lists(starts: Ints, values: pa.Array | NDArray[np.integer]) -> pa.Array:
    """Lists of values that stand one after the other; `starts` [n + 1] says where they begin."""
    if not isinstance(values, pa.Array):
        values = pa.array(values, pa.int32())
    return pa.ListArray.from_arrays(pa.array(starts, pa.int32()), values)
