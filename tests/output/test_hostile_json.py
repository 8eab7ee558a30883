"""`manifest.json`, `summary.json` and `_writing.json` that no run of ours wrote, in every form.

Each is either read, and then printed and rendered without a fault, or refused in our words.
"""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from sf_ray.corpus.status import Status
from sf_ray.errors import SfRayError
from sf_ray.output.layout import Output
from sf_ray.output.manifest import Manifest
from sf_ray.output.report import page
from sf_ray.output.report.card import render_card
from sf_ray.output.report.page import render_page
from sf_ray.output.report.row_kinds import ScoreKind, StatusKind
from sf_ray.output.report.summary import Summary
from sf_ray.output.report.survey import survey_of
from sf_ray.output.report.terminal import print_manifest, print_row
from sf_ray.runtime.console import SafeConsole
from sf_ray.storage.location import Location
from tests.support.json_mutants import mutants_of
from tests.support.manifests import EXACT, group_keys, manifest_keys
from tests.support.surveys import make_rows, shown

MUTANTS = 200


def whole_manifest() -> dict[str, Any]:
    """The keys of a manifest that has every section."""
    groups = {"a": group_keys(3), "b": group_keys(0, rows=0)}
    diversity = {
        "diversify_to": 3,
        "encoder": "e",
        "encoder_fingerprint": "f",
        "of_rows": 9,
        "wanted_rows": 3,
        "objective": 8.0,
        "mean_similarity": 0.9,
        "is_exact": False,
        "ratio_to_exact": 0.99,
    }
    quota = {"column": {"a": 3, "b": 0.1}}
    keys = manifest_keys(100, 80, 3, groups=groups, diversity=diversity, quota=quota)
    keys["scores"]["exact"] = EXACT
    keys["input"]["skipped_shards"] = [{"path": "x.jsonl", "reason": "empty"}]
    files = [{"path": "a.jsonl", "rows": 1, "bytes": 9}]
    keys["output"]["export"] = {"name": "trl", "left_out_rows": 1, "files": files}
    return keys


def whole_summary() -> dict[str, Any]:
    """The content of a summary that has every section."""
    survey = survey_of(make_rows(60, 0), 3, None)
    rows = [
        shown(ScoreKind.BEST, "text"),
        shown(StatusKind(Status.BAD_ROW), "text", status="bad_row", reason="no", scores={}),
    ]
    content: dict[str, Any] = json.loads(Summary(survey, "column", tuple(rows)).to_json())
    content["groups"] = {"a": [9, 8, 7]}
    return content


def test_a_manifest_is_shown_or_refused(capsys: pytest.CaptureFixture[str]) -> None:
    shown_ones = 0
    for data in mutants_of(whole_manifest(), 1, MUTANTS):
        with suppress(SfRayError):
            manifest = Manifest.from_json(data, "manifest.json")
            print_manifest(manifest, Location("/out"))
            shown_ones += bool(render_card(manifest)) and bool(manifest.to_json())
    printed = capsys.readouterr().out
    assert shown_ones > 2
    assert not {"\x1b", "\r", "\u202e"} & {*printed}


def test_a_summary_is_shown_or_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Matplotlib would take minutes; it gets arrays of the shapes that `from_json` has checked.
    monkeypatch.setattr(page, "plots_of", lambda *_: dict.fromkeys(page_plots(), ""))
    manifest = Manifest.model_validate(whole_manifest())
    shown_ones = 0
    for data in mutants_of(whole_summary(), 2, MUTANTS):
        with suppress(SfRayError):
            summary = Summary.from_json(data, "summary.json")
            for row in summary.rows:
                print_row(SafeConsole(), row)
            for kind in ScoreKind:
                summary.rows_of(kind)
            shown_ones += bool(render_page(manifest, summary))
    printed = capsys.readouterr().out
    assert shown_ones > 2
    assert not {"\x1b", "\r", "\u202e"} & {*printed}


def page_plots() -> tuple[str, ...]:
    return ("ifd", "narrow", "ppl", "answer", "prompt")


def test_a_list_of_claimed_names_is_taken_or_refused(tmp_path: Path) -> None:
    output = Output(Location(str(tmp_path)))
    claim = tmp_path / "_writing.json"
    for data in mutants_of({"names": ["a.jsonl", "b.jsonl"]}, 3, 100):
        claim.write_bytes(data)
        with suppress(SfRayError):
            output.begin(["a.jsonl"])
            assert json.loads(claim.read_bytes())["names"]


@pytest.mark.parametrize("shape", [[10**12], [-1], [8193, 10**9], [], [8192]])
def test_a_summary_of_other_bins_is_refused_before_they_are_made(shape: list[int]) -> None:
    content = whole_summary()
    content["ok"]["shape"] = shape
    with pytest.raises(SfRayError, match="is not a summary that this version"):
        Summary.from_json(json.dumps(content).encode(), "summary.json")
