"""Fields of a row: the one place that says what a value is: absent, text, or neither.

Rows come from JSON, from Arrow and from Python. Each has its own way to say that a value is missing
(no key, null, NaN) and its own values that look like text and are none (bytes that are no UTF-8,
half of a surrogate pair). No value becomes text by `str`: what is not text is refused by name.

Does not know which fields there are. No Arrow, no tokens.
"""

import json
import numbers
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, NoReturn
from uuid import UUID

from sf_ray.corpus.status import Status

# Valid UTF-8 holds half of a surrogate pair only as a JSON escape.
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
# JSON nested deeper than this is refused. Python's own limit is about 1,000 calls, and how many of
# them are left differs from place to place: a row that could be read could not be exported.
DEEPEST = 128
_TOO_DEEP = f"nested more than {DEEPEST} levels deep"
# What JSON has no form for, but where one text is the usual one.
_WRITTEN_AS_TEXT = (date, datetime, time, timedelta, Decimal, UUID)


class FieldError(Exception):
    """A field of a row holds what cannot be used.

    Attributes:
        status: The status that the row gets.
        reason: What is wrong, for people.
    """

    def __init__(self, reason: str, status: Status = Status.BAD_ROW) -> None:
        super().__init__(reason)
        self.reason, self.status = reason, status


class BrokenJson(bytes):
    """Stands for a value of the type arrow.json whose text is no JSON."""


class TooDeep(bytes):
    """Stands for a value of a JSON row that is nested deeper than `DEEPEST`."""

    def __new__(cls) -> "TooDeep":
        """Makes a value that is neither blank nor text."""
        return super().__new__(cls, _TOO_DEEP.encode())


class WrittenObject(dict[str, Any]):
    """An object that was read from JSON text: its nulls were written, and so are meant.

    Structs of Arrow have all keys that any of them has, with null where a key was absent.
    """


def is_absent(value: object) -> bool:
    """Whether a value says "missing": null, or NaN, which pandas writes for it."""
    if value is None:
        return True
    if isinstance(value, str | bytes | dict | list):  # most values, so asked first
        return False
    # NaN is the one number that differs from itself. numpy's numbers are of this class too.
    return isinstance(value, numbers.Real) and bool(value != value)


def is_blank(value: object) -> bool:
    """Whether a value holds nothing: absent, empty, or made of blank values only."""
    if isinstance(value, Mapping):
        return all(map(is_blank, value.values()))
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return all(map(is_blank, value))
    return is_absent(value) or (isinstance(value, str | bytes) and not value.strip())


def holds_text(value: object) -> bool:
    """Whether a value is text, though it may be no UTF-8."""
    return isinstance(value, str | bytes)


def holds_list(value: object) -> bool:
    """Whether a value is a list, an object of lists, or text that looks like JSON of either."""
    if isinstance(value, str):
        return not value.strip() or value.lstrip()[0] in "[{"
    return isinstance(value, list | Mapping)


def holds_anything(value: object) -> bool:
    """True, for fields that may hold any value."""
    return True


def first(*values: object) -> object:
    """The first value that is there; None where all are absent."""
    for value in values:
        if not is_absent(value):
            return value
    return None


def text(value: object, what: str) -> str:
    """The text of a field; "" where it is absent.

    Args:
        value: The value of the field.
        what: The field and a verb, for the error: "its content is".

    Raises:
        FieldError: The value is there, and no text.
    """
    if isinstance(value, str):
        # Whether a text is ASCII is stored with it, so most texts cost nothing here.
        if value.isascii() or _is_encodable(value):
            return value
        value = _bytes_of(value)
    if is_absent(value):
        return ""
    raise FieldError(f"{what} {type_name(value)}, expected text")


def elements(value: object, what: str) -> list[Any]:
    """The elements of a list, in any of the forms that corpora hold one.

    They are a list; JSON text of one; and, for a list of objects, an object of lists, as the
    `datasets` library stores it: {"role": ["user", ...], "content": ["...", ...]}.

    Args:
        value: The value of the field; absent for no elements.
        what: The field and a verb, for the error: "the messages are".

    Raises:
        FieldError: The value is there, and no list.
    """
    if isinstance(value, list):
        return value
    if is_absent(value):
        return []
    if isinstance(value, str):
        if not value.strip():
            return []
        try:
            value = load_json(value)
        except ValueError:
            raise FieldError(
                f"{what} text that is no JSON, expected a list, or JSON text of one (json.dumps "
                "writes it, str does not)"
            ) from None
        if is_absent(value):
            return []
    if isinstance(value, Mapping):
        return _rows_of_lists(value, what)
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise FieldError(f"{what} {type_name(value)}, expected a list")
    return list(value)


