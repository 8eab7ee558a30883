"""Which tokens of an answer are the same in both passes, and how far apart their losses are.

Plain arrays and the table of encoded rows. Knows no model, and not what the differences are for.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from sf_ray.engine.sequences import Ints, TokenSequences, offsets, ranges
from sf_ray.scoring.score_table import spans_of_turns


class _Ends(NamedTuple):
    """Where the tokens of m turns end that may be compared, in the ids of all sequences.

    Attributes:
        conditioned, direct: [m] behind the last token of either pass.
        most: [m] how many tokens before that there are in both.
    """

    conditioned: Ints
    direct: Ints
    most: Ints


def loss_differences(
    encoded: pa.Table,
    sequences: TokenSequences,
    tokens: NDArray[np.float32],
    has_score: NDArray[np.bool_],
) -> pa.Array:
    """loss_direct - loss_conditioned of each answer token that both passes score.

    The answer on its own is tokenised by itself, so its first tokens may differ from those behind
    the prompt, and without a BOS the first one has no loss. Its other tokens are the same. So the
    passes are laid on each other at their ends, and a token pairs as long as all ids from it to the
    end are equal:

        conditioned   q0 q1 | a  b  c  d         x is not a, and has no loss: b, c and d pair
        direct                x  b  c  d

    Where the window cuts the answer, the direct pass may see one token more (`docs/concepts.md`,
    alignment). Then the passes are also laid on each other without it, and the longer run of equal
    ids is the right one:

        conditioned   q0 q1 | a  b  c            b and c pair
        direct                a  b  c  d

    A turn of which fewer than half of the tokens pair was tokenised in two ways, and none of them
    pairs: a full stop at both ends would say nothing.

    Args:
        encoded: [n] rows of `encoded_table`.
        sequences: Theirs: `sequences_of`.
        tokens: [scored tokens, span after span] nats.
        has_score: [n]

    Returns:
        [n] float32 lists, in nats: of each row, the tokens of all turns; null where the row has no
        score, or no token pairs.
    """
    turns = spans_of_turns(encoded)
    lengths = sequences.span_lengths
    sequence = np.repeat(np.arange(len(sequences)), np.diff(sequences.span_starts))
    starts = sequences.starts[sequence]  # [spans] of the sequences that they lie in
    # An empty span may lie behind the end of its sequence.
    stops = np.minimum(starts + sequences.spans[:, 1], sequences.starts[sequence + 1])
    direct_ids = stops[turns.direct] - starts[turns.direct]  # with those that are not scored
    spare = np.zeros(len(turns.row), np.int64)
    run = np.zeros(len(turns.row), np.int64)
    may_differ = encoded["truncated"].to_numpy(zero_copy_only=False)[turns.row]
    for cut in (0, 1):
        ends = _Ends(
            stops[turns.conditioned],
            stops[turns.direct] - cut,
            np.maximum(np.minimum(lengths[turns.conditioned], direct_ids - cut), 0),
        )
        found = _equal_before(sequences.ids, ends)
        is_longer = (found >= run) & (may_differ | (cut == 0))
        run, spare = np.where(is_longer, found, run), np.where(is_longer, cut, spare)
    pairs = np.minimum(run, np.maximum(lengths[turns.direct] - spare, 0))
    pairs[2 * pairs < lengths[turns.conditioned]] = 0
    pairs[~has_score[turns.row]] = 0
    conditioned, direct = (
        tokens[ranges(sequences.token_starts[span + 1] - behind - pairs, pairs)].astype(np.float64)
        for span, behind in ((turns.conditioned, 0), (turns.direct, spare))
    )
    of_rows = np.bincount(turns.row, pairs, minlength=encoded.num_rows).astype(np.int64)
    return pa.ListArray.from_arrays(
        pa.array(offsets(of_rows), pa.int32()),
        pa.array((direct - conditioned).astype(np.float32)),
        mask=pa.array(of_rows == 0),
    )


def _equal_before(ids: NDArray[np.int32], ends: _Ends) -> Ints:
    """[m] how many tokens in a row before the ends are equal in both passes."""
    starts = offsets(ends.most)
    back = ranges(np.ones_like(ends.most), ends.most)  # 1 for the last token, 2 for that before it
    conditioned, direct = (
        ids[np.repeat(end, ends.most) - back] for end in (ends.conditioned, ends.direct)
    )
    differ = np.append(np.flatnonzero(conditioned != direct), starts[-1])
    first = differ[np.searchsorted(differ, starts[:-1])]
    return np.minimum(first - starts[:-1], ends.most)
