import json
from pathlib import Path
from typing import Any

import pytest

from sf_ray.errors import SfRayError
from sf_ray.storage.files import put_bytes
from sf_ray.storage.json_files import parse_json, read_json, read_json_or_none
from sf_ray.storage.location import Location
from tests.support.json_mutants import mutants_of


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting"),
        (b'{"a": NaN}', "a number that is not finite"),
        (b"[-Infinity]", "a number that is not finite"),
        (b"[1e999]", "a number that is not finite"),
        (b"[" * 100_000, "nested too deep"),
        (b"[" * 100 + b"]" * 100, "nested too deep"),
        (b'{"a": "\xff"}', "not text in UTF-8"),
        (b"1" * 10_000, "integer string conversion"),
    ],
)
def test_what_is_no_json_of_ours_is_refused_in_words(data: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as raised:
        parse_json(data)
    assert len(str(raised.value)) < 200


def test_json_is_read_as_it_was_written() -> None:
    value = {"a": [1, 2.5, None, True, "ü\u202e"], "b": {"c": -(2**70)}}
    assert parse_json(json.dumps(value).encode()) == value
    assert parse_json(b"[1, Infinity]", only_finite=False) == [1, float("inf")]


def test_no_document_ends_in_another_error() -> None:
    for data in mutants_of({"a": [1, {"b": "c"}]}, 0, 200):
        try:
            parse_json(data)
        except ValueError:
            continue


def test_a_file_is_refused_by_its_size_before_it_is_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    with path.open("wb") as file:
        file.truncate(1 << 42)  # 4 TiB, of which the disk has nothing
    with pytest.raises(SfRayError, match="manifest.json: larger than 1,000 bytes"):
        read_json(Location(str(path)), 1000, "")


def test_a_file_that_is_none_of_ours_is_named_with_what_to_do(place: Location) -> None:
    where = place.join("a.json")
    assert read_json_or_none(where, 100, "remove it") is None
    with pytest.raises(SfRayError, match="not found"):
        read_json(where, 100, "remove it")
    for data in (b"", b"{"):
        put_bytes(where, data)
        with pytest.raises(SfRayError, match=r"a.json: no JSON of ours \(.*\); remove it"):
            read_json(where, 100, "remove it")
    put_bytes(where, b"[1]" + b" " * 97)
    expected: Any = [1]
    assert read_json(where, 100, "remove it") == read_json_or_none(where, 100, "") == expected
    with pytest.raises(SfRayError, match="larger than 99 bytes"):
        read_json(where, 99, "remove it")
