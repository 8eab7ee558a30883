"""JSON that others may have written: read within bounds, and parsed as JSON is defined.

Python's parser takes more than JSON has (NaN, numbers that become infinite), and its callers would
fail far away of a value that no program can hold. Here a file is refused by its size before it is
in memory, and a document by its depth, so that no caller meets a `RecursionError`. What the keys
mean is the business of the callers.
"""

import json
import math
from typing import Any

from sf_ray.errors import SfRayError
from sf_ray.storage.files import read_bounded, read_bounded_or_none
from sf_ray.storage.location import Location

# Levels of lists and objects. Ours have seven; the parser itself gives up at about a thousand.
_MOST_LEVELS = 64


def read_json(location: Location, limit: int, advice: str, only_finite: bool = True) -> Any:
    """Reads a JSON file.

    Args:
        location: The file.
        limit: Bytes that it may have.
        advice: What to do about a file that is none of ours, for the error.
        only_finite: Whether to refuse NaN and infinity, which JSON has not.

    Raises:
        SfRayError: The file does not exist (`FileNotFoundError` is the cause), is larger, or is no
            JSON; or storage failed.
    """
    return _parsed(read_bounded(location, limit), location, advice, only_finite)


def read_json_or_none(location: Location, limit: int, advice: str) -> Any:
    """Reads a JSON file as `read_json` does; None where it does not exist."""
    data = read_bounded_or_none(location, limit)
    return None if data is None else _parsed(data, location, advice, True)


def _parsed(data: bytes, location: Location, advice: str, only_finite: bool) -> Any:
    try:
        return parse_json(data, only_finite)
    except ValueError as error:
        raise SfRayError(f"{location.public_uri}: no JSON of ours ({error}); {advice}") from None


def parse_json(data: bytes, only_finite: bool = True) -> Any:
    """Parses a JSON document.

    Args:
        data: The document.
        only_finite: Whether to refuse NaN and infinity.

    Raises:
        ValueError: It is none, or has a number that is not finite, or more than `_MOST_LEVELS`
            lists and objects inside each other. The text says what, and quotes nothing.
    """
    try:
        number = _finite if only_finite else float
        value = json.loads(data, parse_constant=number, parse_float=number)
    except RecursionError:
        raise ValueError("lists or objects are nested too deep") from None
    except UnicodeDecodeError:
        raise ValueError("it is not text in UTF-8") from None
    level = [value]
    for _ in range(_MOST_LEVELS):
        level = [
            item
            for container in level
            if isinstance(container, (list, dict))
            for item in (container.values() if isinstance(container, dict) else container)
        ]
        if not level:
            return value
    raise ValueError("lists or objects are nested too deep")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("it has a number that is not finite")
    return number
