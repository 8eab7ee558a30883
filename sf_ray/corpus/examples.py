"""Examples: the messages of one row, and why a row has none that can be scored.

Knows no tokens, no model, no files.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sf_ray.corpus.status import Status

# What corpora call the four roles.
_ROLES = {
    "system": ("system", "developer"),
    "user": ("user", "human"),
    "assistant": ("assistant", "gpt", "model", "bot", "function_call", "tool_call"),
    "tool": ("tool", "observation", "function", "tool_response"),
}
_ROLE = {name: role for role, names in _ROLES.items() for name in names}


@dataclass(frozen=True)
class Message:
    """One turn.

    Attributes:
        role: "system", "user", "assistant" or "tool".
        content: What it says; "" where it only calls tools.
        calls: The tools that it calls.
        answers: The id of the call that a tool's message answers; "" where it is not known.
    """

    role: str
    content: str
    calls: tuple["ToolCall", ...] = ()
    answers: str = ""

    @property
    def text(self) -> str:
        """All of it as text: the content, then each call as a line of JSON."""
        calls = [call.text for call in self.calls]
        return "\n".join([self.content, *calls] if self.content else calls)


@dataclass(frozen=True)
class ToolCall:
    """A call of a tool.

    Attributes:
        name: The tool's.
        arguments: What JSON holds.
        call_id: "" where it has none.
    """

    name: str
    arguments: Any
    call_id: str = ""

    @property
    def text(self) -> str:
        """As JSON."""
        return as_json({"name": self.name, "arguments": self.arguments})


@dataclass(frozen=True)
class Example:
    """What the model sees of one row: a chat, or a prompt and its answer as a chat of two.

    Attributes:
        messages: In order; the last one is the assistant's.
        tools: Definitions of the tools that it may call, as JSON text; "" for none.
        separator: What the plain rendering puts behind every message, and behind the tools.
    """

    messages: tuple[Message, ...]
    tools: str = ""
    separator: str = "\n"

    @classmethod
    def pair(cls, prompt: str, answer: str, system: str = "", separator: str = "") -> "Example":
        """A prompt and its answer."""
        before = (Message("system", system),) if system else ()
        messages = (*before, Message("user", prompt), Message("assistant", answer))
        return cls(messages, separator=separator)

    @property
    def turns(self) -> list[int]:
        """Which messages can be scored: those of the assistant that have something before them."""
        return [
            i for i, m in enumerate(self.messages) if m.role == "assistant" and (i or self.tools)
        ]

    def before(self, turn: int) -> str:
        """The plain rendering of all that stands before a message."""
        texts = [self.tools] if self.tools else []
        texts += [m.text for m in self.messages[:turn]]
        return "".join(text + self.separator for text in texts)

    @property
    def text(self) -> str:
        """The plain rendering of all that is said."""
        return self.before(len(self.messages)).removesuffix(self.separator)

    @property
    def digest(self) -> bytes:
        """[16] bytes that tell this text from any other; copies of an example have the same."""
        text = hashlib.blake2b(digest_size=16)
        for part in (self.tools, *(part for m in self.messages for part in (m.role, m.text))):
            # Half of a surrogate pair is text for JSON and Python, though not for UTF-8.
            data = part.encode("utf-8", "surrogatepass")
            text.update(len(data).to_bytes(8, "little") + data)
        return text.digest()


@dataclass(frozen=True)
class Problem:
    """Why a row has no example that can be scored.

    Attributes:
        status: What the score table says.
        reason: What is wrong, for people.
    """

    status: Status
    reason: str


def chat_of(value: object, tools: object = None, system: object = None) -> Example | Problem:
    """A chat as corpora hold it.

    Args:
        value: A list of messages: `role` and `content` (OpenAI) or `from` and `value` (ShareGPT).
            Content is text, or a list of parts that are text.
        tools: Tool definitions: JSON, as text or not; None for none.
        system: A system prompt beside the messages; None for none.
    """
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        return Problem(Status.BAD_ROW, f"the messages are {_kind(value)}, expected a list")
    messages = [] if not system else [Message("system", str(system))]
    for number, item in enumerate(value):
        message = _message(item)
        if isinstance(message, Problem):
            return Problem(message.status, f"message {number}: {message.reason}")
        if message.role != "system" or message.content.strip():  # no system prompt: often ""
            messages.append(message)
    example = Example(tuple(messages), _tools(tools))
    if not any(m.role == "assistant" for m in messages):
        return Problem(Status.NO_ASSISTANT_TURN, f"none of its {len(value)} messages is an answer")
    if messages[-1].role != "assistant":
        return Problem(
            Status.ENDS_IN_USER_TURN, f"its last message is of the role {messages[-1].role!r}"
        )
    if not example.turns:
        return Problem(Status.NO_PROMPT, "nothing stands before its only answer")
    return example


def _message(item: object) -> Message | Problem:
    if not isinstance(item, Mapping):
        return Problem(Status.BAD_ROW, f"it is {_kind(item)}, expected an object")
    name = item.get("role", item.get("from"))
    role = _ROLE.get(name) if isinstance(name, str) else None
    if role is None:
        return Problem(Status.UNKNOWN_ROLE, f"unknown role {name!r}, expected one of {list(_ROLE)}")
    content = _content(item.get("content", item.get("value")))
    if isinstance(content, Problem):
        return content
    if name in ("function_call", "tool_call") and (written := _written_calls(content)):
        return Message(role, "", written)
    raw = item.get("tool_calls") or ()
    if isinstance(raw, str) or not isinstance(raw, Sequence):
        return Problem(Status.BAD_ROW, f"its tool_calls are {_kind(raw)}, expected a list")
    calls = tuple(call for call in map(_call, raw) if call)
    if len(calls) < len(raw):
        return Problem(Status.BAD_ROW, "one of its tool_calls is no function with a name")
    if not content.strip() and not calls and role != "system":
        return Problem(Status.EMPTY_TURN, f"the {role}'s turn is empty")
    return Message(role, content, calls, str(item.get("tool_call_id") or ""))


def _content(value: object) -> str | Problem:
    """Text of a message's content: text, parts of text, or nothing."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if not isinstance(value, Sequence) or isinstance(value, bytes):
        return Problem(Status.BAD_ROW, f"its content is {_kind(value)}, expected text")
    texts = []
    for part in value:
        text = part.get("text") if isinstance(part, Mapping) else part
        kind = part.get("type", "text") if isinstance(part, Mapping) else "text"
        if kind not in ("text", "input_text", "output_text") or not isinstance(text, str):
            return Problem(Status.UNSUPPORTED_PART, f"a part of it is {kind!r}, not text")
        texts.append(text)
    return "".join(texts)


