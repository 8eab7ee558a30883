"""The manifest is what it was: bytes, keys and older versions; its schema says so."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from docs.manifest_schema import manifest_schema
from sf_ray.errors import SfRayError
from sf_ray.output.manifest import Manifest
from tests.support.manifests import OLD, group_keys, manifest_keys

ROOT = Path(__file__).parents[2]


def quota_keys() -> dict[str, Any]:
    """Keys of a run with quotas: a count and a fraction."""
    groups = {"a": group_keys(3, asked=0.5), "b": group_keys(0, asked=5), "c": group_keys(0)}
    quota = {"source": {"a": 0.5, "b": 5, "*": 1.0}}
    return manifest_keys(20, 15, 3, groups=groups, quota=quota, cutoff=None)


@pytest.mark.parametrize("run", ["out", "diverse"])
def test_a_manifest_of_version_0_1_0_is_written_back_byte_for_byte(run: str) -> None:
    data = (OLD / run / "manifest.json").read_bytes()
    assert Manifest.from_json(data, "there").to_json() == data


def test_a_count_stays_an_integer_and_a_fraction_a_float() -> None:
    manifest = Manifest.model_validate(quota_keys())
    written = json.loads(manifest.to_json())["selection"]
    assert json.dumps(written["quota"]) == '{"source": {"a": 0.5, "b": 5, "*": 1.0}}'
    assert [json.dumps(group["asked"]) for group in written["groups"].values()] == [
        "0.5",
        "5",
        "0.1",
    ]


def test_the_schema_in_the_docs_is_that_of_the_models() -> None:
    path = ROOT / "docs" / "manifest.schema.json"
    assert path.read_text(encoding="utf-8") == manifest_schema(), "run `make docs`"


@pytest.mark.parametrize("run", ["out", "diverse"])
def test_the_schema_fits_what_runs_wrote(run: str) -> None:
    schema = json.loads(manifest_schema())
    jsonschema.Draft202012Validator.check_schema(schema)
    keys = json.loads((OLD / run / "manifest.json").read_bytes())
    jsonschema.validate(keys, schema)
    for spoilt in (
        {name: value for name, value in keys.items() if name != "run_id"},
        keys | {"manifest_version": 2},
        keys | {"input": keys["input"] | {"rows": "24"}},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(spoilt, schema)


def test_the_keys_of_diversity_are_missing_where_no_fewer_rows_were_asked_for() -> None:
    asked = {"diversify_to": 9, "encoder": "e", "encoder_fingerprint": "f", "of_rows": 3}
    manifest = Manifest.model_validate(manifest_keys(20, 15, 3, diversity=asked))
    assert json.loads(manifest.to_json())["selection"]["diversity"] == asked
    assert manifest.selection.diversity is not None
    assert manifest.selection.diversity.objective is None
    assert manifest.selection.rows_within_cutoff == 3


# What version 1 lacked at its beginning; the keys came one after another.
LATER_KEYS: dict[str, tuple[str, ...]] = {
    "": ("run_id", "command"),
    "input": ("skipped_shards",),
    "scores": ("model_name", "tokens"),
    "selection": (
        "quota",
        "min_prompt_tokens",
        "max_prompt_tokens",
        "min_answer_tokens",
        "max_answer_tokens",
        "dropped_duplicates",
        "order",
        "groups",
        "diversity",
    ),
    "output": ("export",),
}


def test_the_first_manifests_are_read_without_the_keys_that_came_later() -> None:
    keys = json.loads((OLD / "out" / "manifest.json").read_bytes())
    for section, names in LATER_KEYS.items():
        for name in names:
            del (keys[section] if section else keys)[name]
    manifest = Manifest.from_json(json.dumps(keys).encode(), "there")
    assert manifest.selection.kept_rows == 7
    assert (
        manifest.selection.diversity is manifest.selection.groups is manifest.output.export is None
    )
    assert manifest.selection.order == "input"
    assert (manifest.command, manifest.input.skipped_shards) == ("", ())
    # What was missing stays missing.
    assert json.loads(manifest.to_json()) == keys


def test_keys_of_a_newer_version_are_ignored() -> None:
    keys = manifest_keys(20, 15, 3) | {"later": {"a": 1}}
    keys["scores"]["later"] = True
    assert Manifest.from_json(json.dumps(keys).encode(), "there").input.rows == 20


def test_an_identity_keeps_the_keys_that_it_has_and_their_order() -> None:
    keys = manifest_keys(20, 15, 3)
    keys["scores"]["identity"] |= {"sample": {"rows": 3}}
    identity = Manifest.model_validate(keys).scores.identity
    assert dict(identity.items()) == keys["scores"]["identity"]
    assert [name for name, _ in identity.items()] == [
        "model",
        "alignment",
        "max_length",
        "dtype",
        "sample",
    ]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"manifest_version": 2}',
        b'{"manifest_version": 1, "input": {"rows": "many"}}',
        b'{"manifest_version": 1, "output": {"shards": [{"path": "a"}]}}',
    ],
)
def test_what_is_no_manifest_is_refused_with_what_to_do(data: bytes) -> None:
    with pytest.raises(SfRayError) as raised:
        Manifest.from_json(data, "out/manifest.json")
    assert str(raised.value) == (
        "out/manifest.json is not a manifest of this version of sf_ray; "
        "choose another output, or remove it together with data/ to write anew"
    )


def test_a_number_that_json_cannot_hold_is_not_written() -> None:
    with pytest.raises(ValueError, match="selection.max_ifd\n.*a finite number"):
        Manifest.model_validate(manifest_keys(20, 15, 3, max_ifd=float("inf")))
