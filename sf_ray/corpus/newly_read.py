"""What rows hold that versions up to 0.1.0 read in another way, or not at all.

Scores of such rows have another identity than theirs, so that no scores are mixed in one set;
scores of all other rows keep theirs. Extra fields of a format need no word here: their columns are
in the identity.
"""

from collections.abc import Sequence

import pyarrow as pa

from sf_ray.corpus.fields import FieldError, as_object, elements, is_blank
from sf_ray.corpus.formats import Format, SampleRow, value_at
from sf_ray.corpus.messages import REASONING, WEIGHTS, written_messages
from sf_ray.corpus.rows import has_json


def newly_read(
    row_format: Format, schema: pa.Schema | None, sample: Sequence[SampleRow]
) -> list[str]:
    """Names of what the rows of a corpus hold that older versions read otherwise.

    Args:
        row_format: The format of the rows.
        schema: The schema of the corpus; None for JSON.
        sample: Some rows.
    """
    found: set[str] = set()
    for sampled in sample if row_format.is_chat else ():
        found |= in_messages(value_at(sampled.row, row_format.columns[row_format.required[0]]))
    if row_format.name == "prompt-completion":
        prompts = (value_at(sampled.row, row_format.columns["prompt"]) for sampled in sample)
        if any(isinstance(prompt, str) and written_messages(prompt) for prompt in prompts):
            found.add("messages in text")
    used = row_format.top_columns
    if schema is not None and any(has_json(f.type) for f in schema if f.name in used):
        found.add("arrow.json")
    return sorted(found)


def in_messages(value: object) -> set[str]:
    """Names of what messages hold that older versions read otherwise.

    Args:
        value: The messages of a row, in any form.
    """
    try:
        items = elements(value, "")
    except FieldError:
        return set()
    found: set[str] = set()
    for fields in filter(None, map(as_object, items)):
        found |= {name for name in REASONING if isinstance(fields.get(name), str)}
        found |= {name for name in WEIGHTS if fields.get(name) in (0, False)}
        if not is_blank(fields.get("function_call")):
            found.add("function_call")
        if any("null" in source for source in _written_arguments(fields.get("tool_calls"))):
            found.add("nulls in arguments")
    return found


def _written_arguments(calls: object) -> list[str]:
    """The arguments of calls, where they are JSON text."""
    try:
        objects = filter(None, map(as_object, elements(calls, "")))
    except FieldError:
        return []
    functions = [as_object(call.get("function")) or call for call in objects]
    arguments = (function.get("arguments") for function in functions)
    return [source for source in arguments if isinstance(source, str)]