def _written_calls(text: str) -> tuple[ToolCall, ...]:
    """The calls that a text in JSON is; none where it is something else."""
    try:
        value = json.loads(text)
    except ValueError:
        return ()
    calls = [_call(one) for one in (value if isinstance(value, list) else [value])]
    return tuple(call for call in calls if call) if all(calls) else ()


def _call(value: object) -> ToolCall | None:
    """A call as OpenAI's API has it, or only its function."""
    function = value.get("function", value) if isinstance(value, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        return None
    arguments = function.get("arguments")
    if isinstance(arguments, str):  # OpenAI has JSON in JSON
        with suppress(ValueError):
            arguments = json.loads(arguments)
    call_id = value.get("id") if isinstance(value, Mapping) else None
    return ToolCall(function["name"], _without_nulls(arguments), str(call_id or ""))


def _tools(value: object) -> str:
    if not value:
        return ""
    if isinstance(value, str):
        return "" if value.strip() in ("[]", "null") else value
    return as_json(_without_nulls(value))


def _without_nulls(value: Any) -> Any:
    """As it was in JSON: Arrow gives every object all keys that any has."""
    if isinstance(value, Mapping):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    return [_without_nulls(v) for v in value] if isinstance(value, list) else value


def as_json(value: object) -> str:
    """JSON text, on one line."""
    return json.dumps(value, ensure_ascii=False, default=str)


def _kind(value: object) -> str:
    if value is None:
        return "null"
    return "not valid UTF-8" if isinstance(value, bytes) else type(value).__name__
