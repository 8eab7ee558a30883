"""A manifest and rows, as the command line prints them."""

from typing import Any

import pytest
from rich.console import Console

from sf_ray.corpus.planning import SkippedShard
from sf_ray.output.manifest import Manifest
from sf_ray.output.report.row_kinds import ScoreKind
from sf_ray.output.report.terminal import (
    print_manifest,
    print_row,
    print_scores_summary,
)
from sf_ray.runtime.console import SafeConsole
from sf_ray.storage.location import Location
from tests.support.manifests import EXACT, group_keys, manifest_keys
from tests.support.surveys import MARKUP, shown

OUTPUT = Location("/out")


class Printed:
    """What was printed: lines, and words with one space between them."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.text = capsys.readouterr().out
        self.lines = [" ".join(line.split()) for line in self.text.splitlines()]


@pytest.fixture
def of_manifest(capsys: pytest.CaptureFixture[str]) -> Any:
    """Keys of a manifest -> what is printed of it."""

    def print_keys(keys: dict[str, Any]) -> Printed:
        print_manifest(Manifest.model_validate(keys), OUTPUT)
        return Printed(capsys)

    return print_keys


def test_rows_are_counted_down_to_those_that_are_kept(of_manifest: Any) -> None:
    lines = of_manifest(manifest_keys(1000, 800, 90)).lines
    assert lines[:6] == [
        "rows",
        "in the corpus 1,000 100.0%",
        "ok 800 80.0%",
        "bad_row 200 20.0%",
        "ok, with IFD below 1 800 80.0%",
        "kept 90 9.0%",
    ]
    assert lines[6] == "cut-off IFD 0.700000 (row 1 of a)"
    assert lines[7:] == [
        "data /out/data",
        "scores out/scores/id",
        "report /out/report.html",
        "manifest /out/manifest.json",
        "time plan 0 s, score 1 min 40 s",
    ]


def test_near_copies_and_overlaps_are_counted_and_one_is_shown(of_manifest: Any) -> None:
    keys = manifest_keys(1000, 800, 90)
    near = {"threshold": 0.9, "by": "text", "compared_rows": 700, "dropped_rows": 40}
    near |= {"sampled_rows": 500, "sampled_near_rows": 31, "sampled_found_rows": 30}
    shared = {"shard": "a\x1b[2J", "row": 3, "uri": "/eval", "in_shard": "b\nc", "in_row": 1_234}
    keys["selection"] |= {
        "eligible_rows": 660,
        "near_duplicates": near,
        "overlap_with": [{"uri": "/eval", "fingerprint": "f", "rows": 9}],
        "overlapping_rows": 100,
        "overlaps": [shared | {"words": "these \u202e words"}] * 2,
    }
    printed = of_manifest(keys)
    assert printed.lines[4:7] == [
        "ok, with IFD below 1 and not excluded 700 70.0%",
        "of them near copies of better rows 40 4.0%",
        "kept 90 9.0%",
    ]
    assert "overlap 100 rows share 13 words in a row with the evaluation sets" in printed.lines
    example = "e.g. row 3 of a\\x1b[2J with row 1,234 of b\\nc: these \\u202e words"
    assert printed.lines.count(example) == 1
    assert "near 30 of the 31 near copies among 500 sampled rows were found" in printed.lines


def test_rows_without_s_ifd_are_counted(of_manifest: Any) -> None:
    tokens = {"token_share": 0.75, "tokens": 90, "threshold_nats": 0.03125, "rows_without": 1200}
    keys = manifest_keys(1000, 800, 90)
    keys["selection"] |= {"s_ifd": tokens}
    assert (
        "note 1,200 rows have no S-IFD and are not ranked: none of their tokens differs by "
        "0.03125 nats"
    ) in of_manifest(keys).lines
    keys["selection"]["s_ifd"]["rows_without"] = 0
    assert "S-IFD" not in of_manifest(keys).text


def test_what_was_scored_again_is_said_with_the_set_that_was_selected_by(of_manifest: Any) -> None:
    keys = manifest_keys(1000, 800, 90)
    keys["scores"] |= {"exact": EXACT}
    keys["scores"]["identity"]["dtype"] = "float16"
    lines = of_manifest(keys).lines
    assert (
        "exact 370 rows (37.0%) scored again in float32; float16 is off by 3.21% of IFD at most, "
        "on 256 sampled rows"
    ) in lines
    assert "scores out/scores/mixed" in lines


def test_no_row_at_all_has_no_shares(of_manifest: Any) -> None:
    lines = of_manifest(manifest_keys(0, 0, 0)).lines
    assert "in the corpus 0" in lines
    assert "note the fraction comes to less than one row: nothing is kept" in lines


@pytest.mark.parametrize(
    ("bounds", "text"),
    [
        ({"max_ifd": 0.9}, "IFD below 0.9"),
        ({"min_ifd": 0.2}, "an IFD from 0.2 to 1"),
        (
            {"min_prompt_tokens": 2, "max_prompt_tokens": 99},
            "IFD below 1, 2 to 99 prompt tokens",
        ),
        ({"min_answer_tokens": 3}, "IFD below 1, 3 answer tokens or more"),
        ({"max_answer_tokens": 3}, "IFD below 1, 3 answer tokens or fewer"),
    ],
)
def test_the_bounds_of_what_may_be_kept_are_named(
    of_manifest: Any, bounds: dict[str, Any], text: str
) -> None:
    assert f"ok, with {text} 800 80.0%" in of_manifest(manifest_keys(1000, 800, 90, **bounds)).lines


def test_a_note_says_why_fewer_rows_are_kept_than_were_asked_for(of_manifest: Any) -> None:
    few = manifest_keys(1000, 800, 800, wanted_rows=900)
    note = "note 900 rows were asked for; no more have IFD below 1"
    assert note in of_manifest(few).lines
    few["selection"]["dropped_duplicates"] = 7
    printed = of_manifest(few)
    assert f"{note} and are no copies" in printed.lines
    assert "of them copies of better rows 7 0.7%" in printed.lines
    assert "ok, with IFD below 1 807 80.7%" in printed.lines


def test_the_largest_groups_have_a_line_each_and_small_ones_a_note(of_manifest: Any) -> None:
    groups = {f"v{n:02}": group_keys(n) for n in range(1, 14)}
    groups |= {"[b]short[/b]": group_keys(1, wanted=9)} | {"absent": group_keys(0)}
    groups |= {"unasked": group_keys(0, asked=None, rows=1)}
    quota = {"source": {"*": 0.1}}
    keys = manifest_keys(1000, 800, 90, groups=groups, quota=quota, cutoff=None)
    lines = of_manifest(keys).lines
    assert "source asked rows eligible wanted kept cut-off" in lines
    assert lines.index("v13 0.1 13 13 13 13 0.700000") < lines.index("v12 0.1 12 12 12 12 0.700000")
    assert "and 4 more values; see the manifest" in lines
    assert "note values of source that do not occur in the corpus: 'absent'" in lines
    assert (
        "note values of source that have fewer eligible rows than were asked for: all of those "
        "are kept: '[b]short[/b]'" in lines
    )


def test_more_values_than_a_note_can_hold_are_counted(of_manifest: Any) -> None:
    groups = {f"v{n}": group_keys(0) for n in range(7)}
    quota = {"source": {"*": 0.1}}
    lines = of_manifest(manifest_keys(9, 9, 0, groups=groups, quota=quota)).lines
    assert (
        "note values of source that do not occur in the corpus: 'v0', 'v1', 'v2', 'v3', 'v4' "
        "and 2 more" in lines
    )


DIVERSITY = {"diversify_to": 30, "encoder": "e", "encoder_fingerprint": "f", "of_rows": 90}
CHOSEN = {"wanted_rows": 30, "objective": 81.0, "mean_similarity": 0.9}


@pytest.mark.parametrize(
    ("found", "line"),
    [
        (
            {},
            "note no more than 90 rows are left of the IFD cut for --diversify-to: all of them "
            "are kept",
        ),
        (
            CHOSEN | {"is_exact": True, "ratio_to_exact": 1.0},
            "variety a row and the kept one most like it have on average a cosine of 0.900 "
            "(facility location 81.0, exact greedy)",
        ),
        (
            CHOSEN | {"is_exact": False, "ratio_to_exact": 0.987},
            "variety a row and the kept one most like it have on average a cosine of at least "
            "0.900 (facility location at least 81.0, by parts, 98.70% of exact greedy on a sample)",
        ),
    ],
)
def test_the_variety_of_the_kept_rows_is_told(
    of_manifest: Any, found: dict[str, Any], line: str
) -> None:
    keys = manifest_keys(1000, 800, 30, wanted_rows=90, diversity=DIVERSITY | found)
    lines = of_manifest(keys).lines
    assert line in lines
    assert "of the best IFD 90 9.0%" in lines
    assert not [line for line in lines if "were asked for" in line]


def test_skipped_shards_and_rows_that_an_export_lacks_are_named(of_manifest: Any) -> None:
    keys = manifest_keys(1000, 800, 90)
    keys["input"]["skipped_shards"] = [{"path": f"s{n}", "reason": "[bad]"} for n in range(7)]
    keys["output"]["export"] = {"name": "trl", "left_out_rows": 1234, "files": []}
    lines = of_manifest(keys).lines
    assert [line for line in lines if line.startswith("skipped")] == [
        *(f"skipped s{n}: [bad]" for n in range(5)),
        "skipped 2 more shards; see the manifest",
    ]
    assert "note 1,234 kept rows are not exported, only in data: trl has no form for them" in lines
    assert "export /out/export/trl" in lines


def test_what_scoring_leaves_behind_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    print_scores_summary(Location("/s/id"), 1234, 5, [SkippedShard("a", "truncated")])
    assert Printed(capsys).lines == [
        "skipped a: truncated",
        "1,234 rows have scores, in 5 pieces: /s/id",
    ]


def test_a_row_is_printed_with_its_place_and_texts(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(highlight=False, markup=False)
    print_row(console, shown(ScoreKind.BEST, "x" * 3000))
    print_row(console, shown(ScoreKind.BEST, MARKUP, scores={}, status="bad_row", is_kept=False,
                             reason="'output' is null"))  # fmt: skip
    printed = Printed(capsys)
    assert printed.lines[0] == "IFD 0.812500 row 1 of a.parquet, kept"
    assert "... and 1,800 more characters" in printed.text.replace("\n", "")
    assert "bad_row row 1 of a.parquet" in printed.lines
    assert "'output' is null" in printed.lines
    assert "\x1b" not in printed.text


def test_text_of_a_corpus_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    text = "a\x1b[31m\x07\r\u202eb\n\tü🎉 [red]x[/] :smile:"
    row = shown(ScoreKind.BEST, text, shard="s\nkept\x1b[2J")
    print_row(SafeConsole(), row)
    printed = capsys.readouterr().out
    assert "a\\x1b[31m\\x07\\r\\u202eb" in printed
    assert "ü🎉 [red]x[/] :smile:" in printed
    assert "s\\nkept\\x1b[2J" in printed


def test_no_field_of_a_manifest_can_forge_a_line(of_manifest: Any) -> None:
    forged = "x\nkept 9\r\x1b[1A\u202e[red]"
    groups = {forged: group_keys(1, rows=9, wanted=2)}
    keys = manifest_keys(9, 9, 1, quota={forged: {forged: 2}}, groups=groups, cutoff=None)
    keys["status_counts"][forged] = 3
    keys["scores"]["uri"] = forged
    keys["wall_s"] = {forged: 1.0}
    keys["input"]["skipped_shards"] = [{"path": forged, "reason": forged}]
    keys["output"]["export"] = {"name": forged, "left_out_rows": 1, "files": []}
    printed = of_manifest(keys)
    assert printed.text.count("x\\nkept 9\\r\\x1b[1A\\u202e[red]") >= 6
    assert not {"\x1b", "\r", "\u202e"} & {*printed.text}
    assert not [line for line in printed.lines if line == "kept 9"]
