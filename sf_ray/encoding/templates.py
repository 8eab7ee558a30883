"""Templates: render the messages of an example as text, and the text as token ids.

Knows the tokenizer, but not the model. By definition, each assistant turn has three lists of ids:

    before   everything before the answer
    whole    everything before the answer, and the answer
    alone    the answer on its own

The answer starts in `whole` at the length of `before`.
"""

import hashlib
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from sf_ray.corpus.contained import contained, problem
from sf_ray.corpus.examples import Example, Message, Problem
from sf_ray.corpus.fields import refuse
from sf_ray.corpus.status import Status
from sf_ray.encoding.long_texts import FEW_TOKENS, MARGIN, LongTexts, most_characters
from sf_ray.encoding.template_process import (
    PROCESS,
    TemplateError,
    TemplateJob,
    TemplateProcess,
    Turn,
)
from sf_ray.encoding.text_encoder import TextEncoder, TokenLists
from sf_ray.engine.sequences import Ints
from sf_ray.errors import SfRayError

Ids = list[int]


@dataclass(frozen=True)
class RenderedTurns:
    """The token ids of m turns, as the module's docstring defines them, in one flat array.

    Attributes:
        ids: [tokens] int32 ids in which the lists below lie.
        before_lengths: [m] tokens of `before`, whose ids nobody needs.
        whole_starts, whole_lengths: [m] where `whole` lies in `ids`.
        alone_starts, alone_lengths: [m] where `alone` lies in `ids`.
        problems: Index of a turn -> why it does not render; all its lengths are 0.
    """

    ids: NDArray[np.int32]
    before_lengths: Ints
    whole_starts: Ints
    whole_lengths: Ints
    alone_starts: Ints
    alone_lengths: Ints
    problems: Mapping[int, Problem]

    @classmethod
    def of(cls, lists: TokenLists, problems: Mapping[int, Problem]) -> "RenderedTurns":
        """Turns whose lists stand one after the other: `before` of all, `whole` of all, `alone`.

        Args:
            lists: [3 m] lists.
            problems: As above.
        """
        before, whole, alone = np.split(np.diff(lists.starts), 3)
        _, whole_starts, alone_starts = np.split(lists.starts[:-1], 3)
        return cls(lists.ids, before, whole_starts, whole, alone_starts, alone, problems)


NO_TURNS = RenderedTurns.of(TokenLists.of([]), {})