def _rows_of_lists(value: Mapping[str, Any], what: str) -> list[Any]:
    lists = {key: inner for key, inner in value.items() if not is_absent(inner)}
    if not lists or not all(isinstance(inner, list | tuple) for inner in lists.values()):
        raise FieldError(f"{what} an object, expected a list")
    sizes = {len(inner) for inner in lists.values()}
    if len(sizes) > 1:
        raise FieldError(f"{what} an object with lists of different lengths, expected a list")
    return [{key: inner[i] for key, inner in lists.items()} for i in range(*sizes)]


def as_object(value: object) -> Mapping[str, Any] | None:
    """An object, a map of Arrow (a list of pairs), or JSON text of an object; None for others."""
    if isinstance(value, dict | Mapping):  # the check of a dict is faster
        return value
    if isinstance(value, str) and value.lstrip()[:1] == "{":
        try:
            value = load_json(value)
        except ValueError:
            return None
        return value if isinstance(value, Mapping) else None
    if isinstance(value, list) and value and all(map(_is_entry, value)):
        return dict(value)
    return None


def _is_entry(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str)


def load_json(source: str) -> Any:
    """The value of JSON text. Texts in it that have no UTF-8 encoding come out as bytes.

    Raises:
        ValueError: The text is no JSON, or Python cannot hold its value.
    """
    try:
        value = json.loads(source, object_hook=WrittenObject, parse_constant=_constant)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    if may_be_deep(source) and is_deep(value):
        raise ValueError(_TOO_DEEP)
    return with_bytes(value) if _SURROGATE.search(source) else value


def may_be_deep(source: str) -> bool:
    """Whether JSON text has enough brackets to be nested deeper than `DEEPEST`; few texts have."""
    return source.count("[") + source.count("{") > DEEPEST


def is_deep(value: object) -> bool:
    """Whether a JSON value is nested deeper than `DEEPEST`."""
    level = [value]
    for _ in range(DEEPEST):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def _constant(name: str) -> None:
    """NaN is absent, as everywhere; the infinities, which Python also writes, are no JSON."""
    if name != "NaN":
        raise ValueError(f"{name} is no JSON")


def with_bytes(value: Any) -> Any:
    """A JSON value in which each text that has no UTF-8 encoding is bytes instead."""
    if isinstance(value, str):
        return value if _is_encodable(value) else _bytes_of(value)
    if isinstance(value, list):
        return [with_bytes(element) for element in value]
    if isinstance(value, dict):
        return type(value)((name, with_bytes(element)) for name, element in value.items())
    return value


def _is_encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _bytes_of(value: str) -> bytes:
    return value.encode("utf-8", "surrogatepass")


def without_nulls(value: Any) -> Any:
    """Drops absent values from objects, except from those whose nulls were written."""
    if isinstance(value, WrittenObject):
        return value
    if isinstance(value, Mapping):
        return {k: without_nulls(v) for k, v in value.items() if not is_absent(v)}
    return [without_nulls(v) for v in value] if isinstance(value, list) else value


def as_json(value: object) -> str:
    """A value as one line of JSON text.

    Raises:
        TypeError, ValueError: JSON has no form for the value: bytes, NaN, infinity.
    """
    return json.dumps(value, ensure_ascii=False, default=_written, allow_nan=False)


def _written(value: object) -> str:
    if isinstance(value, _WRITTEN_AS_TEXT):
        return str(value)
    raise TypeError(f"{type_name(value)} in it")


def checked_json(value: object, what: str) -> str:
    """A value as JSON text that every reader takes.

    Args:
        value: The value.
        what: The field, for the error: "the tools".

    Raises:
        FieldError: JSON or UTF-8 has no form for the value.
    """
    try:
        return text(as_json(value), f"{what} as JSON is")
    except (TypeError, ValueError, RecursionError) as error:
        raise FieldError(f"{what} cannot be written as JSON ({error})") from None


def type_name(value: object) -> str:
    """Names the type of a wrong value, for people."""
    if value is None:
        return "null"
    if isinstance(value, BrokenJson):
        return "arrow.json that is no JSON"
    if isinstance(value, TooDeep):
        return _TOO_DEEP
    return "not valid UTF-8" if isinstance(value, bytes) else type(value).__name__


def refuse(reason: str, status: Status = Status.BAD_ROW) -> NoReturn:
    """Ends the reading of a row.

    Raises:
        FieldError: Always.
    """
    raise FieldError(reason, status)
