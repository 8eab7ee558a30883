"""Files of JSON, or nearly, whose rows do not stand one a line: what they are, and what to do.

Called where the first line of a shard is no object, or is the whole shard, so a look at the
beginning is enough and plain shards pay nothing. Opens no file.
"""

import json
import re
import shlex
from collections.abc import Mapping, Sequence

from sf_ray.corpus.formats import FORMATS
from sf_ray.text.printable import printable

# How much of a file is looked at.
LOOK_BYTES = 16 << 20
_DECODER = json.JSONDecoder()
_NEAR_CHARS = 16
# The beginning of an object with an array of objects, after fields with simple values. `++` and
# `*+` never go back: for each place that a pattern may go back to, `re` holds a hundred bytes.
_WRAPPED = re.compile(
    r'\{\s*(?:"[^"]*"\s*:\s*(?:"(?:[^"\\]++|\\.)*+"|[-+.\w]++)\s*,\s*)*+"([^"]+)"\s*:\s*\[\s*\{'
)
_LINE_ENDS = re.compile(r"[\r\n]")
# The keys of a message: an array of messages is a chat, which is one row.
_MESSAGE_KEYS = {"role", "from", "content", "value"}


def problem_of(data: bytes, is_whole: bool, rows: int, name: str) -> str | None:
    """Says what is wrong with the shape of a shard as a whole; None for a problem of single rows.

    Args:
        data: The beginning of the file, unpacked.
        is_whole: Whether that is all of it.
        rows: Lines that are not blank.
        name: Name of the shard, for commands that convert it.
    """
    text = data.decode("utf-8", "replace").removeprefix("\ufeff")
    start = len(text) - len(text.lstrip())
    if start == len(text):
        return None  # as far as it was looked at, it is blank
    line = text[start:].partition("\n")[0]
    value = _parsed(line)
    if isinstance(value, dict):
        return _problem_of_object(value, name) if rows == 1 else None
    if isinstance(value, list):
        return _ARRAY if rows == 1 and isinstance(next(iter(value), None), dict) else None
    if text[start] not in "[{":
        return _problem_of_text(text, rows)
    if "\r" in line.strip("\r") and isinstance(_parsed(line.partition("\r")[0]), dict):
        return (
            r"its lines end in a carriage return alone (\r), as on old Macs; make them line feeds, "
            rf"e.g. with `tr '\r' '\n' < {_as_word(name)}`"
        )
    try:
        value, end = _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        is_cut = not is_whole and (
            error.msg.startswith("Unterminated") or error.pos >= len(text) - _NEAR_CHARS
        )
        return _problem_of_large(text, start, name) if is_cut else None
    except (ValueError, RecursionError):
        return None
    if isinstance(value, list):
        return _ARRAY
    if not isinstance(value, dict):
        return None
    rest = text[end:].lstrip()
    if _LINE_ENDS.search(text[start:end].rstrip()):
        if not rest and is_whole:
            return _problem_of_object(value, name) or _over_several_lines("is one object")
        return _over_several_lines("holds objects")
    return _problem_behind(rest, rows)


_ARRAY = "is one JSON array, while a row is one line; give it a name that ends in .json"


def _problem_of_text(text: str, rows: int) -> str | None:
    lines = [line for line in text[: 1 << 16].splitlines() if line.strip()][:5]
    if rows < 2 or any(line.lstrip()[:1] in ("{", "[") for line in lines):
        return None
    return (
        f"is no JSON: it begins with {lines[0].strip()[:60]!r}; convert it to JSON Lines or Parquet"
    )


def _problem_behind(rest: str, rows: int) -> str | None:
    """The problem of a file whose first object is followed by `rest` on the same line."""
    behind, _, following = rest.partition("\n")
    if rows > 1 and isinstance(_parsed(following.lstrip().partition("\n")[0]), dict):
        return None  # one line is broken, and the next one is not
    if behind.startswith("{"):
        return "its objects follow each other without a line break; convert it, e.g. with `jq -c .`"
    if behind.rstrip() == ",":
        return (
            "a comma stands behind each of its objects, while a row is one line; remove the commas,"
            " e.g. with `sed 's/},[[:space:]]*$/}/'`"
        )
    return None