class Renderer(Protocol):
    """Renders turns of examples as token ids."""

    def turns(self, pairs: Sequence[tuple[Example, int]]) -> RenderedTurns:
        """Renders turns.

        Args:
            pairs: (example, index of the message that is the turn).
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
    def is_plain(self) -> bool:
        """Whether the messages stand one after the other, as in the paper."""
        return self.name == "plain"

    @property
    def identity(self) -> str:
        """Text that changes when the rendering does; part of the scoring identity."""
        return self.name if self.is_plain else hashlib.sha256(self.jinja.encode()).hexdigest()[:12]


class PlainRenderer:
    """The paper's rendering: the messages one after the other.

    As in the paper's code, each text is tokenised in one piece.
    """

    def __init__(self, texts: TextEncoder, window: int) -> None:
        """
        Args:
            texts: Encodes texts.
            window: Tokens that the model sees.
        """
        self._texts = LongTexts(texts, window + 1)  # an answer alone may be cut one token later

    def turns(self, pairs: Sequence[tuple[Example, int]]) -> RenderedTurns:
        """See `Renderer`."""
        texts = [contained(_before_and_answer, example, turn) for example, turn in pairs]
        problems = {i: pair for i, pair in enumerate(texts) if isinstance(pair, Problem)}
        rendered = [("", "") if isinstance(pair, Problem) else pair for pair in texts]
        befores, answers = ([pair[i] for pair in rendered] for i in range(2))
        wholes = [before + answer for before, answer in rendered]
        lists, of_texts = self._texts.encode([*befores, *wholes, *answers])
        problems |= {i % len(pairs): problem for i, problem in of_texts.items()}
        if problems:
            none: Ids = []
            ids = range(len(lists.starts) - 1)
            lists = TokenLists.of(
                [none if i % len(pairs) in problems else lists.part(i).tolist() for i in ids]
            )
        return RenderedTurns.of(lists, problems)


def _before_and_answer(example: Example, turn: int) -> tuple[str, str]:
    return example.before(turn), example.messages[turn].text


class _TurnIds(NamedTuple):
    """The token ids of one turn."""

    before: Ids
    whole: Ids
    alone: Ids


_NOTHING = _TurnIds([], [], [])


class JinjaRenderer:
    """A chat template, the model's own or a Jinja file.

    Text of the corpus never becomes a special token. The answer alone has the same tokens as behind
    its prompt, so that both passes score the same text, and the template's end of a turn is not
    scored.
    """

    def __init__(
        self,
        tokenizer: Any,
        template: Template,
        start: Ids,
        window: int,
        process: TemplateProcess = PROCESS,
    ) -> None:
        """
        Args:
            tokenizer: A fast tokenizer of transformers.
            template: Has the text of a Jinja template.
            start: Ids that the tokenizer puts before every text, so before an answer on its own.
            window: Tokens that the model sees.
            process: Where the template is rendered.

        Raises:
            SfRayError: The text is not a template, or cannot render a question and its answer.
        """
        self._process, self._start, self._window = process, start, window
        self._job = TemplateJob(pickle.dumps(tokenizer), template.jinja, window + MARGIN)
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

    def turns(self, pairs: Sequence[tuple[Example, int]]) -> RenderedTurns:
        """See `Renderer`."""
        rendered = [contained(self._turn, example, turn) for example, turn in pairs]
        problems = {i: turn for i, turn in enumerate(rendered) if isinstance(turn, Problem)}
        turns = [_NOTHING if isinstance(turn, Problem) else turn for turn in rendered]
        befores, wholes, answers = ([turn[i] for turn in turns] for i in range(3))
        return RenderedTurns.of(TokenLists.of([*befores, *wholes, *answers]), problems)

    def _turn(self, example: Example, turn: int) -> _TurnIds | Problem:
        most = most_characters(self._window)
        messages = [_for_jinja(message, most) for message in example.messages[: turn + 1]]
        # An open answer ends with its text, without the template's end of the turn. An answer that
        # calls tools, or only thinks, has no text at its end where the rendering could be cut.
        last = example.messages[turn]
        is_open = not last.calls and bool(last.content or not last.reasoning)
        try:
            ids = self._process.ids(self._job, Turn(messages, example.tools, is_open))
        except TemplateError as error:
            return problem(f"message {turn}: {error}", Status.TEMPLATE_ERROR)
        before, whole = ids.before.tolist(), ids.whole.tolist()
        # The last token before the answer may differ: a token may straddle the boundary, as in the
        # plain rendering.
        if before[:-1] != whole[: len(before) - 1]:
            return Problem(
                Status.TEMPLATE_ERROR,
                f"message {turn}: the template renders what stands before it in another way when "
                "it is there",
            )
        is_cut = any(len(m.content) > most for m in example.messages[: turn + 1])
        if is_cut and len(whole) < self._window + MARGIN:
            refuse(f"it has a text of more than {most:,} characters, and {FEW_TOKENS}")
        return _TurnIds(before, whole, self._start + whole[len(before) :])


def _for_jinja(message: Message, most: int) -> dict[str, Any]:
    """A message as chat templates expect it, each text with `most` characters at most."""
    fields: dict[str, Any] = {"role": message.role, "content": message.content[:most]}
    if message.reasoning:
        fields["reasoning_content"] = message.reasoning[:most]
    if message.calls:
        functions = [{"name": c.name, "arguments": c.arguments} for c in message.calls]
        fields["tool_calls"] = [{"type": "function", "function": call} for call in functions]
    return fields
