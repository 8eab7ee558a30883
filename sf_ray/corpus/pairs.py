"""Pairs: the fields of a question and its answer, as an `Example`.

Knows which fields there are and what they hold, not which columns hold them. No tokens, no files.
"""

from collections.abc import Mapping
from typing import Any

from sf_ray.corpus.examples import Example, Message
from sf_ray.corpus.fields import as_object, elements, is_absent, is_blank, refuse, text, type_name
from sf_ray.corpus.messages import checked_chat, messages_of, tools_of, written_messages


def question_and_answer(values: Mapping[str, Any], prompt: str, answer: str) -> Example:
    """An instruction with what belongs to it: a system prompt, earlier rounds, a passage, an input.

    Args:
        values: Field -> value. All but `history` are text, "" where absent.
        prompt, answer: The two fields whose names differ between formats.

    Raises:
        FieldError: The history cannot be used.
    """
    # "alpaca" renders as the paper's code does (Superfiltering, `data_analysis.py`): the
    # instruction and a newline, the input and a newline where there is an input, and no preamble.
    parts = (values["context"], values[prompt], values["input"])
    question = "\n".join(part for i, part in enumerate(parts) if part or i == 1)
    before = (Message("system", values["system"]),) if values["system"] else ()
    earlier = history(values.get("history"))
    messages = (*before, *earlier, Message("user", question), Message("assistant", values[answer]))
    return Example(messages, scored_from=len(messages) - 1 if earlier else 0)


def history(value: object) -> tuple[Message, ...]:
    """Earlier rounds of a conversation: a list of [question, answer], as LLaMA-Factory has them.

    A list of messages is taken too.

    Raises:
        FieldError: The value is something else.
    """
    rounds = [] if is_blank(value) else elements(value, "the history is")
    if rounds and all(as_object(item) is not None for item in rounds):
        return messages_of(rounds)
    messages: list[Message] = []
    for number, pair in enumerate(rounds):
        texts = [] if is_absent(pair) else elements(pair, f"round {number} of the history is")
        if len(texts) != 2:
            refuse(f"round {number} of the history has {len(texts)} texts, expected 2")
        question, answer = (text(t, f"a text in round {number} of the history is") for t in texts)
        messages += [Message("user", question), Message("assistant", answer)]
    return tuple(messages)


def prompt_and_completion(values: Mapping[str, Any]) -> Example:
    """A prompt and what completes it: two texts, or two lists of messages (TRL's two forms).

    Either list may be JSON text.

    Raises:
        FieldError: They are neither, or the messages are no chat.
    """
    prompt, completion = values["prompt"], values["completion"]
    if isinstance(prompt, str):
        prompt = written_messages(prompt) or prompt
    # Behind a prompt of plain text, JSON is what the completion says.
    if isinstance(completion, str) and not isinstance(prompt, str):
        completion = written_messages(completion) or completion
    if isinstance(prompt, str) and isinstance(completion, str):
        # The two texts unchanged: no newline is added.
        return Example.pair(
            text(prompt, "the prompt is"), text(completion, "the completion is"), separator=""
        )
    before = _side(prompt, "user", "prompt")
    after = _side(completion, "assistant", "completion")
    tools = tools_of(values.get("tools"))
    return checked_chat(Example((*before, *after), tools, scored_from=len(before)))


def _side(value: object, role: str, field: str) -> tuple[Message, ...]:
    if isinstance(value, str):
        return messages_of([{"role": role, "content": value}], f"the {field} is")
    if isinstance(value, bytes) or not isinstance(value, list | Mapping):
        refuse(f"{field!r} is {type_name(value)}, expected text or a list of messages")
    return messages_of(value, f"the {field} is")
