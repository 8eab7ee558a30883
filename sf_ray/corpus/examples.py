"""Examples: the messages of one row, or the reason why the row has nothing to score.

Knows no tokens, no model and no files.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sf_ray.corpus.status import Status

# The names that corpora give to each of the four roles.
_ROLES = {
    "system": ("system", "developer"),
    "user": ("user", "human"),
    "assistant": ("assistant", "gpt", "model", "bot", "function_call", "tool_call"),
    "tool": ("tool", "observation", "function", "tool_response"),
}
_ROLE = {name: role for role, names in _ROLES.items() for name in names}


@dataclass(frozen=True)
class Message:
    """One message of a chat.

    Attributes:
        role: "system", "user", "assistant" or "tool".
        content: The text; "" where the message only calls tools.
        calls: Calls of tools that the message makes.
        answers: For a tool's message, the id of the call that it answers; "" where not known.
    """

    role: str
    content: str
    calls: tuple["ToolCall", ...] = ()
    answers: str = ""

    @property
    def text(self) -> str:
        """The whole message as text: the content, then each call as a line of JSON."""
        calls = [call.text for call in self.calls]
        return "\n".join([self.content, *calls] if self.content else calls)


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
    """

    messages: tuple[Message, ...]
    tools: str = ""
    separator: str = "\n"

    @classmethod
    def pair(cls, prompt: str, answer: str, system: str = "", separator: str = "") -> "Example":
        """A prompt and its answer, with an optional system prompt before them."""
        before = (Message("system", system),) if system else ()
        messages = (*before, Message("user", prompt), Message("assistant", answer))
        return cls(messages, separator=separator)

    @property
    def turns(self) -> list[int]:
        """Indices of the messages that can be scored.

        They are the assistant's, except a first message without anything before it.
        """
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
        """[16] bytes, a hash of tools, roles and texts; copies of an example share it."""
        content_hash = hashlib.blake2b(digest_size=16)
        for part in (self.tools, *(part for m in self.messages for part in (m.role, m.text))):
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


def chat_of(value: object, tools: object = None, system: object = None) -> Example | Problem:
    """Makes an example of a chat in the form that corpora hold it.

    Args:
        value: A list of messages with `role` and `content` (OpenAI) or `from` and `value`
            (ShareGPT). Content is text, or a list of parts that are text.
        tools: Tool definitions, as JSON text or as parsed JSON; None for none.
        system: A system prompt beside the messages; None for none.
    """
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        return Problem(Status.BAD_ROW, f"the messages are {_type_name(value)}, expected a list")
    messages = [] if not system else [Message("system", str(system))]
    for number, item in enumerate(value):
        message = _message(item)
        if isinstance(message, Problem):
            return Problem(message.status, f"message {number}: {message.reason}")
        # Many corpora have a system message with the content "" where there is no system prompt.
        if message.role != "system" or message.content.strip():
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
    """One message of OpenAI's or ShareGPT's form."""
    if not isinstance(item, Mapping):
        return Problem(Status.BAD_ROW, f"it is {_type_name(item)}, expected an object")
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
        return Problem(Status.BAD_ROW, f"its tool_calls are {_type_name(raw)}, expected a list")
    calls = tuple(call for call in map(_call, raw) if call)
    if len(calls) < len(raw):
        return Problem(Status.BAD_ROW, "one of its tool_calls is no function with a name")
    if not content.strip() and not calls and role != "system":
        return Problem(Status.EMPTY_TURN, f"the {role}'s turn is empty")
    return Message(role, content, calls, str(item.get("tool_call_id") or ""))


def _content(value: object) -> str | Problem:
    """The text of a content, which may be text, a list of parts or None."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if not isinstance(value, Sequence) or isinstance(value, bytes):
        return Problem(Status.BAD_ROW, f"its content is {_type_name(value)}, expected text")
    texts = []
    for part in value:
        text = part.get("text") if isinstance(part, Mapping) else part
        part_type = part.get("type", "text") if isinstance(part, Mapping) else "text"
        if part_type not in ("text", "input_text", "output_text") or not isinstance(text, str):
            return Problem(Status.UNSUPPORTED_PART, f"a part of it is {part_type!r}, not text")
        texts.append(text)
    return "".join(texts)


def _written_calls(text: str) -> tuple[ToolCall, ...]:
    """The tool calls that a text holds as JSON; empty where the text is anything else."""
    try:
        value = json.loads(text)
    except ValueError:
        return ()
    calls = [_call(item) for item in (value if isinstance(value, list) else [value])]
    return tuple(call for call in calls if call) if all(calls) else ()


def _call(value: object) -> ToolCall | None:
    """A tool call in the form of OpenAI's API, or the function of such a call alone.

    Returns:
        None where the value is neither.
    """
    function = value.get("function", value) if isinstance(value, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        return None
    arguments = function.get("arguments")
    if isinstance(arguments, str):  # OpenAI's API has arguments as JSON text inside the JSON
        with suppress(ValueError):
            arguments = json.loads(arguments)
    call_id = value.get("id") if isinstance(value, Mapping) else None
    return ToolCall(function["name"], _without_nulls(arguments), str(call_id or ""))


def _tools(value: object) -> str:
    """Tool definitions as JSON text; "" where there are none."""
    if not value:
        return ""
    if isinstance(value, str):
        return "" if value.strip() in ("[]", "null") else value
    return as_json(_without_nulls(value))


def _without_nulls(value: Any) -> Any:
    """Drops nulls: Arrow gives every object the keys of all others, with null where absent."""
    if isinstance(value, Mapping):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    return [_without_nulls(v) for v in value] if isinstance(value, list) else value


def as_json(value: object) -> str:
    """A value as one line of JSON text."""
    return json.dumps(value, ensure_ascii=False, default=str)


def _type_name(value: object) -> str:
    """Names the type of a wrong value, for people."""
    if value is None:
        return "null"
    return "not valid UTF-8" if isinstance(value, bytes) else type(value).__name__
