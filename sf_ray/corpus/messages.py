"""Messages: a chat in any of the forms in which corpora hold one, as an `Example`.

    [{"role": "user", "content": "Hi"}, ...]        OpenAI
    [{"from": "human", "value": "Hi"}, ...]         ShareGPT
    {"role": ["user", ...], "content": [...]}       what `datasets` makes of a sequence of objects
    '[{"role": "user", ...}]'                       JSON text of any of them
    ["Hi", "Hello", ...]                            texts in turns, the user's first (LIMA)

Arrow gives every object the keys of all others: a key that is null (or NaN) is no key, and hides no
other one. Knows no columns, no tokens and no files.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from math import isinf
from sys import float_info
from typing import Any

from sf_ray.corpus.contained import contained
from sf_ray.corpus.examples import Example, Message, Problem, ToolCall
from sf_ray.corpus.fields import (
    FieldError,
    as_object,
    checked_json,
    elements,
    first,
    is_absent,
    is_blank,
    load_json,
    refuse,
    text,
    type_name,
    without_nulls,
)
from sf_ray.corpus.media import refuse_media
from sf_ray.corpus.status import Status

# The names that corpora give to each of the four roles, in lower case.
_ROLES = {
    "system": ("system", "developer"),
    "user": ("user", "human", "prompter"),
    "assistant": (
        *("assistant", "gpt", "model", "bot", "ai", "chatgpt", "bing", "bard", "gemini", "claude"),
        *("function_call", "tool_call"),
    ),
    "tool": ("tool", "observation", "function", "tool_response", "tool_result", "ipython"),
}
_ROLE = {name: role for role, names in _ROLES.items() for name in names}
# Keys that say whether an answer is trained on: OpenAI's, Axolotl's two, ms-swift's.
WEIGHTS = ("weight", "train", "training", "loss")
REASONING = ("reasoning_content", "reasoning", "thinking")
_TEXT_PARTS = ("text", "input_text", "output_text")


def chat_of(
    value: object, tools: object = None, system: object = None, functions: object = None
) -> Example | Problem:
    """Makes an example of a chat in a form that corpora hold it in.

    Args:
        value: The messages, in one of the forms above. Content is text, or a list of parts that are
            text.
        tools: Tool definitions, as JSON text or as parsed JSON; None for none.
        system: A system prompt beside the messages; None for none.
        functions: Definitions in the older form of OpenAI's API, where there are no `tools`.
    """
    return contained(_chat_of, value, tools, system, functions)


def _chat_of(value: object, tools: object, system: object, functions: object) -> Example:
    if is_absent(value):
        refuse("the messages are null, expected a list")
    prompt = text(system, "the system prompt is")
    before = (Message("system", prompt),) if prompt else ()
    return checked_chat(Example(before + messages_of(value), tools_of(tools, functions)))


def checked_chat(example: Example) -> Example:
    """The example, if its last message is an answer and there is an answer to score.

    Raises:
        FieldError: It is no such chat.
    """
    messages = example.messages
    if not any(m.role == "assistant" for m in messages):
        refuse(f"none of its {len(messages)} messages is an answer", Status.NO_ASSISTANT_TURN)
    if messages[-1].role != "assistant":
        refuse(f"its last message is of the role {messages[-1].role!r}", Status.ENDS_IN_USER_TURN)
    if not example.turns:
        if any(not m.weight for m in messages):
            refuse("all of its answers have the weight 0", Status.NO_ASSISTANT_TURN)
        refuse("nothing stands before its only answer", Status.NO_PROMPT)
    return example


def messages_of(value: object, what: str = "the messages are") -> tuple[Message, ...]:
    """The messages of a chat, or of a part of one.

    Args:
        value: In one of the forms above.
        what: The field and a verb, for errors.

    Raises:
        FieldError: A message cannot be used; says which.
    """
    items = elements(value, what)
    if items and all(isinstance(item, str) for item in items) and not _are_written(items):
        turns = [("user", "assistant")[i % 2] for i in range(len(items))]
        items = [{"role": role, "content": item} for role, item in zip(turns, items, strict=True)]
    messages = []
    for number, item in enumerate(items):
        try:
            message = _message(item)
        except FieldError as error:
            raise FieldError(f"message {number}: {error.reason}", error.status) from None
        # Many corpora have a system message with the content "" where there is no system prompt.
        if message.role != "system" or message.content.strip():
            messages.append(message)
    return tuple(messages)


def _are_written(items: Sequence[object]) -> bool:
    """Whether all of some values are objects like messages, or JSON text of one."""
    objects = map(as_object, items)
    return all(fields is not None and ("role" in fields or "from" in fields) for fields in objects)


def written_messages(source: str) -> list[Any] | None:
    """The messages that a text holds as JSON; None where it is any other text."""
    if source.lstrip()[:1] != "[":
        return None
    try:
        value = load_json(source)
    except ValueError:
        return None
    return value if value and _are_written(value) else None


def _message(item: object) -> Message:
    """One message of OpenAI's or ShareGPT's form."""
    fields = as_object(item)
    if fields is None:
        refuse(f"it is {type_name(item)}, expected an object")
    name = text(first(fields.get("role"), fields.get("from")), "its role is").strip().casefold()
    role = _ROLE.get(name)
    if role is None:
        shown = first(fields.get("role"), fields.get("from"))
        refuse(f"unknown role {shown!r}, expected one of {list(_ROLE)}", Status.UNKNOWN_ROLE)
    refuse_media(fields)
    content = _content(first(fields.get("content"), fields.get("value")))
    weight = _weight(fields) if role == "assistant" else 1
    if name in ("function_call", "tool_call") and (written := _written_calls(content)):
        return Message(role, "", written, weight=weight)
    calls, reasoning = _calls(fields), _reasoning(fields)
    if not content.strip() and not calls and not reasoning.strip() and role != "system":
        refuse(f"the {role}'s turn is empty", Status.EMPTY_TURN)
    speaker = fields.get("name")
    return Message(
        role,
        content,
        calls,
        text(fields.get("tool_call_id"), "its tool_call_id is"),
        reasoning,
        weight,
        speaker if isinstance(speaker, str) else "",
    )


def _content(value: object) -> str:
    """The text of a content, which may be text, a list of parts or absent."""
    if is_absent(value) or isinstance(value, str):
        return text(value, "its content is")
    if not isinstance(value, Sequence | Mapping) or isinstance(value, bytes):
        refuse(f"its content is {type_name(value)}, expected text")
    return "".join(map(_part, elements(value, "its content is")))


def _part(part: object) -> str:
    if isinstance(part, str | bytes):
        return text(part, "a part of its content is")
    fields = as_object(part)
    if fields is None:
        refuse(f"a part of its content is {type_name(part)}, expected text")
    part_type = first(fields.get("type"), "text")
    inner = fields.get("text")
    if part_type not in _TEXT_PARTS or is_absent(inner):
        # A part without a type is what its keys say: {"type": null, "image_url": {...}}.
        keys = [key for key, value in fields.items() if key != "type" and not is_blank(value)]
        kind = part_type if part_type not in _TEXT_PARTS or not keys else keys[0]
        refuse(f"a part of it is {kind!r}, not text", Status.UNSUPPORTED_PART)
    return text(inner, "a part of its content is")


def _reasoning(fields: Mapping[str, Any]) -> str:
    if fields.keys().isdisjoint(REASONING):  # of nearly every message
        return ""
    own, *others = (fields.get(name) for name in REASONING)
    # The other two names also hold settings: "thinking": true.
    found = [own, *(other for other in others if isinstance(other, str))]
    texts = (text(value, "its reasoning_content is") for value in found)
    return next((value for value in texts if value.strip()), "")


def _weight(fields: Mapping[str, Any]) -> float:
    """The weight of an answer: 1 where nothing says otherwise."""
    weight: float = 1
    if fields.keys().isdisjoint(WEIGHTS):  # of nearly every message
        return weight
    for name in WEIGHTS:
        value = fields.get(name)
        if is_absent(value):
            continue
        if not isinstance(value, bool | int | float):
            refuse(f"its {name} is {type_name(value)}, expected true, false or a number")
        weight *= _finite(value, name)
    return _finite(weight, "weight")


def _finite(value: float, name: str) -> float:
    """The number; JSON, and so an export, has no form for infinity, nor floats for 10**400."""
    if isinf(value) if isinstance(value, float) else abs(value) > float_info.max:
        refuse(f"its {name} is infinite")
    return value


def _calls(fields: Mapping[str, Any]) -> tuple[ToolCall, ...]:
    """The calls of tools in a message, in the newer form or the older one."""
    raw, older = fields.get("tool_calls"), fields.get("function_call")
    if raw is None and older is None:  # of nearly every message
        return ()
    raw = elements(raw, "its tool_calls are")
    if not raw and not is_blank(older):
        raw = [older]
    calls = tuple(call for call in map(_call, raw) if call)
    if len(calls) < len(raw):
        refuse("one of its tool_calls is no function with a name")
    return calls


def _written_calls(source: str) -> tuple[ToolCall, ...]:
    """The tool calls that a text holds as JSON; empty where the text is anything else."""
    try:
        value = load_json(source)
    except ValueError:
        return ()
    calls = [_call(item) for item in (value if isinstance(value, list) else [value])]
    return tuple(call for call in calls if call) if all(calls) else ()


def _call(value: object) -> ToolCall | None:
    """A tool call in the form of OpenAI's API, or the function of such a call alone.

    Returns:
        None where the value is neither.

    Raises:
        FieldError: A field of the call cannot be used.
    """
    outer = as_object(value)
    if outer is None:
        return None
    inner = as_object(outer.get("function")) or outer
    name = text(first(inner.get("name"), outer.get("name")), "the name of one of its calls is")
    if not name:
        return None
    # Some corpora call the arguments by the name that their definition has.
    keys = ("arguments", "parameters")
    arguments = first(*(fields.get(key) for key in keys for fields in (inner, outer)))
    if isinstance(arguments, str):  # OpenAI's API has arguments as JSON text inside the JSON
        with suppress(ValueError):
            arguments = load_json(arguments)
    arguments = without_nulls(arguments)
    checked_json(arguments, f"the arguments of its call of {name!r}")
    return ToolCall(name, arguments, text(outer.get("id"), "the id of one of its calls is"))


def tools_of(tools: object, functions: object = None) -> str:
    """Tool definitions as JSON text; "" where there are none.

    Raises:
        FieldError: They are neither text nor JSON.
    """
    if is_blank(tools) or (isinstance(tools, str) and tools.strip() in ("[]", "null")):
        wrapped = [
            {"type": "function", "function": function}
            for function in map(_definition, elements(functions, "the functions are"))
        ]
        return checked_json(wrapped, "the functions") if wrapped else ""
    if isinstance(tools, str):
        return text(tools, "the tools are")
    if isinstance(tools, bytes) or not isinstance(tools, Sequence | Mapping):
        refuse(f"the tools are {type_name(tools)}, expected JSON")
    if isinstance(tools, Mapping) and not all(isinstance(v, list) for v in tools.values()):
        return checked_json(without_nulls(tools), "the tools")
    return checked_json(list(map(_definition, elements(tools, "the tools are"))), "the tools")


def _definition(tool: object) -> object:
    """A definition, which may be JSON text of one."""
    parsed = as_object(tool)
    return without_nulls(tool if parsed is None else parsed)
