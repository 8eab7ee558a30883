"""Types of option values: how the text of a flag becomes a value, and which values are allowed.

A flag gives text; a YAML file gives numbers, lists and mappings. Each type takes both. Does not
know which option has which type.
"""

import json
import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, NonNegativeInt

from sf_ray.config.quotas import Quota, quota_from, share_from


def _columns_from_text(value: object) -> object:
    """Parses `prompt=q,completion=a` to a mapping; a mapping (YAML) passes unchanged."""
    if not isinstance(value, str):
        return value
    pairs = [part.partition("=") for part in value.split(",")]
    if any(not (field.strip() and sign and column.strip()) for field, sign, column in pairs):
        raise ValueError("expected field=column[,field=column]")
    return {field.strip(): column.strip() for field, _, column in pairs}


def _json_object_from_text(value: object) -> object:
    """Parses a JSON object; a mapping (YAML) passes unchanged."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except RecursionError:
        raise ValueError("expected a JSON object (it is nested too deeply)") from None
    except ValueError as error:  # also a number of thousands of digits
        raise ValueError(f"expected a JSON object ({error})") from None


def _actors_from_text(value: object) -> object:
    """Parses `4` or `2:8` to (min, max); a pair (YAML) passes unchanged."""
    if isinstance(value, int):
        return (value, value)
    if not isinstance(value, str):
        return value
    low, _, high = value.partition(":")
    return (low, high or low)


def _draws_from_text(value: object) -> object:
    """Parses `ifd:3,random` to the arms with their numbers of draws; 0 where none is given."""
    if not isinstance(value, str):
        return value
    pairs = [part.partition(":") for part in value.split(",")]
    names = [name.strip() for name, _, _ in pairs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"names {twice[0]} twice")
    return {name: draws or 0 for name, (_, _, draws) in zip(names, pairs, strict=True)}


def _models_from_text(value: object) -> object:
    """Parses `ARM=MODEL,ARM=MODEL` to pairs; a list of pairs (YAML) passes unchanged."""
    if not isinstance(value, str):
        return value
    pairs = [part.partition("=") for part in value.split(",")]
    if any(not (arm.strip() and sign and model.strip()) for arm, sign, model in pairs):
        raise ValueError("expected ARM=MODEL[,ARM=MODEL]")
    return [(arm.strip(), model.strip()) for arm, _, model in pairs]


def _bytes_from_text(value: object) -> object:
    """Parses `256MB` or `1 GiB` to bytes; a number without a unit is bytes too."""
    if not isinstance(value, str):
        return value
    found = _SIZE.fullmatch(value.strip())
    if found is None:
        raise ValueError("expected a size as 256MB or 1GiB")
    number, unit = found.groups()
    return int(float(number) * _UNITS[unit.lower()])


def _rows_or_bytes_from_text(value: object) -> object:
    """Parses `100000` to rows and `64MB` to bytes; a pair (YAML) passes unchanged."""
    if isinstance(value, int):
        return ("rows", value)
    if not isinstance(value, str):
        return value
    if value.strip().isdecimal():
        return ("rows", int(value))
    return ("bytes", _bytes_from_text(value))


def _list_from_text(value: object) -> object:
    """Splits `a,b` at commas; a list (YAML) passes unchanged."""
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?i?b)", re.IGNORECASE)
_UNITS = {"b": 1} | {
    f"{prefix}{binary}b": (1024 if binary else 1000) ** power
    for power, prefix in enumerate("kmgt", 1)
    for binary in ("", "i")
}
Columns = Annotated[dict[str, str], BeforeValidator(_columns_from_text)]
JsonObject = Annotated[dict[str, Any], BeforeValidator(_json_object_from_text)]
PositiveInt = Annotated[int, Field(ge=1)]
Actors = Annotated[tuple[PositiveInt, PositiveInt], BeforeValidator(_actors_from_text)]
Fraction = Annotated[float, Field(gt=0, le=1)]
Fractions = Annotated[list[Fraction], BeforeValidator(_list_from_text), Field(min_length=1)]
Names = Annotated[
    list[Annotated[str, Field(min_length=1)]],
    BeforeValidator(_list_from_text),
    Field(min_length=2),
]
Places = Annotated[list[Annotated[str, Field(min_length=1)]], BeforeValidator(_list_from_text)]
Size = Annotated[int, BeforeValidator(_bytes_from_text), Field(ge=1)]
RowsOrBytes = Annotated[
    tuple[Literal["rows", "bytes"], PositiveInt], BeforeValidator(_rows_or_bytes_from_text)
]
# At most 10, because a run keeps the texts of 10 rows of each kind (PICKS in output/report).
ShownRows = Annotated[int, Field(ge=1, le=10)]
Share = Annotated[int | float, BeforeValidator(share_from), Field(gt=0)]
ColumnQuota = Annotated[Quota, BeforeValidator(quota_from)]
# The ways to say which rows are the best, and the scores that they may look at.
By = Literal["ifd", "ifd-low", "random", "longest", "length-normalised", "length-matched"]
Score = Literal["ifd", "s-ifd", "loss-delta", "ppl-direct", "ppl-conditioned", "answer-tokens"]
ArmDraws = Annotated[dict[Literal[By, "all"], NonNegativeInt], BeforeValidator(_draws_from_text)]
TrainedModels = Annotated[list[tuple[str, str]], BeforeValidator(_models_from_text)]