def _problem_of_large(text: str, start: int, name: str) -> str | None:
    """The problem of a file whose first value goes on behind the part that was looked at."""
    if text[start] == "[":
        return _ARRAY
    wrapped = _WRAPPED.match(text, start)
    if wrapped and not _parsed_keys(text, wrapped.end()) & _MESSAGE_KEYS:
        return _wrapper([wrapped[1]], name)
    if _LINE_ENDS.search(text[start : start + (1 << 16)]):
        return _over_several_lines("is one object")
    return None


def _problem_of_object(value: Mapping[str, object], name: str) -> str | None:
    """What an object is that is all of a file; None where it may be a row."""
    if "nbformat" in value and "cells" in value:
        return "is a Jupyter notebook, not data; take it out of the corpus"
    if _is_row(value) or not value:
        return None
    fields = list(value.values())
    if isinstance(value.get("data"), list) and isinstance(value.get("columns"), list):
        return _by_pandas("its columns, index and values apart")
    if all(isinstance(field, dict) for field in fields):
        objects = [field for field in fields if isinstance(field, dict)]
        if any(map(_is_row, objects)):
            how = f"`jq -c '.[]' {_as_word(name)}`"
            return f"is one object of rows by name; convert it, e.g. with {how}"
        keys = set(objects[0])
        if keys and all(key.isdigit() for key in keys) and all(set(o) == keys for o in objects):
            return _by_pandas("a table column by column")
    if len(fields) > 1 and _are_columns(fields):
        return _by_pandas("a table column by column")
    arrays = [key for key, field in value.items() if _is_array_of_rows(field, len(value) == 1)]
    return _wrapper(arrays, name) if arrays else None


def _is_row(value: object) -> bool:
    """Whether an object has what a known format needs."""
    if not isinstance(value, Mapping):
        return False

    def is_filled(field: str, is_chat: bool) -> bool:
        content = value.get(field)
        if isinstance(content, list):
            return is_chat or any(isinstance(element, dict) for element in content)
        return isinstance(content, str)

    return any(all(is_filled(name, f.is_chat) for name in f.required) for f in FORMATS)


def _is_array_of_rows(field: object, is_only_field: bool) -> bool:
    if not isinstance(field, list) or not field or not isinstance(field[0], dict):
        return False
    return _is_row(field[0]) or (is_only_field and not _MESSAGE_KEYS & set(field[0]))


def _are_columns(fields: Sequence[object]) -> bool:
    """Whether all fields are lists of the same number of simple values, at least two."""
    return all(
        isinstance(field, list)
        and len(field) == len(fields[0])  # type: ignore[arg-type]
        and len(field) > 1
        and not any(isinstance(element, (dict, list)) for element in field)
        for field in fields
    )


def _by_pandas(what: str) -> str:
    return (
        f"is {what}, as pandas writes it; write it by "
        "to_json(..., orient='records', lines=True) to a .jsonl"
    )


def _wrapper(arrays: Sequence[str], name: str) -> str:
    shown = " and ".join(f"`{field}`" for field in arrays[:3])
    paths = [f".{field}" if field.isidentifier() else f".{json.dumps([field])}" for field in arrays]
    plural = "arrays" if len(arrays) > 1 else "an array"
    return (
        f"is one object with {plural} in {shown}, while a row is one object a line; convert it, "
        f"e.g. with `jq -c '{', '.join(f'{path}[]' for path in paths)}' {name}`"
    )


def _over_several_lines(what: str) -> str:
    return (
        f"{what} over several lines, while one object a line is expected; convert it, e.g. with "
        "`jq -c .`"
    )


def _parsed(text: str) -> object:
    """The value of a JSON text; None where the text is not valid."""
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value


def _parsed_keys(text: str, start: int) -> set[str]:
    """Names of fields that follow soon, of whatever object."""
    return set(re.findall(r'"(\w+)"\s*:', text[start : start + 2000]))


def _as_word(name: str) -> str:
    """A name in a command that somebody may copy into a shell: one word, whatever it holds."""
    return shlex.quote(printable(name))
