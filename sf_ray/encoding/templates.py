"""Templates: what stands around the messages, and the tokens that this comes to.

Knows the tokenizer, not the model. Each assistant turn comes to three lists of ids, by definition:

    before   all that stands before the answer
    whole    all that stands before it, and the answer
    alone    the answer on its own

The answer starts in `whole` at the length of `before`.
"""

import hashlib
import json
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from sf_ray.corpus.examples import Example, Message, Problem
from sf_ray.corpus.status import Status
from sf_ray.errors import SfRayError

Ids = list[int]


class TurnIds(NamedTuple):
    """The tokens of one turn."""

    before: Ids
    whole: Ids
    alone: Ids


class Renderer(Protocol):
    """What turns of examples come to."""

    def turns(self, wanted: Sequence[tuple[Example, int]]) -> Sequence[TurnIds | Problem]:
        """The tokens of (example, index of the turn's message), in order."""


@dataclass(frozen=True)
class Template:
    """How messages become one text.

    Attributes:
        name: "plain" for the paper's rendering, "chat" for the model's own template, or where a
            Jinja template comes from.
        jinja: Its text; "" for plain.
    """

    name: str = "plain"
    jinja: str = ""

    @property
    def identity(self) -> str:
        """Changes when the rendering does."""
        if self.name == "plain":
            return self.name
        return hashlib.sha256(self.jinja.encode()).hexdigest()[:12]

    def renderer(self, tokenizer: Any, start: Ids) -> Renderer:
        """Renders with a tokenizer that puts `start` before any text."""
        if self.name == "plain":
            return PlainRenderer(tokenizer)
        return JinjaRenderer(tokenizer, self, start)


class PlainRenderer:
    """The paper's rendering: messages one after the other, what looks like a special token is one.

    Each text is tokenised in one piece, with the tokenizer's own special tokens around it.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._backend = tokenizer.backend_tokenizer

    def turns(self, wanted: Sequence[tuple[Example, int]]) -> list[TurnIds]:
        """See `Renderer`."""
        befores = [example.before(turn) for example, turn in wanted]
        answers = [example.messages[turn].text for example, turn in wanted]
        wholes = [before + answer for before, answer in zip(befores, answers, strict=True)]
        lists = (self._ids(befores), self._ids(wholes), self._ids(answers))
        return [TurnIds(*ids) for ids in zip(*lists, strict=True)]

    def _ids(self, texts: list[str]) -> list[Ids]:
        return [e.ids for e in self._backend.encode_batch_fast(texts, add_special_tokens=True)]


class JinjaRenderer:
    """A chat template, as the model's own: what data contains never becomes a special token.

    The answer alone is the very tokens that it is behind its prompt: where the template ends a
    turn is not scored.
    """

    def __init__(self, tokenizer: Any, template: Template, start: Ids) -> None:
        """
        Args:
            tokenizer: A fast tokenizer of transformers.
            template: With the text of a Jinja template.
            start: What the tokenizer puts before an answer on its own.

        Raises:
            SfRayError: It is no template, or cannot render a question and its answer.
        """
        self._tokenizer, self._template, self._start = tokenizer, template, start
        probe = Example((Message("user", "Hi"), Message("assistant", "Ho")))
        found = self._turn(probe, 1)
        if isinstance(found, Problem) or len(found.whole) <= len(found.before):
            reason = (
                found.reason
                if isinstance(found, Problem)
                else "the answer adds no token: it is not in the rendering, or what stands before "
                "it ends with a space, which becomes one token with the answer's first word"
            )
            raise SfRayError(
                f"--template {template.name}: cannot render a question and its answer: {reason}"
            )

    def turns(self, wanted: Sequence[tuple[Example, int]]) -> list[TurnIds | Problem]:
        """See `Renderer`."""
        return [self._turn(example, turn) for example, turn in wanted]

    def _turn(self, example: Example, turn: int) -> TurnIds | Problem:
        try:
            messages = [_for_jinja(message) for message in example.messages[: turn + 1]]
            tools = json.loads(example.tools) if example.tools else None
            # An answer that calls tools has no text at whose end the rendering could be cut.
            is_open = not example.messages[turn].calls
            before = self._ids(messages[:-1], tools, add_generation_prompt=True)
            whole = self._ids(messages, tools, continue_final_message=is_open)
        except Exception as error:  # noqa: BLE001 - a template may do anything with what it gets
            return Problem(Status.TEMPLATE_ERROR, f"message {turn}: {_told(error)}")
        # One token may straddle the boundary, as in the plain rendering.
        if before[:-1] != whole[: len(before) - 1]:
            return Problem(
                Status.TEMPLATE_ERROR,
                f"message {turn}: the template renders what stands before it in another way when "
                "it is there",
            )
        return TurnIds(before, whole, self._start + whole[len(before) :])

    def _ids(self, messages: list[dict[str, Any]], tools: Any, **how: bool) -> Ids:
        ids: Ids = self._tokenizer.apply_chat_template(
            messages,
            tools=tools,
            chat_template=self._template.jinja,
            sanitize_control_tokens=True,
            return_dict=False,
            **how,
        )
        return ids


def _for_jinja(message: Message) -> dict[str, Any]:
    told: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.calls:
        functions = [{"name": c.name, "arguments": c.arguments} for c in message.calls]
        told["tool_calls"] = [{"type": "function", "function": one} for one in functions]
    return told


def _told(error: Exception) -> str:
    """What went wrong, and in which line of the template."""
    lines = [
        one.lineno
        for one in traceback.extract_tb(error.__traceback__)
        if one.filename in ("<template>", "<unknown>")
    ]
    line = getattr(error, "lineno", None) or (lines[-1] if lines else None)
    where = f"line {line} of the template: " if line else ""
    text = str(error).strip().partition("\n")[0]
    return f"{where}{type(error).__name__}: {text}"
