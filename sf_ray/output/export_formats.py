"""Examples as training frameworks read them: one JSON object a row.

Does not know where rows come from and exports go to. No Ray, no model.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sf_ray.corpus.examples import Example, Message, as_json
from sf_ray.corpus.formats import Format, Row, value_at
from sf_ray.output.shard_writer import WrittenShard

ExportedRow = dict[str, Any]

# The description of the exported files that LLaMA-Factory needs (section on ShareGPT of the
# `data/README.md` in its repository).
LLAMA_FACTORY_INFO = {
    "formatting": "sharegpt",
    "columns": {"messages": "conversations", "system": "system", "tools": "tools"},
}


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
    """For OpenAI's fine-tuning API, and tools that read its format: `messages`, and `tools`."""
    row: ExportedRow = {"messages": _messages(example.messages)}
    if example.tools:
        row["tools"] = _parsed(example.tools)
    return row


def trl_pair_row(example: Example) -> ExportedRow:
    """For TRL's `SFTTrainer`: a prompt and a completion; only the completion is trained on."""
    messages = _messages(example.messages)
    return {"prompt": messages[:-1], "completion": messages[-1:]}


def trl_chat_row(example: Example) -> ExportedRow:
    """For TRL's `SFTTrainer`: a chat.

    Definitions of tools stay JSON text, which TRL parses, because their structure differs from row
    to row, and a column of a dataset has one type.
    """
    return {"messages": _messages(example.messages), "tools": example.tools}


def llama_factory_row(example: Example) -> ExportedRow | None:
    """For LLaMA-Factory, with the keys of ShareGPT; None where a chat does not fit.

    LLaMA-Factory wants a side that asks and a side that answers in turns, and one system prompt.
    """
    system, messages = _split_system(example.messages)
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
    return {"conversations": conversations, "system": system, "tools": example.tools}


def alpaca_row(example: Example) -> ExportedRow | None:
    """With the keys of Alpaca, earlier turns as `history`; None where a chat does not fit.

    A chat with tools does not fit, nor one with a system prompt that is not the first message. The
    input stays empty: an example has the input as a line of the prompt, not apart.
    """
    system, messages = _split_system(example.messages)
    expected = ["user", "assistant"] * (len(messages) // 2)
    if example.tools or [m.role for m in messages] != expected or any(m.calls for m in messages):
        return None
    texts = [message.content for message in messages]
    return {
        "instruction": texts[-2],
        "input": "",
        "output": texts[-1],
        "system": system,
        "history": [list(pair) for pair in zip(texts[:-2:2], texts[1:-2:2], strict=True)],
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
    # The fields go over as they are: rendering would join the input to the instruction.
    if name == "alpaca" and row_format.name == "alpaca":

        def own_fields(row: Row) -> ExportedRow:
            columns = row_format.columns.items()
            values = {field: value_at(row, column) or "" for field, column in columns}
            return {"input": "", "system": "", "history": []} | values

        return own_fields
    export = {
        "llama-factory": llama_factory_row,
        "trl": trl_chat_row if row_format.is_chat else trl_pair_row,
        "openai": openai_row,
        "alpaca": alpaca_row,
    }[name]

    def exported(row: Row) -> ExportedRow | None:
        example = row_format.render(row)
        return export(example) if isinstance(example, Example) else None

    return exported


def _messages(messages: Sequence[Message]) -> list[ExportedRow]:
    """Messages as OpenAI's API has them; tool calls without an id get one."""
    exported: list[ExportedRow] = []
    open_ids: list[str] = []
    for message in messages:
        row: ExportedRow = {"role": message.role, "content": message.content}
        if message.calls:
            open_ids = [
                c.call_id or f"call_{len(exported)}_{i}" for i, c in enumerate(message.calls)
            ]
            row["tool_calls"] = [
                {
                    "id": call_id,
                    "type": "function",
                    "function": {"name": c.name, "arguments": as_json(c.arguments)},
                }
                for call_id, c in zip(open_ids, message.calls, strict=True)
            ]
        if message.role == "tool":
            # Answers come in the order of the calls, unless they name the call that they answer.
            next_id = open_ids.pop(0) if open_ids else ""
            row["tool_call_id"] = message.answers or next_id
        exported.append(row)
    return exported


def _split_system(messages: Sequence[Message]) -> tuple[str, Sequence[Message]]:
    """The system prompt, "" where there is none, and the other messages."""
    if messages[0].role == "system":
        return messages[0].content, messages[1:]
    return "", messages


def _parsed(text: str) -> Any:
    """The value of JSON text; text that is no JSON stays text."""
    try:
        return json.loads(text)
    except ValueError:
        return text
