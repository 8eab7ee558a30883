"""Examples as training frameworks read them: one JSON object a row. No files, no model."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sf_ray.corpus.examples import Example, Message, as_json
from sf_ray.corpus.formats import Format, Row, value_at
from sf_ray.output.shard_writer import WrittenShard

ExportedRow = dict[str, Any]

# What LLaMA-Factory has to be told of its files (its `data/README.md`, section on ShareGPT).
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
    """For OpenAI's fine-tuning API, and what reads its format: `messages`, and `tools`."""
    row: ExportedRow = {"messages": _messages(example.messages)}
    if example.tools:
        row["tools"] = _parsed(example.tools)
    return row


def trl_pair_row(example: Example) -> ExportedRow:
    """For TRL's `SFTTrainer`: a prompt and its completion, which alone is trained on."""
    messages = _messages(example.messages)
    return {"prompt": messages[:-1], "completion": messages[-1:]}


def trl_chat_row(example: Example) -> ExportedRow:
    """For TRL's `SFTTrainer`: a chat.

    Definitions of tools stay JSON text, which TRL parses: their shapes differ from row to row, and
    a column of a dataset has one type.
    """
    return {"messages": _messages(example.messages), "tools": example.tools}


def llama_factory_row(example: Example) -> ExportedRow | None:
    """For LLaMA-Factory, in ShareGPT's keys; None where its roles do not alternate as it needs."""
    system, messages = _split_system(example.messages)
    conversations = []
    for number, message in enumerate(messages):
        if (message.role == "assistant") != (number % 2 == 1) or message.role == "system":
            return None
        if message.calls and message.content:
            return None  # it has either
        if message.calls:
            calls = [{"name": c.name, "arguments": c.arguments} for c in message.calls]
            value = as_json(calls[0] if len(calls) == 1 else calls)
            conversations.append({"from": "function_call", "value": value})
        else:
            name = {"user": "human", "tool": "observation", "assistant": "gpt"}[message.role]
            conversations.append({"from": name, "value": message.content})
    return {"conversations": conversations, "system": system, "tools": example.tools}


def alpaca_row(example: Example) -> ExportedRow | None:
    """Alpaca's keys, earlier turns as `history`; None where there are tools or more system prompts.

    An input is part of the instruction, from which it was a line apart.
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
    """What a row of the corpus is exported as; None where the other side cannot hold it."""
    if name == "alpaca" and row_format.name == "alpaca":  # whose input is apart

        def own_fields(row: Row) -> ExportedRow:
            values = {k: value_at(row, column) or "" for k, column in row_format.columns.items()}
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
    """As OpenAI's API has them, with ids for calls that have none."""
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
            given = open_ids.pop(0) if open_ids else ""
            row["tool_call_id"] = message.answers or given
        exported.append(row)
    return exported


def _split_system(messages: Sequence[Message]) -> tuple[str, Sequence[Message]]:
    if messages[0].role == "system":
        return messages[0].content, messages[1:]
    return "", messages


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
