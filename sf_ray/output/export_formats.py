"""Examples as training frameworks read them: one JSON object a row.

Does not know where rows come from and exports go to. No Ray, no model.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sf_ray.corpus.examples import Example, Message, ToolCall
from sf_ray.corpus.fields import as_json, load_json
from sf_ray.corpus.formats import Format, Row
from sf_ray.corpus.pairs import history
from sf_ray.output.shard_writer import WrittenShard

ExportedRow = dict[str, Any]


@dataclass(frozen=True)
class Export:
    """The files that an export has written.

    Attributes:
        name: The framework that they are for: a value of `--export`.
        files: What was written, below the folder of exports.
        left_out: Kept rows that the format of the framework cannot hold.
    """

    name: str
    files: tuple[WrittenShard, ...]
    left_out: int


def openai_row(example: Example) -> ExportedRow:
    """For OpenAI's fine-tuning API, and tools that read its format: `messages`, and `tools`.

    Answers that are context only have the weight 0.
    """
    row: ExportedRow = {"messages": _messages(example, with_weights=True)}
    if example.tools:
        row["tools"] = _parsed(example.tools)
    return row


def trl_pair_row(example: Example) -> ExportedRow | None:
    """For TRL's `SFTTrainer`: a prompt and a completion; only the completion is trained on.

    None where an answer in the completion is context only.
    """
    start = max(example.scored_from, 0) or len(example.messages) - 1
    if _has_weights(example.messages[start:]):
        return None
    messages = _messages(example)
    row: ExportedRow = {"prompt": messages[:start], "completion": messages[start:]}
    return row | ({"tools": example.tools} if example.tools else {})


def trl_chat_row(example: Example) -> ExportedRow | None:
    """For TRL's `SFTTrainer`: a chat; None where an answer is context only.

    Definitions of tools stay JSON text, which TRL parses, because their structure differs from row
    to row, and a column of a dataset has one type. No tools are null: an empty text is no JSON.
    """
    if _has_weights(example.messages):
        return None
    return {"messages": _messages(example), "tools": example.tools or None}


def llama_factory_row(example: Example) -> ExportedRow | None:
    """For LLaMA-Factory, with the keys of ShareGPT; None where a chat does not fit.

    LLaMA-Factory wants a side that asks and a side that answers in turns, and one system prompt. It
    has no place for reasoning, nor for the weight of an answer, and ends at a tool that it does not
    understand. Earlier rounds of a pair become turns, as LLaMA-Factory itself makes them of a
    `history`.
    """
    system, messages = _split_system(example.messages)
    tools = _tools_with_parameters(example.tools)
    if tools is None or _has_weights(messages) or any(m.reasoning for m in example.messages):
        return None
    conversations = []
    for number, message in enumerate(messages):
        if (message.role == "assistant") != (number % 2 == 1) or message.role == "system":
            return None
        if message.calls and message.content:
            return None  # a message of this format has calls or text, not both
        if message.calls:
            calls = [{"name": c.name, "arguments": c.arguments} for c in message.calls]
            value = as_json(calls[0] if len(calls) == 1 else calls)
            conversations.append({"from": "function_call", "value": value})
        else:
            name = {"user": "human", "tool": "observation", "assistant": "gpt"}[message.role]
            conversations.append({"from": name, "value": message.content})
    return {"conversations": conversations, "system": system, "tools": tools}


def alpaca_row(example: Example) -> ExportedRow | None:
    """With the keys of Alpaca, earlier turns as `history`; None where a chat does not fit.

    A chat with tools does not fit, nor one with a system prompt that is not the first message, nor
    one with reasoning, or whose last answer is not scored. The input stays empty: an example has
    the input as a line of the prompt, not apart.
    """
    system, messages = _split_system(example.messages)
    expected = ["user", "assistant"] * (len(messages) // 2)
    if example.tools or [m.role for m in messages] != expected:
        return None
    if any(m.calls or m.reasoning for m in messages) or _has_weights(messages[-1:]):
        return None
    texts = [message.content for message in messages]
    return {
        "instruction": texts[-2],
        "input": "",
        "output": texts[-1],
        "system": system,
        "history": [list(pair) for pair in zip(texts[:-2:2], texts[1:-2:2], strict=True)],
    }


def _own_fields(values: Mapping[str, Any]) -> ExportedRow | None:
    """The fields of an Alpaca row as they are: rendering would join the input to the instruction.

    A passage, for which Alpaca has no field, goes before the instruction. None where the history is
    a list of messages that are no rounds.
    """
    earlier = history(values.get("history"))
    rounds = list(zip(earlier[::2], earlier[1::2], strict=False))
    if [m.role for m in earlier] != ["user", "assistant"] * len(rounds):
        return None
    passage = f"{values['context']}\n" if values["context"] else ""
    return {
        "instruction": passage + values["instruction"],
        **{field: values[field] for field in ("input", "output", "system")},
        "history": [[question.content, answer.content] for question, answer in rounds],
    }


def exporter(name: str, row_format: Format) -> Callable[[Row], ExportedRow | None]:
    """The function that makes the exported row of a row of the corpus.

    Args:
        name: The framework: a value of `--export`.
        row_format: The format of the rows.

    Returns:
        Row -> exported row; None where the format of the framework cannot hold the row, or where
        the row does not render.
    """
    export = {
        "llama-factory": llama_factory_row,
        "trl": trl_chat_row if row_format.is_chat else trl_pair_row,
        "openai": openai_row,
        "alpaca": alpaca_row,
    }[name]
    keeps_fields = name == "alpaca" and row_format.name == "alpaca"

    def exported(row: Row) -> ExportedRow | None:
        example = row_format.render(row)
        if not isinstance(example, Example):
            return None
        return _own_fields(row_format.values_of(row)) if keeps_fields else export(example)

    return exported


def _has_weights(messages: Sequence[Message]) -> bool:
    return any(message.weight != 1 for message in messages)


def _messages(example: Example, with_weights: bool = False) -> list[ExportedRow]:
    """Messages as OpenAI's API has them; tool calls without an id get one."""
    exported: list[ExportedRow] = []
    open_ids: list[str] = []
    for number, message in enumerate(example.messages):
        row: ExportedRow = {"role": message.role, "content": message.content}
        if message.name:
            row["name"] = message.name
        if message.reasoning:
            row["reasoning_content"] = message.reasoning
        if message.calls:
            open_ids = [
                c.call_id or f"call_{len(exported)}_{i}" for i, c in enumerate(message.calls)
            ]
            row["tool_calls"] = [
                {
                    "id": call_id,
                    "type": "function",
                    "function": {"name": c.name, "arguments": _arguments(c)},
                }
                for call_id, c in zip(open_ids, message.calls, strict=True)
            ]
        if message.role == "tool":
            # Answers come in the order of the calls, unless they name the call that they answer.
            next_id = open_ids.pop(0) if open_ids else ""
            row["tool_call_id"] = message.answers or next_id
        weight = message.weight if number >= example.scored_from else 0
        if with_weights and message.role == "assistant" and weight != 1:
            row["weight"] = weight
        exported.append(row)
    return exported


