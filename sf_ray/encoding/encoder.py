"""Examples -> token ids: which tokens are scored, and what the window cuts.

Knows the tokenizer, but not the model. The two passes of a question and its answer:

    conditioned   [bos] q0 q1 q2 | a0 a1 a2      scored: a0 a1 a2
    direct                 [bos] | a0 a1 a2      scored: a0 a1 a2
    direct, no bos                 a0 | a1 a2    scored: a1 a2 (a0 has no context)

In a chat each answer is scored behind everything before it, and on its own:

    conditioned   [bos] q0 q1 | a0 a1 | q2 q3 | a2 a3      scored: a0 a1 and a2 a3, each apart
    direct              [bos] | a0 a1    [bos] | a2 a3
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sf_ray.corpus.examples import Example, Problem
from sf_ray.corpus.status import Status
from sf_ray.encoding.templates import Template, TurnIds
from sf_ray.engine.sequences import TokenSequence
from sf_ray.errors import SfRayError


@dataclass(frozen=True)
class EncodedRow:
    """A row ready for the engine.

    Attributes:
        status: `ok`, or why the row has no score.
        prompt_tokens: Tokens that are fed as prompt; None where the row did not render.
        answer_tokens: Scored tokens of the conditioned passes; None where the row did not render.
        truncated: Whether the window cut an answer or left no room for it.
        conditioned: Sequences of the conditioned passes, mostly one. The spans of all of them, in
            order, are those of the turns.
        direct: One sequence for each turn: the answer on its own.
        digest: [16] bytes that copies of the example share; None where the row did not render.
        reason: Why the row did not render, for people; "" where it did.
    """

    status: Status
    prompt_tokens: int | None
    answer_tokens: int | None
    truncated: bool
    conditioned: tuple[TokenSequence, ...] = ()
    direct: tuple[TokenSequence, ...] = ()
    digest: bytes | None = None
    reason: str = ""


@dataclass(frozen=True)
class _Turn:
    """One answer; without sequences where it is empty, or the window leaves it no room.

    Attributes:
        status: `ok`, or why the turn has no score.
        prompt_tokens: Tokens before the answer, as far as they are in the window.
        truncated: Whether the window cut the answer or left no room for it.
        conditioned: Everything before the answer, then the answer, whose tokens are scored.
        direct: The answer on its own.
    """

    status: Status
    prompt_tokens: int
    truncated: bool
    conditioned: TokenSequence
    direct: TokenSequence


_NOTHING = TokenSequence.scored_from((), 1)


class Encoder:
    """Encodes examples by the rules of one alignment.

    `reference` gives the numbers of the paper's code. Prompt and answer are tokenised in one piece;
    the answer starts at the length of the prompt tokenised alone, even where a token straddles that
    boundary. `aligned` scores exactly the same answer tokens in both passes.
    """

    def __init__(
        self,
        tokenizer: Any,
        max_length: int,
        alignment: str = "reference",
        *,
        template: Template = Template(),  # noqa: B008 - frozen
        turns: str = "all",
    ) -> None:
        """
        Args:
            tokenizer: A fast tokenizer of transformers.
            max_length: Window in tokens, including special tokens.
            alignment: "reference" or "aligned".
            template: How messages become one text.
            turns: "all" scores every assistant turn, "last" the last one.

        Raises:
            SfRayError: The tokenizer is not a fast one, the template does not work, or `aligned`
                finds no token to put before an answer.
        """
        if not getattr(tokenizer, "is_fast", False):
            raise SfRayError(
                f"the model's tokenizer ({type(tokenizer).__name__}) has no fast version: "
                "convert it to a tokenizer.json, or choose a model that has one"
            )
        backend = tokenizer.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        self._max_length = max_length
        self._aligned = alignment == "aligned"
        self._last_only = turns == "last"

        # The special tokens around every text, e.g. <bos> before it or </s> after it: the part of
        # the ids with special tokens that is not in the ids without them.
        plain = backend.encode("a", add_special_tokens=False).ids
        whole = backend.encode("a", add_special_tokens=True).ids
        at = next(i for i in range(len(whole)) if whole[i : i + len(plain)] == plain)
        self._before: list[int] = whole[:at]
        self._after: list[int] = whole[at + len(plain) :]

        start = tokenizer.bos_token_id
        if start is None:
            start = tokenizer.eos_token_id
        if self._aligned and not self._before and start is None:
            raise SfRayError(
                "--alignment aligned needs a token to put before the answer, and this tokenizer "
                "has neither BOS nor EOS: use --alignment reference"
            )
        self._start = self._before or [start]
        self._renderer = template.renderer(tokenizer, self._before)
        if template.name != "plain":
            self._after = []  # the template decides how a text ends

    def encode(self, examples: Sequence[Example | Problem]) -> list[EncodedRow]:
        """Encodes examples; a problem becomes a row without sequences.

        Returns:
            One row for each example, in order.
        """
        rendered = {i: e for i, e in enumerate(examples) if isinstance(e, Example)}
        turns = self._encode_turns(rendered)
        rows = []
        for i, example in enumerate(examples):
            encoded = example if isinstance(example, Problem) else turns[i]
            if isinstance(encoded, Problem):
                rows.append(EncodedRow(encoded.status, None, None, False, reason=encoded.reason))
            else:
                rows.append(_row(encoded, rendered[i].digest))
        return rows

    def _encode_turns(self, examples: Mapping[int, Example]) -> dict[int, list[_Turn] | Problem]:
        """Encodes the turns of examples, or finds out why the template cannot render one.

        Renders the first turn of all examples together, then the second turn of those that have
        one, and so on. A turn behind the end of the window is not rendered: it is encoded like the
        last turn before it, which has no room either.

        Args:
            examples: Index of a row -> its example.

        Returns:
            Index of a row -> its turns, or the problem of the first turn that does not render.
        """
        done: dict[int, list[_Turn] | Problem] = {}
        turns: dict[int, list[_Turn]] = {i: [] for i in examples}
        # Rows that are not done -> the messages that are their turns.
        left = {i: e.turns[-1:] if self._last_only else e.turns for i, e in examples.items()}
        while left:
            next_turns = [(examples[i], messages[len(turns[i])]) for i, messages in left.items()]
            for i, ids in zip(list(left), self._renderer.turns(next_turns), strict=True):
                if isinstance(ids, Problem):
                    done[i] = ids
                else:
                    turns[i].append(self._encode_turn(ids))
                    missing = len(left[i]) - len(turns[i])
                    if missing and len(ids.before) < self._max_length:
                        continue
                    done[i] = turns[i] + turns[i][-1:] * missing
                del left[i]
        return done

    def _encode_turn(self, ids: TurnIds) -> _Turn:
        """Cuts the ids of a turn at the window, and marks the tokens that are scored."""
        window = self._max_length
        before, whole, answer = ids
        prompt_tokens = min(len(before), window)
        if len(answer) == len(self._before) + len(self._after):
            return _Turn(Status.EMPTY_ANSWER, prompt_tokens, False, _NOTHING, _NOTHING)
        if len(before) >= window:
            cut = len(whole) > window
            return _Turn(Status.PROMPT_FILLS_WINDOW, prompt_tokens, cut, _NOTHING, _NOTHING)

        # The first token of a sequence has no context and cannot be scored: hence at least 1.
        conditioned = TokenSequence.scored_from(self._cut(whole, window), max(len(before), 1))
        if self._aligned:
            # The direct pass takes the answer tokens of the conditioned pass, and scores the same.
            tail = list(conditioned.ids[len(before) :])
            unscored = conditioned.first - len(before)
            direct = TokenSequence.scored_from(self._start + tail, len(self._start) + unscored)
            truncated = len(whole) > window
        else:
            # As the paper's code: the room that the answer has behind the prompt, plus one.
            limit = window - prompt_tokens + 1
            direct = TokenSequence.scored_from(self._cut(answer, limit), 1)
            truncated = len(whole) > window or len(answer) > limit
        both = direct.scored and conditioned.scored
        status = Status.OK if both else Status.ANSWER_TOO_SHORT
        return _Turn(status, prompt_tokens, truncated, conditioned, direct)

    def _cut(self, ids: list[int], length: int) -> list[int]:
        """Cuts the text on the right, and keeps the special tokens after it, as tokenizers do."""
        if len(ids) <= length:
            return ids
        return ids[: max(length - len(self._after), 0)] + self._after


def _row(turns: Sequence[_Turn], digest: bytes) -> EncodedRow:
    """Joins the turns of an example into a row, which is `ok` if any turn has a score."""
    scored = [turn for turn in turns if turn.status is Status.OK] or turns[:1]
    answer_tokens = sum(turn.conditioned.scored for turn in scored)
    # The earlier answers stand before the last one too; they count as answer, not as prompt.
    earlier = answer_tokens - scored[-1].conditioned.scored
    return EncodedRow(
        status=scored[0].status,
        prompt_tokens=scored[-1].prompt_tokens - earlier,
        answer_tokens=answer_tokens,
        truncated=any(turn.truncated for turn in turns),
        conditioned=tuple(_joined([turn.conditioned for turn in turns])),
        direct=tuple(turn.direct for turn in turns),
        digest=digest,
    )


def _joined(turns: Sequence[TokenSequence]) -> list[TokenSequence]:
    """Joins the conditioned sequences of a chat's turns, so that one pass scores several turns.

    A turn joins the sequence before it if its ids begin with that whole sequence, which is nearly
    always so. It gets a pass of its own where the tokenizer joins the end of an answer with the
    text that follows, or ends every text with a special token.
    """
    joined = list(turns[:1])
    for turn in turns[1:]:
        last = joined[-1]
        end = len(last.ids)
        if turn.first >= end and np.array_equal(turn.ids[:end], last.ids):
            joined[-1] = TokenSequence(turn.ids, last.spans + turn.spans)
        else:
            joined.append(turn)
    return joined
