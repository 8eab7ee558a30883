from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from sf_ray.config.registry import COMMANDS, load
from sf_ray.config.selection_options import RunOptions
from sf_ray.config.value_types import (
    Actors,
    Columns,
    Fraction,
    Fractions,
    JsonObject,
    Names,
    RowsOrBytes,
    Share,
    ShownRows,
    Size,
)

RUN = COMMANDS["run"]
GIVEN = {"input": "in", "output": "out", "model": "demo", "keep_fraction": "0.1"}


def test_flags_are_text_and_become_typed_values() -> None:
    options = load(RUN, {**GIVEN, "columns": "prompt=q,completion=a", "actors": "2:8"}, None)
    assert isinstance(options, RunOptions)
    assert options.keep_fraction == 0.1
    assert options.columns == {"prompt": "q", "completion": "a"}
    assert options.actors == (2, 8)
    assert load(RUN, {**GIVEN, "actors": "3"}, None).actors == (3, 3)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("value_type", "text", "from_yaml", "value"),
    [
        (Columns, "prompt=q, completion=a.b", {"prompt": "q", "completion": "a.b"}, None),
        (JsonObject, '{"anon": true}', {"anon": True}, None),
        (Actors, "2:8", [2, 8], (2, 8)),
        (Actors, "3", 3, (3, 3)),
        (Fraction, "0.5", 0.5, None),
        (Fractions, "0.1, 0.5", [0.1, 0.5], None),
        (Names, "a, b", ["a", "b"], None),
        (Share, "5000", 5000, None),
        (Share, "0.25", 0.25, None),
        (ShownRows, "10", 10, None),
        (Size, "256MB", 256_000_000, None),
        (Size, "1.5 GiB", 3 << 29, None),
        (Size, "900kb", 900_000, None),
        (Size, "7B", 7, None),
        (RowsOrBytes, "100000", 100_000, ("rows", 100_000)),
        (RowsOrBytes, "64MiB", ["bytes", 64 << 20], ("bytes", 64 << 20)),
    ],
)
def test_text_of_a_flag_and_a_value_of_yaml_mean_the_same(
    value_type: Any, text: str, from_yaml: object, value: object
) -> None:
    adapter = TypeAdapter[object](value_type)
    expected = from_yaml if value is None else value
    assert adapter.validate_python(text) == expected
    assert adapter.validate_python(from_yaml) == expected


@pytest.mark.parametrize(
    ("value_type", "value", "words"),
    [
        (Columns, "prompt=", "expected field=column"),
        (JsonObject, "{half", "expected a JSON object"),
        (Size, "256", "expected a size as 256MB"),
        (Size, "0MB", "greater than or equal to 1"),
        (Size, "many", "expected a size as 256MB"),
        (RowsOrBytes, "0", "greater than or equal to 1"),
        (RowsOrBytes, "64XB", "expected a size as 256MB"),
        (Actors, "0", "greater than or equal to 1"),
        (Fractions, "0.1,2", "less than or equal to 1"),
        (Names, "only", "at least 2 items"),
        (Names, "a,", "at least 1 character"),
        (Share, "1.5", "1.5 is more than all rows"),
        (Share, "0", "greater than 0"),
        (ShownRows, "11", "less than or equal to 10"),
    ],
)
def test_a_value_out_of_bounds_is_refused(value_type: Any, value: str, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        TypeAdapter(value_type).validate_python(value)
