"""The file of an export that describes the others, as the readers of the export look for it.

Does not know what rows look like beyond the types of their columns.
"""

import json
from collections.abc import Mapping
from typing import Any

import yaml

from sf_ray.corpus.formats import Format

# The file of an export that says what is in the others, under the name that its readers look for.
DESCRIPTIONS = {"llama-factory": "dataset_info.json", "trl": "README.md", "alpaca": "README.md"}

# The description of the exported files that LLaMA-Factory needs (section on ShareGPT of the
# `data/README.md` in its repository).
_LLAMA_FACTORY_INFO = {
    "file_name": "data",
    "formatting": "sharegpt",
    "columns": {"messages": "conversations", "system": "system", "tools": "tools"},
}

# Types of columns, as the heads of data cards name them.
_TEXT = {"dtype": "string"}
_MESSAGES = {
    "list": [
        {"name": "role", **_TEXT},
        {"name": "content", **_TEXT},
        {"name": "name", **_TEXT},
        {"name": "reasoning_content", **_TEXT},
        {
            "name": "tool_calls",
            "list": [
                {"name": "id", **_TEXT},
                {"name": "type", **_TEXT},
                {
                    "name": "function",
                    "struct": [{"name": "name", **_TEXT}, {"name": "arguments", **_TEXT}],
                },
            ],
        },
        {"name": "tool_call_id", **_TEXT},
    ]
}


def description(name: str, row_format: Format) -> bytes | None:
    """The content of the file that describes an export; None where its readers look for none.

    To LLaMA-Factory, the files are a dataset `sf_ray` in the folder `data`. To the `datasets`
    library, a card has the types of all columns. Without it the library takes those of the rows
    that it reads first, and fails at a later row with a call of a tool, or with a history.

    Args:
        name: The framework: a value of `--export`.
        row_format: The format of the rows.
    """
    if name == "llama-factory":
        return json.dumps({"sf_ray": _LLAMA_FACTORY_INFO}, indent=2).encode()
    columns: dict[str, Mapping[str, Any]]
    if name == "alpaca":
        columns = dict.fromkeys(("instruction", "input", "output", "system"), _TEXT)
        columns["history"] = {"list": {"list": "string"}}
    elif name == "trl" and row_format.is_chat:
        columns = {"messages": _MESSAGES, "tools": _TEXT}
    elif name == "trl":
        columns = {"prompt": _MESSAGES, "completion": _MESSAGES, "tools": _TEXT}
    else:
        return None
    head = {
        "configs": [{"config_name": "default", "data_files": "data/*.jsonl"}],
        "dataset_info": {
            "features": [{"name": column, **kind} for column, kind in columns.items()]
        },
    }
    # Through JSON, so that no part is the same object twice: YAML would write a reference to it,
    # and the library takes what it reads apart in place.
    head = json.loads(json.dumps(head))
    return f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n".encode()
