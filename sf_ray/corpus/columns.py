"""Columns beside a format: those that it does not use, and those that only some rows have.

Pure functions of a format and sampled rows. Knows no files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sf_ray.corpus.fields import is_blank
from sf_ray.corpus.formats import Format, SampleRow

_MOST_NAMES = 12
# How deep text is looked for: JSON may be nested deeper than Python can follow.
_DEPTH = 8


def as_in_json(row_format: Format, sample: Sequence[SampleRow]) -> Format:
    """The format of a JSON corpus, where a row may have a field that no sampled row has.

    Optional fields are looked for in every row. Extra fields are too (see `Format.render`), and
    count as the format's only where a sampled row has one that is not empty: the format is part of
    the scoring identity, and an empty field changes no score.

    Args:
        row_format: As the sample shows it.
        sample: Some rows.
    """
    used = row_format.columns.values()
    optional = {field: field for field in row_format.optional if field not in used}
    columns = {
        field: column
        for field, column in row_format.columns.items()
        if field not in row_format.extra
        or column != field
        or not all(is_blank(sampled.row.get(field)) for sampled in sample)
    }
    return replace(row_format, columns=optional | columns)


def unused_text(row_format: Format, sample: Sequence[SampleRow]) -> list[str]:
    """Columns that hold text in some sampled row, and that the format does not use.

    Returns:
        The names, each with what the column holds: "title (text)", "tags (lists)".
    """
    paths = row_format.columns.values()
    used = {*paths, *(path.partition(".")[0] for path in paths)}
    found: dict[str, str] = {}
    for sampled in sample:
        for name, value in sampled.row.items():
            if name not in used and name not in found and _has_text(value):
                found[name] = _holds(value)
    return [f"{name} ({holds})" for name, holds in found.items()]


def in_words(names: Sequence[str]) -> str:
    """Some names, and how many more there are."""
    more = len(names) - _MOST_NAMES
    shown = ", ".join(names[:_MOST_NAMES])
    return f"{shown} and {more} more" if more > 0 else shown


def _has_text(value: object, depth: int = _DEPTH) -> bool:
    if isinstance(value, Mapping | list):
        inner = value.values() if isinstance(value, Mapping) else value
        return depth > 0 and any(_has_text(element, depth - 1) for element in inner)
    return isinstance(value, str) and bool(value.strip())


def _holds(value: object) -> str:
    if isinstance(value, str):
        return "text"
    return "lists" if isinstance(value, list) else "objects"
