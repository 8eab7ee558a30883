"""Templates: render the messages of an example as text, and the text as token ids.

Knows the tokenizer, but not the model. By definition, each assistant turn has three lists of ids:

    before   everything before the answer
    whole    everything before the answer, and the answer
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
    """The token ids of one turn, as the module's docstring defines them."""

    before: Ids
    whole: Ids
    alone: Ids


class Renderer(Protocol):
    """Renders turns of examples as token ids."""

    def turns(self, pairs: Sequence[tuple[Example, int]]) -> Sequence[TurnIds | Problem]:
        """Renders turns.

        Args:
            pairs: (example, index of the message that is the turn).

        Returns:
            For each turn, in order, its ids or the reason why it does not render.
        """


@dataclass(frozen=True)
class Template:
    """How messages become one text.

    Attributes:
        name: "plain" for the paper's rendering, "chat" for the model's own template, or the path
            or URI of a Jinja template.
        jinja: Text of the template; "" for "plain".
    """

    name: str = "plain"
    jinja: str = ""

    @property
    def identity(self) -> str:
        """Text that changes when the rendering does; part of the scoring identity."""
        if self.name == "plain":
            return self.name
        return hashlib.sha256(self.jinja.encode()).hexdigest()[:12]

    def renderer(self, tokenizer: Any, start: Ids) -> Renderer:
        """The renderer for a tokenizer, which puts the ids `start` before every text.

        Raises:
            SfRayError: The Jinja template does not work.
        """
        if self.name == "plain":
            return PlainRenderer(tokenizer)
        return JinjaRenderer(tokenizer, self, start)


class PlainRenderer:
    """The paper's rendering: the messages one after the other.

    As in the paper's code, each text is tokenised in one piece, with the tokenizer's own special
    tokens around it, and text that looks like a special token becomes that token.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._backend = tokenizer.backend_tokenizer

    def turns(self, pairs: Sequence[tuple[Example, int]]) -> list[TurnIds]:
        """See `Renderer`."""
        befores = [example.before(turn) for example, turn in pairs]
        answers = [example.messages[turn].text for example, turn in pairs]
        wholes = [before + answer for before, answer in zip(befores, answers, strict=True)]
        lists = (self._ids(befores), self._ids(wholes), self._ids(answers))
        return [TurnIds(*ids) for ids in zip(*lists, strict=True)]

    def _ids(self, texts: list[str]) -> list[Ids]:
        return [e.ids for e in self._backend.encode_batch_fast(texts, add_special_tokens=True)]


class JinjaRenderer:
    """A chat template, the model's own or a Jinja file.

    Text of the corpus never becomes a special token. The answer alone has the same tokens as behind
    its prompt, so that both passes score the same text, and the template's end of a turn is not
    scored.
    """

    def __init__(self, tokenizer: Any, template: Template, start: Ids) -> None:
        """
        Args:
            tokenizer: A fast tokenizer of transformers.
            template: Has the text of a Jinja template.
            start: Ids that the tokenizer puts before every text, so before an answer on its own.

        Raises:
            SfRayError: The text is not a template, or cannot render a question and its answer.
        """
        self._tokenizer, self._template, self._start = tokenizer, template, start
        probe = Example((Message("user", "Hi"), Message("assistant", "Ho")))
        rendered = self._turn(probe, 1)
        if isinstance(rendered, Problem) or len(rendered.whole) <= len(rendered.before):
            reason = (
                rendered.reason
                if isinstance(rendered, Problem)
                else "the answer adds no token: it is not in the rendering, or what stands before "
                "it ends with a space, which becomes one token with the answer's first word"
            )
            raise SfRayError(
                f"--template {template.name}: cannot render a question and its answer: {reason}"
            )

    def turns(self, pairs: Sequence[tuple[Example, int]]) -> list[TurnIds | Problem]:
        """See `Renderer`."""
        return [self._turn(example, turn) for example, turn in pairs]

    def _turn(self, example: Example, turn: int) -> TurnIds | Problem:
        try:
            messages = [_for_jinja(message) for message in example.messages[: turn + 1]]
            tools = json.loads(example.tools) if example.tools else None
            # An open answer ends with its text, without the template's end of the turn. An answer
            # that calls tools has no text at its end where the rendering could be cut.
            is_open = not example.messages[turn].calls
            before = self._ids(messages[:-1], tools, add_generation_prompt=True)
            whole = self._ids(messages, tools, continue_final_message=is_open)
        except Exception as error:  # noqa: BLE001 - a template may do anything with what it gets
            return Problem(Status.TEMPLATE_ERROR, f"message {turn}: {_description(error)}")
        # The last token before the answer may differ: a token may straddle the boundary, as in the
        # plain rendering.
        if before[:-1] != whole[: len(before) - 1]:
            return Problem(
                Status.TEMPLATE_ERROR,
                f"message {turn}: the template renders what stands before it in another way when "
                "it is there",
            )
        return TurnIds(before, whole, self._start + whole[len(before) :])

    def _ids(self, messages: list[dict[str, Any]], tools: Any, **options: bool) -> Ids:
        ids: Ids = self._tokenizer.apply_chat_template(
            messages,
            tools=tools,
            chat_template=self._template.jinja,
            sanitize_control_tokens=True,
            return_dict=False,
            **options,
        )
        return ids


def _for_jinja(message: Message) -> dict[str, Any]:
    """A message in the form that chat templates expect."""
    fields: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.calls:
        functions = [{"name": c.name, "arguments": c.arguments} for c in message.calls]
        fields["tool_calls"] = [{"type": "function", "function": call} for call in functions]
    return fields


def _description(error: Exception) -> str:
    """Says what went wrong, and in which line of the template."""
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename in ("<template>", "<unknown>")  # names that Jinja gives to templates
    ]
    line = getattr(error, "lineno", None) or (lines[-1] if lines else None)
    where = f"line {line} of the template: " if line else ""
    text = str(error).strip().partition("\n")[0]
    return f"{where}{type(error).__name__}: {text}"
