"""Turns as flat arrays: where the window cuts them, and how the turns of a row belong together.

Pure functions over token ids. Knows no text, no tokenizer and no model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sf_ray.corpus.status import Status
from sf_ray.encoding.templates import RenderedTurns
from sf_ray.encoding.text_encoder import TokenLists
from sf_ray.engine.sequences import Ints, TokenSequences, offsets, ranges

Bools = NDArray[np.bool_]

# What can become of a turn that renders. Arrays hold the place in this list.
STATUSES = (
    Status.OK,
    Status.EMPTY_ANSWER,
    Status.PROMPT_FILLS_WINDOW,
    Status.ANSWER_TOO_SHORT,
)
_OK, _EMPTY, _NO_ROOM, _TOO_SHORT = range(len(STATUSES))


@dataclass(frozen=True)
class Turns:
    """m answers. Both sequences of one are without tokens where it is empty, or has no room.

    Attributes:
        status: [m] place in `STATUSES`.
        prompt_tokens: [m] tokens before the answer, as far as they are in the window.
        truncated: [m] whether the window cut the answer or left no room for it.
        conditioned: Everything before the answer, then the answer, whose tokens are scored.
        direct: The answer on its own.
    """

    status: Ints
    prompt_tokens: Ints
    truncated: Bools
    conditioned: TokenSequences
    direct: TokenSequences

    @classmethod
    def of(cls, parts: Sequence["Turns"]) -> "Turns":
        """The turns of all parts, in order; at least one part."""
        return cls(
            np.concatenate([part.status for part in parts]),
            np.concatenate([part.prompt_tokens for part in parts]),
            np.concatenate([part.truncated for part in parts]),
            _concatenated([part.conditioned for part in parts]),
            _concatenated([part.direct for part in parts]),
        )


@dataclass(frozen=True)
class Window:
    """How much of a turn the model sees.

    Attributes:
        length: Tokens, including special ones.
        aligned: Whether the direct pass scores the tokens that the conditioned pass scores.
        special: Number of special tokens around every text.
        after: Special tokens behind every text, which stay when the text is cut.
        start: Tokens before an answer on its own, where `aligned`.
    """

    length: int
    aligned: bool
    special: int
    after: Sequence[int]
    start: Sequence[int]

    def cut(self, turns: RenderedTurns) -> Turns:
        """Cuts turns on the right, and marks the tokens that are scored."""
        before, whole, alone = turns.before_lengths, turns.whole_lengths, turns.alone_lengths
        prompt_tokens = np.minimum(before, self.length)
        is_empty = alone == self.special
        has_room = before < self.length
        is_fed = ~is_empty & has_room
        truncated = ~is_empty & (whole > self.length)

        # The first token of a sequence has no context and cannot be scored: hence at least 1.
        first = np.maximum(before, 1)
        lists = self._cut(turns.ids, turns.whole_starts, whole, self.length, is_fed)
        conditioned = _scored_from(lists, np.where(is_fed, first, 1))
        if self.aligned:
            # The direct pass takes the answer tokens of the conditioned pass, and scores the same.
            start = (np.full(len(before), len(lists.ids)), np.where(is_fed, len(self.start), 0))
            tail = (lists.starts[:-1] + before, np.maximum(conditioned.lengths - before, 0))
            lists = _gathered(_with_ids(lists.ids, self.start), start, tail)
            first = len(self.start) + first - before
            direct = _scored_from(lists, np.where(is_fed, first, 1))
        else:
            # As the paper's code: the room that the answer has behind the prompt, plus one.
            limits = self.length - prompt_tokens + 1
            truncated |= is_fed & (alone > limits)
            lists = self._cut(turns.ids, turns.alone_starts, alone, limits, is_fed)
            direct = _scored_from(lists, np.ones(len(before), np.int64))
        too_short = (conditioned.scored == 0) | (direct.scored == 0)
        status = np.select(
            [is_empty, ~has_room, too_short], [_EMPTY, _NO_ROOM, _TOO_SHORT], default=_OK
        )
        return Turns(status, prompt_tokens, truncated, conditioned, direct)

    def _cut(
        self, ids: NDArray[np.int32], starts: Ints, lengths: Ints, limits: Ints | int, is_fed: Bools
    ) -> TokenLists:
        """Cuts lists on the right, and keeps the special tokens after them, as tokenizers do.

        Args:
            ids: Ids in which the lists lie.
            starts, lengths: [m] where they lie.
            limits: [m] most tokens of each list.
            is_fed: [m] whether anything of a list is wanted.
        """
        is_cut = is_fed & (lengths > limits)
        kept = np.where(is_cut, np.maximum(limits - len(self.after), 0), lengths)
        after = (np.full(len(starts), len(ids)), np.where(is_cut, len(self.after), 0))
        return _gathered(_with_ids(ids, self.after), (starts, np.where(is_fed, kept, 0)), after)


class RowArrays(NamedTuple):
    """k rows, of each of which all turns rendered.

    Attributes:
        status: [k] place in `STATUSES`: `ok` if any turn has a score.
        prompt_tokens, answer_tokens, truncated: [k] as in `EncodedRow`.
        sequences: Of each row, those of its conditioned passes, then those of its direct passes.
        sequence_counts: [k] sequences of each row.
    """

    status: Ints
    prompt_tokens: Ints
    answer_tokens: Ints
    truncated: Bools
    sequences: TokenSequences
    sequence_counts: Ints


def rows_of_turns(turns: Turns, numbers: Ints, counts: Ints) -> RowArrays:
    """Brings the turns of each row together.

    Args:
        turns: The turns of all rows.
        numbers: [t] the turns of the first row, then of the second, ...; a turn may come again.
        counts: [k] turns of each row, at least one.
    """
    first_turn = offsets(counts)[:-1]
    is_first = np.zeros(len(numbers), bool)
    is_first[first_turn] = True
    is_ok = turns.status[numbers] == _OK
    any_ok = np.logical_or.reduceat(is_ok, first_turn)
    # Where no turn has a score, the first one stands for the row.
    is_counted = is_ok | (is_first & np.repeat(~any_ok, counts))
    scored = turns.conditioned.scored[numbers]
    answer_tokens = np.add.reduceat(np.where(is_counted, scored, 0), first_turn)
    last = np.maximum.reduceat(np.where(is_counted, np.arange(len(numbers)), 0), first_turn)
    # The earlier answers stand before the last one too; they count as answer, not as prompt.
    earlier = answer_tokens - scored[last]
    joins = _joins(turns.conditioned, numbers, is_first)
    sequences, sequence_counts = _sequences(turns, numbers, counts, joins)
    return RowArrays(
        turns.status[numbers[last]],
        turns.prompt_tokens[numbers[last]] - earlier,
        answer_tokens,
        np.logical_or.reduceat(turns.truncated[numbers], first_turn),
        sequences,
        sequence_counts,
    )


def _joins(conditioned: TokenSequences, numbers: Ints, is_first: Bools) -> Bools:
    """[t] whether a turn goes on where the turn before it ends, so that one pass scores both.

    A turn joins the sequence before it if its ids begin with that whole sequence, which is nearly
    always so. It gets a pass of its own where the tokenizer joins the end of an answer with the
    text that follows, or ends every text with a special token.
    """
    joins = np.zeros(len(numbers), bool)
    for at in np.flatnonzero(~is_first).tolist():
        earlier, turn = numbers[at - 1], numbers[at]
        length = conditioned.lengths[earlier]
        if conditioned.spans[turn, 0] >= length and conditioned.lengths[turn] >= length:
            theirs, ours = (
                conditioned.ids[start : start + length]
                for start in conditioned.starts[[earlier, turn]]
            )
            joins[at] = np.array_equal(theirs, ours)
    return joins


def _sequences(
    turns: Turns, numbers: Ints, counts: Ints, joins: Bools
) -> tuple[TokenSequences, Ints]:
    """The sequences of rows, as `RowArrays` has them, and how many each row has.

    turns of a row      t0   t1   t2      where t1 goes on where t0 ends, and t2 does not
    conditioned         t1 (spans of t0 and t1), t2
    direct              t0, t1, t2
    """
    conditioned, direct = turns.conditioned, turns.direct
    first_turn = offsets(counts)[:-1]
    is_end = np.ones(len(numbers), bool)  # the last of the turns that one pass scores
    is_end[:-1] = ~joins[1:]
    passes = np.add.reduceat(is_end, first_turn, dtype=np.int64)
    # First the conditioned sequences of all rows, then all direct ones, and then `in_rows`.
    chosen = np.concatenate([numbers[is_end], numbers + len(conditioned)])
    span_counts = np.diff(np.flatnonzero(~joins), append=len(numbers))
    span_counts = np.concatenate([span_counts, np.ones(len(numbers), np.int64)])
    starts = np.concatenate([conditioned.starts[:-1], direct.starts[:-1] + len(conditioned.ids)])
    lengths = np.concatenate([conditioned.lengths, direct.lengths])
    in_rows = _interleaved(passes, counts)
    lists = _gathered(
        np.concatenate([conditioned.ids, direct.ids]),
        (starts[chosen[in_rows]], lengths[chosen[in_rows]]),
    )
    # Each turn has one span in either pass, whatever sequence that lies in.
    spans = np.concatenate([conditioned.spans[numbers], direct.spans[numbers]])
    spans = spans[_interleaved(counts, counts)]
    sequences = TokenSequences(lists.ids, lists.starts, spans, offsets(span_counts[in_rows]))
    return sequences, passes + counts


def _interleaved(first: Ints, second: Ints) -> Ints:
    """The order that brings things of rows together: a row's first things, then its second ones.

    Args:
        first, second: [k] first and second things of each row. The first things of all rows stand
            before the second things of all rows.
    """
    starts = np.stack([offsets(first)[:-1], first.sum() + offsets(second)[:-1]], axis=1)
    return ranges(starts.ravel(), np.stack([first, second], axis=1).ravel())


def _scored_from(lists: TokenLists, first: Ints) -> TokenSequences:
    """Sequences with one span each: the tokens from `first` [m] on."""
    stops = np.maximum(np.diff(lists.starts), first)
    return TokenSequences(
        lists.ids, lists.starts, np.stack([first, stops], axis=1), np.arange(len(first) + 1)
    )


def _concatenated(parts: Sequence[TokenSequences]) -> TokenSequences:
    return TokenSequences(
        np.concatenate([part.ids for part in parts]),
        offsets(np.concatenate([part.lengths for part in parts])),
        np.concatenate([part.spans for part in parts]),
        offsets(np.concatenate([np.diff(part.span_starts) for part in parts])),
    )


def _with_ids(ids: NDArray[np.int32], more: Sequence[int]) -> NDArray[np.int32]:
    return np.concatenate([ids, np.array(more, np.int32)])


def _gathered(ids: NDArray[np.int32], *pieces: tuple[Ints, Ints]) -> TokenLists:
    """Copies lists [m] together, each of its pieces; a piece has starts [m] and lengths [m]."""
    starts, lengths = (np.stack([piece[i] for piece in pieces], axis=1) for i in range(2))
    return TokenLists(ids[ranges(starts.ravel(), lengths.ravel())], offsets(lengths.sum(axis=1)))