def _arguments(call: ToolCall) -> str:
    """The arguments as JSON text. Text that was no JSON stays as it came."""
    return call.arguments if isinstance(call.arguments, str) else as_json(call.arguments)


def _split_system(messages: Sequence[Message]) -> tuple[str, Sequence[Message]]:
    """The system prompt, "" where there is none, and the other messages."""
    if messages[0].role == "system":
        return messages[0].content, messages[1:]
    return "", messages


def _tools_with_parameters(source: str) -> str | None:
    """Definitions of tools as LLaMA-Factory takes them; None where it would end at one.

    Each needs its parameters. A tool without them takes none, which is written out.

    Args:
        source: JSON text; "" for no tools.
    """
    definitions = _parsed(source) if source else []
    if not isinstance(definitions, list):
        return None
    completed = False
    for definition in definitions:
        tool = definition
        if isinstance(tool, dict) and tool.get("type") == "function":
            tool = tool.get("function")
        if not isinstance(tool, dict) or not isinstance(tool.get("name"), str):
            return None
        if tool.get("parameters") in (None, {}):
            tool["parameters"] = {"type": "object", "properties": {}}
            completed = True
        if not _are_properties(tool["parameters"]):
            return None
    return as_json(definitions) if completed else source


def _are_properties(parameters: Any) -> bool:
    """Whether parameters are described as the properties of an object, in words."""
    properties = parameters.get("properties") if isinstance(parameters, dict) else None
    return isinstance(properties, dict) and all(
        isinstance(each, dict)
        and isinstance(each.get("items") or {}, dict)
        and all(isinstance(value, str) for value in each.get("enum") or ())
        for each in properties.values()
    )


def _parsed(source: str) -> Any:
    """The value of JSON text; text that is no JSON stays text."""
    try:
        return load_json(source)
    except ValueError:
        return source
