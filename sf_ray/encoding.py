"""Examples -> token ids, where the scored tokens start, and what the window cuts.

Knows the tokenizer, not the model. The two passes of one example:

    conditioned   [bos] q0 q1 q2 | a0 a1 a2      scored: a0 a1 a2
    direct                 [bos] | a0 a1 a2      scored: a0 a1 a2
    direct, no bos                 a0 | a1 a2    scored: a1 a2 (a0 has no context)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sf_ray.errors import SfRayError
from sf_ray.examples import Example
from sf_ray.ifd import Status


@dataclass(frozen=True)
class TokenSequence:
    """Tokens for one forward pass.

    Attributes:
        ids: [length] int32 token ids.
        first: The tokens from this position on are scored; at least 1.
    """

    ids: NDArray[np.int32]
    first: int

    @property
    def scored(self) -> int:
        """Number of tokens that are scored."""
        return max(len(self.ids) - self.first, 0)


@dataclass(frozen=True)
class EncodedRow:
    """A row ready for the engine; token counts are None where the row did not render."""

    status: Status
    prompt_tokens: int | None
    answer_tokens: int | None
    truncated: bool
    direct: TokenSequence
    conditioned: TokenSequence
    digest: bytes | None = None


_NOTHING = TokenSequence(np.empty(0, np.int32), 1)
_BAD_ROW = EncodedRow(Status.BAD_ROW, None, None, False, _NOTHING, _NOTHING)


class Encoder:
    """Encodes examples by the rules of one alignment.

    `reference` gives the numbers of the paper's code: prompt + answer is tokenised in one piece,
    and the answer starts at the length of the prompt tokenised alone, even where a token
    straddles that boundary. `aligned` scores exactly the same answer tokens in both passes.
    """

    def __init__(self, tokenizer: Any, max_length: int, alignment: str = "reference") -> None:
        """
        Args:
            tokenizer: A fast tokenizer of transformers.
            max_length: Window in tokens, special tokens included.
            alignment: "reference" or "aligned".

        Raises:
            SfRayError: The tokenizer is not a fast one, or `aligned` finds no token to start on.
        """
        if not getattr(tokenizer, "is_fast", False):
            raise SfRayError(
                f"the model's tokenizer ({type(tokenizer).__name__}) has no fast version: "
                "convert it to a tokenizer.json, or choose a model that has one"
            )
        self._backend = tokenizer.backend_tokenizer
        self._backend.no_truncation()
        self._backend.no_padding()
        self._max_length = max_length
        self._aligned = alignment == "aligned"

        # What the tokenizer puts around any text, e.g. <bos> before it or </s> after it.
        plain = self._backend.encode("a", add_special_tokens=False).ids
        whole = self._backend.encode("a", add_special_tokens=True).ids
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

    def encode(self, examples: Sequence[Example | None]) -> list[EncodedRow]:
        """Encodes rows in order; None stands for a row that did not render."""
        good = [e for e in examples if e is not None]
        prompts = self._ids([e.prompt for e in good])
        wholes = self._ids([e.prompt + e.answer for e in good])
        answers = self._ids([e.answer for e in good])
        encoded = map(self._encode_row, good, prompts, wholes, answers)
        return [_BAD_ROW if e is None else next(encoded) for e in examples]

    def _ids(self, texts: list[str]) -> list[list[int]]:
        return [e.ids for e in self._backend.encode_batch_fast(texts, add_special_tokens=True)]

    def _encode_row(
        self, example: Example, prompt: list[int], whole: list[int], answer: list[int]
    ) -> EncodedRow:
        window = self._max_length
        prompt_tokens = min(len(prompt), window)
        if len(answer) == len(self._before) + len(self._after):
            nothing = (prompt_tokens, 0, False, _NOTHING, _NOTHING, example.digest)
            return EncodedRow(Status.EMPTY_ANSWER, *nothing)
        if len(prompt) >= window:
            nothing = (prompt_tokens, 0, len(whole) > window, _NOTHING, _NOTHING, example.digest)
            return EncodedRow(Status.PROMPT_FILLS_WINDOW, *nothing)

        # A first token without any context cannot be scored.
        conditioned = _sequence(self._cut(whole, window), max(len(prompt), 1))
        if self._aligned:
            tail = list(conditioned.ids[len(prompt) :])
            unscored = conditioned.first - len(prompt)
            direct = _sequence(self._start + tail, len(self._start) + unscored)
            truncated = len(whole) > window
        else:
            limit = window - prompt_tokens + 1
            direct = _sequence(self._cut(answer, limit), 1)
            truncated = len(whole) > window or len(answer) > limit
        both = direct.scored and conditioned.scored
        status = Status.OK if both else Status.ANSWER_TOO_SHORT
        scored = conditioned.scored
        return EncodedRow(
            status, prompt_tokens, scored, truncated, direct, conditioned, example.digest
        )

    def _cut(self, ids: list[int], length: int) -> list[int]:
        """Cuts on the right; special tokens after the text stay, as tokenizers truncate."""
        if len(ids) <= length:
            return ids
        return ids[: max(length - len(self._after), 0)] + self._after


def _sequence(ids: list[int], first: int) -> TokenSequence:
    return TokenSequence(np.asarray(ids, np.int32), first)
