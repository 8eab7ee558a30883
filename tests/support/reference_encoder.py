"""Encoding by its definition: one row, one turn and one list after the other. The encoder's arrays
are compared to it."""

from collections.abc import Callable
from typing import NamedTuple

from sf_ray.corpus.examples import Example
from sf_ray.corpus.status import Status
from sf_ray.encoding.encoded_rows import EncodedRow
from sf_ray.encoding.turns import Window
from sf_ray.engine.sequences import TokenSequence

Ids = list[int]


class TurnIds(NamedTuple):
    before: Ids
    whole: Ids
    alone: Ids


class CutTurn(NamedTuple):
    status: Status
    prompt_tokens: int
    truncated: bool
    conditioned: TokenSequence
    direct: TokenSequence


def encoded_example(
    encode: Callable[[str], Ids], example: Example, window: Window, turns: str
) -> EncodedRow:
    """A row in the plain template; `encode` puts special tokens around a text."""
    ids = []
    for turn in example.turns if turns == "all" else example.turns[-1:]:
        before, answer = example.before(turn), example.messages[turn].text
        ids.append(TurnIds(encode(before), encode(before + answer), encode(answer)))
    return encoded_row(ids, window, example.digest)


def encoded_row(turns: list[TurnIds], window: Window, digest: bytes | None = None) -> EncodedRow:
    cuts: list[CutTurn] = []
    is_full = False  # from the first turn without room on, all are like that one
    for turn in turns:
        cuts.append(cuts[-1] if is_full else cut_turn(turn, window))
        is_full = is_full or len(turn.before) >= window.length
    counted = [cut for cut in cuts if cut.status is Status.OK] or cuts[:1]
    answers = [cut.conditioned.scored for cut in counted]
    return EncodedRow(
        counted[0].status,
        counted[-1].prompt_tokens - sum(answers[:-1]),
        sum(answers),
        any(cut.truncated for cut in cuts),
        joined([cut.conditioned for cut in cuts]),
        tuple(cut.direct for cut in cuts),
        digest,
    )


def cut_turn(turn: TurnIds, window: Window) -> CutTurn:
    before, whole, alone = turn
    prompt_tokens = min(len(before), window.length)
    nothing = TokenSequence.scored_from([], 1)
    if len(alone) == window.special:
        return CutTurn(Status.EMPTY_ANSWER, prompt_tokens, False, nothing, nothing)
    truncated = len(whole) > window.length
    if len(before) >= window.length:
        return CutTurn(Status.PROMPT_FILLS_WINDOW, prompt_tokens, truncated, nothing, nothing)
    fed = cut(whole, window.length, window)
    conditioned = TokenSequence.scored_from(fed, max(len(before), 1))
    if window.aligned:
        unscored = 0 if before else 1
        start = list(window.start)
        direct = TokenSequence.scored_from(start + fed[len(before) :], len(start) + unscored)
    else:
        room = window.length - prompt_tokens + 1
        truncated = truncated or len(alone) > room
        direct = TokenSequence.scored_from(cut(alone, room, window), 1)
    ok = conditioned.scored and direct.scored
    status = Status.OK if ok else Status.ANSWER_TOO_SHORT
    return CutTurn(status, prompt_tokens, truncated, conditioned, direct)


def cut(ids: Ids, length: int, window: Window) -> Ids:
    if len(ids) <= length:
        return ids
    return ids[: max(length - len(window.after), 0)] + list(window.after)


def joined(turns: list[TokenSequence]) -> tuple[TokenSequence, ...]:
    passes = turns[:1]
    for turn in turns[1:]:
        last = passes[-1]
        if turn.first >= len(last.ids) and turn.ids[: len(last.ids)].tolist() == last.ids.tolist():
            passes[-1] = TokenSequence(turn.ids, last.spans + turn.spans)
        else:
            passes.append(turn)
    return tuple(passes)
