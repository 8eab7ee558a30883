"""Examples: the messages of one row, or the reason why the row has nothing to score.

Does not know how corpora write messages down (`messages.py`, `pairs.py`). Knows no tokens,
no model and no files.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

from sf_ray.corpus.fields import as_json
from sf_ray.corpus.status import Status


@dataclass(frozen=True)
class Message:
    """One message of a chat.

    Attributes:
        role: "system", "user", "assistant" or "tool".
        content: The text; "" where the message only calls tools.
        calls: Calls of tools that the message makes.
        answers: For a tool's message, the id of the call that it answers; "" where not known.
        reasoning: What the assistant thinks before it answers; "" for nothing.
        weight: For an answer, how much training counts it: an answer of weight 0 is context of what
            follows, and has no score of its own. Other weights change no score.
        name: Name of who speaks, e.g. of the tool; only exports need it.
    """

    role: str
    content: str
    calls: tuple["ToolCall", ...] = ()
    answers: str = ""
    reasoning: str = ""
    weight: float = 1
    name: str = ""

    @property
    def text(self) -> str:
        """The whole message as text: reasoning, content, then each call as a line of JSON."""
        if not self.calls and not self.reasoning:  # most messages
            return self.content
        spoken = [part for part in (self.reasoning, self.content) if part]
        return "\n".join([*spoken, *(call.text for call in self.calls)])


@dataclass(frozen=True)
class ToolCall:
    """A call of a tool.

    Attributes:
        name: Name of the tool.
        arguments: Any value that JSON can hold; mostly an object.
        call_id: Id of the call; "" where the corpus has none.
    """

    name: str
    arguments: Any
    call_id: str = ""

    @property
    def text(self) -> str:
        """The call as JSON, without its id."""
        return as_json({"name": self.name, "arguments": self.arguments})


@dataclass(frozen=True)
class Example:
    """The content of one row that the model sees: a chat.

    A prompt and its answer are a chat of two messages.

    Attributes:
        messages: In order; the last one is the assistant's.
        tools: Definitions of the tools that the assistant may call, as JSON text; "" for none.
        separator: Text that the plain rendering puts behind the tools and behind every message.
        scored_from: Index of the first message that may be scored. Answers before it are context:
            those of earlier rounds, or in a prompt.
    """

    messages: tuple[Message, ...]
    tools: str = ""
    separator: str = "\n"
    scored_from: int = 0

    @classmethod
    def pair(cls, prompt: str, answer: str, system: str = "", separator: str = "") -> "Example":
        """A prompt and its answer, with an optional system prompt before them."""
        before = (Message("system", system),) if system else ()
        messages = (*before, Message("user", prompt), Message("assistant", answer))
        return cls(messages, separator=separator)

    @property
    def turns(self) -> list[int]:
        """Indices of the messages that can be scored.

        They are the assistant's, except a first message without anything before it, and those that
        are context only.
        """
        return [i for i in self._answers if i >= self.scored_from and self.messages[i].weight]

    @property
    def _answers(self) -> list[int]:
        """Indices of the assistant's messages that have something before them."""
        return [
            i for i, m in enumerate(self.messages) if m.role == "assistant" and (i or self.tools)
        ]

    def before(self, turn: int) -> str:
        """The plain rendering of everything before message `turn`."""
        texts = [self.tools] if self.tools else []
        texts += [m.text for m in self.messages[:turn]]
        return "".join(text + self.separator for text in texts)

    @property
    def text(self) -> str:
        """The plain rendering of the whole example."""
        return self.before(len(self.messages)).removesuffix(self.separator)

    @property
    def digest(self) -> bytes:
        """[16] bytes, a hash of tools, roles and texts; copies of an example share it.

        Where some answers are context only, also of which ones are scored.
        """
        content_hash = hashlib.blake2b(digest_size=16)
        parts = [self.tools, *(part for m in self.messages for part in (m.role, m.text))]
        if (self.scored_from or any(not m.weight for m in self.messages)) and (
            self.turns != self._answers
        ):
            parts.append(f"scored: {self.turns}")
        for part in parts:
            # JSON and Python take half of a surrogate pair for text; UTF-8 does not.
            data = part.encode("utf-8", "surrogatepass")
            # With the length in front, no two lists of parts give the same bytes.
            content_hash.update(len(data).to_bytes(8, "little") + data)
        return content_hash.digest()


@dataclass(frozen=True)
class Problem:
    """Why a row has nothing to score.

    Attributes:
        status: Status of the row in the score table.
        reason: What is wrong with the row, for people.
    """

    status: Status
    reason: str
