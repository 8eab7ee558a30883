"""Quotas: how many rows to keep for each value of a column. Knows no rows and no files.

source=0.1                        keep 10 % of the rows of every value of `source`
source:{code: 0.2, chat: 5000}    a fraction of the value's rows, or a count; nothing of others
source:{code: 0.2, "*": 0.05}     "*" is the quota of every other value
"""

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from numbers import Number

import yaml

from sf_ray.config.yaml_text import yaml_value

# Key of the quota of all values that have none of their own.
OTHERS = "*"
# A longer name of a value is cut: groups have short names, but a column may hold anything.
_MOST_CHARACTERS, _SHOWN_CHARACTERS = 200, 100
# Name of a value that is null or missing, in a quota and in the report.
NULL = "null"

_FORMS = "expected COLUMN=0.1, COLUMN=500 or COLUMN:{VALUE: 0.2, OTHER: 5000, '*': 0.1}"


def rows_to_keep(rows: int, keep: float) -> int:
    """How many of `rows` rows to keep.

    Args:
        rows: All rows.
        keep: A count (int), or a fraction of `rows` (float). The decimal number that the user wrote
            is multiplied and rounded down: 0.29 of 100 rows is 29, although the binary float 0.29
            is a little less.
    """
    return keep if isinstance(keep, int) else int(Decimal(str(keep)) * rows)


@dataclass(frozen=True)
class Quota:
    """How much to keep of each value of a column.

    Attributes:
        column: Name of the column; dots lead into nested columns.
        shares: Value -> a count (int), or a fraction of the value's rows (float).
    """

    column: str
    shares: Mapping[str, int | float]

    def share(self, value: str) -> int | float | None:
        """The count or fraction for a value; None where the quota has none."""
        return self.shares.get(value, self.shares.get(OTHERS))

    def wanted(self, value: str, rows: int) -> int:
        """How many rows to keep of a value that has `rows` rows."""
        return rows_to_keep(rows, self.share(value) or 0)

    @property
    def named(self) -> list[str]:
        """The values that have a quota of their own."""
        return [value for value in self.shares if value != OTHERS]


def quota_from(given: object) -> object:
    """Parses a quota from a flag's text or a YAML mapping; other values pass unchanged.

    Raises:
        ValueError: The text or mapping is not a quota; the message says what is expected.
    """
    if isinstance(given, str):
        given = _mapping_of(given)
    if not isinstance(given, Mapping):
        return given  # None, or a `Quota`; pydantic refuses anything else
    if len(given) != 1:
        raise ValueError(f"one column can have quotas; {_FORMS}")
    column, asked = next(iter(given.items()))
    if not isinstance(asked, Mapping):
        return Quota(str(column), {OTHERS: _share(OTHERS, asked)})
    shares: dict[str, int | float] = {}
    for key, share in asked.items():
        if isinstance(key, bool):
            raise ValueError(f"YAML reads a value of {column} as {key}: put it in quotes")
        text = text_of(key)
        if text in shares:
            raise ValueError(f"the value {text!r} of {column} has two quotas")
        shares[text] = _share(text, share)
    if not shares:
        raise ValueError(f"no value of {column} has a quota; {_FORMS}")
    return Quota(str(column), shares)


def text_of(value: object) -> str:
    """The name of a column's value in a quota.

    Raises:
        ValueError: The value is not text, a number, a truth value or null.
    """
    if value is None:
        return NULL
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes):  # text that is not valid UTF-8
        value = value.decode(errors="backslashreplace")
    if isinstance(value, str | Number):
        return _short(str(value))
    raise ValueError(f"is of type {type(value).__name__}; expected text, numbers or truth values")


def _short(text: str) -> str:
    """The name of a value, which is shown in many places; a long one is cut.

    Two long values stay two: behind the beginning stands a hash of all. The name of a name is
    itself, so that a quota can be given for it.
    """
    if len(text) <= _MOST_CHARACTERS:
        return text
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return f"{text[:_SHOWN_CHARACTERS]}... ({len(text):,} characters, {digest})"


def _mapping_of(text: str) -> dict[str, object]:
    if text.rstrip().endswith("}"):
        head, _, inside = text.partition("{")
        column = head.rstrip()[:-1].strip()
        if not column or head.rstrip()[-1] not in ":=":
            raise ValueError(_FORMS)
        try:
            # BaseLoader reads every scalar as text: YAML's usual loader would read the language
            # `no` as a truth value.
            shares = yaml_value("{" + inside, yaml.BaseLoader)
        except yaml.YAMLError as error:
            problem = getattr(error, "problem", None) or "no YAML"
            raise ValueError(f"cannot be read ({problem}); {_FORMS}") from None
        return {column: shares}
    column, sign, share = text.rpartition("=")
    if not (column.strip() and sign):
        raise ValueError(_FORMS)
    return {column.strip(): share.strip()}


def _share(value: str, given: object) -> int | float:
    try:
        return share_from(given)
    except ValueError as error:
        raise ValueError(f"{value}: {error}") from None


def share_from(given: object) -> int | float:
    """Parses how much to keep, from a flag's text or a YAML number.

    Returns:
        An int (`5000`) for a count, a float (`0.2`) for a fraction.

    Raises:
        ValueError: It is neither; the message says what is expected.
    """
    number = given
    if isinstance(given, str):
        try:
            number = int(given) if re.fullmatch(r"[0-9]+", given) else float(given)
        except ValueError:
            number = None
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise ValueError(f"expected a count like 5000 or a fraction like 0.2, not {given}")
    if not (number >= 0 and math.isfinite(number)):
        raise ValueError(f"{given} is below 0 or no number")
    if isinstance(number, float) and number > 1:
        raise ValueError(
            f"{given} is more than all rows; a fraction is at most 1.0, and a count has no point"
        )
    return number
