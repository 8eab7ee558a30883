"""The data card of an output."""

import re
from typing import Any

import pytest
import yaml

from sf_ray.output.manifest import Manifest
from sf_ray.output.report.card import MARK, render_card
from tests.support.manifests import group_keys, manifest_keys


def card_of(keys: dict[str, Any], *paths: str) -> tuple[dict[str, Any], str]:
    """The head, read as hubs do, and the Markdown."""
    if paths:
        keys["output"]["shards"] = [{"path": path, "rows": 1, "bytes": 9} for path in paths]
    head, body = render_card(Manifest.model_validate(keys)).removeprefix("---\n").split("---\n", 1)
    return yaml.safe_load(head), body


def test_the_card_is_one_that_hubs_read() -> None:
    keys = manifest_keys(1000, 800, 90)
    head, body = card_of(keys, "a.parquet", "b/c.jsonl.gz", "d.v2.jsonl")
    assert head["size_categories"] == ["n<1K"]
    assert head["configs"][0]["data_files"] == [
        "data/**/*.jsonl",
        "data/**/*.jsonl.gz",
        "data/**/*.parquet",
    ]
    assert MARK in body
    assert "| kept | 90 |" in body


@pytest.mark.parametrize(
    ("kept", "category"),
    [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (10**9 - 1, "100M<n<1B"), (10**9, "n>1B")],
)
def test_the_size_is_one_of_the_hubs_categories(kept: int, category: str) -> None:
    head, _ = card_of(manifest_keys(10**9, 10**9, kept))
    assert head["size_categories"] == [category]


@pytest.mark.parametrize(
    ("path", "pattern"),
    [
        ("a.b.parquet", "data/**/*.parquet"),
        ("x/a.arrow", "data/**/*.arrow"),
        ("a.json.gz", "data/**/*.json.gz"),
        ("x/a.jsonl.zst", "data/**/*.jsonl.zst"),
    ],
)
def test_the_pattern_of_a_file_ends_as_the_file_does(path: str, pattern: str) -> None:
    head, _ = card_of(manifest_keys(9, 9, 9), path)
    assert head["configs"][0]["data_files"] == [pattern]


def test_the_card_says_how_the_rows_were_chosen() -> None:
    _, body = card_of(manifest_keys(1000, 800, 90))
    assert "90 of the 1,000 rows of `in`" in body
    assert "| status `bad_row` | 200 |" in body
    assert "| status `no_prompt`" not in body
    assert "| IFD of the cut-off | 0.700000 |" in body
    assert "    sf-ray run in out --model m --keep-fraction 0.1" in body
    groups = {"a": group_keys(50), "b": group_keys(40)}
    _, body = card_of(manifest_keys(1000, 800, 90, groups=groups, cutoff=None))
    assert "| quota | on 2 groups; see the manifest |" in body
    assert "IFD of the cut-off" not in body


def test_a_card_of_an_output_without_rows_names_no_files() -> None:
    keys = manifest_keys(9, 9, 0)
    keys["output"]["shards"] = []
    head, _ = card_of(keys)
    assert "configs" not in head


FORGED = "a`b``|[l](http://x)<img src=x>\n---\nlicense: mit\n# Forged\x1b[2J\u202e"


def test_no_name_leaves_its_code_span() -> None:
    keys = manifest_keys(9, 9, 9)
    keys["input"]["uri"] = keys["scores"]["model_name"] = keys["command"] = FORGED
    keys["output"]["ifd_column"] = keys["scores"]["identity"]["dtype"] = FORGED
    keys["status_counts"][FORGED] = 3
    _, body = card_of(keys)
    assert not {"\x1b", "\u202e"} & {*body}
    assert not [line for line in body.splitlines() if line.startswith(("#", "---", "license"))][1:]
    outside = re.sub(r"(?<!`)(`+)(?!`).+?(?<!`)\1(?!`)", "", body)
    outside = re.sub(r"^    .*$", "", outside, flags=re.MULTILINE)  # the command, which is code too
    assert "<img" not in outside
    assert "[l]" not in outside
    table = [line for line in body.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {3}


@pytest.mark.parametrize("suffix", [".j\nlicense: mit", ".j\u202e", ".j: [", ".j'\"", ".j\n---\n"])
def test_no_name_of_a_shard_changes_the_head(suffix: str) -> None:
    head, body = card_of(manifest_keys(9, 9, 9), f"a{suffix}")
    shown = suffix if suffix.isprintable() else ""
    assert head["configs"][0]["data_files"] == [f"data/**/*{shown}"]
    assert head.keys() == {"size_categories", "task_categories", "tags", "configs"}
    assert body.lstrip().startswith(MARK)
