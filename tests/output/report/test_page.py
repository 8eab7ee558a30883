"""The report: what the page says, and that nothing in a corpus can make it do anything else."""

import html
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import yaml

from bench.support.corpora import make_rows, write_shards
from sf_ray.corpus.status import Status
from sf_ray.output.report.card import MARK, render_card
from sf_ray.output.report.page import _MEANING, render_page
from sf_ray.output.report.summary import ShownRow, ShownText, Summary
from sf_ray.output.report.survey import GroupCounts, Survey, nothing, survey_of
from tests.support.cli import Cli
from tests.support.surveys import make_rows as make_scores

MARKUP = (
    "<script>document.title='run'</script><img src=x onerror=\"document.title='run'\">"
    "</pre></details><style>*{display:none}</style><iframe src='javascript:1'></iframe>"
    "<svg onload=\"document.title='run'\"> {{ 7 * 7 }} {% raw %} \u202e ‮ עברית العربية 🎉 \x1b[31m"
)


def manifest_with(survey: Survey, rows: int, **selection: Any) -> dict[str, Any]:
    kept, ok = int(survey.kept.sum()), int(survey.ok.sum())
    counts = dict.fromkeys(map(str, Status), 0) | {"ok": ok, "bad_row": rows - ok}
    return {
        "sf_ray_version": "0",
        "finished": "2026-01-01T00:00:00Z",
        "command": "sf-ray run in out --model m --keep-fraction 0.1",
        "wall_s": {"plan": 0.1, "score": 100.0},
        "input": {"uri": "in", "rows": rows, "shards": 1, "fingerprint": "f", "skipped_shards": []},
        "scores": {
            "uri": "out/scores",
            "scoring_id": "id",
            "model_name": "m",
            "identity": {"model": "x", "dtype": "float32", "alignment": "a", "max_length": 9},
            "units": {"total": 1, "scored": 1, "reused": 0},
            "tokens": {"scored": 1000, "saved": 100},
        },
        "selection": {
            "keep_fraction": 0.1,
            "dropped_duplicates": None,
            "diversity": None,
            "groups": None,
            "wanted_rows": kept,
            "eligible_rows": int(survey.eligible.sum()),
            "kept_rows": kept,
            "cutoff": {"ifd": 0.7, "shard": "a", "row": 1} if kept else None,
            **selection,
        },
        "status_counts": counts,
        "output": {"ifd_column": "ifd", "shards": [{"path": "a.parquet", "rows": 1, "bytes": 9}]},
    }


def shown(kind: str, text: str, **values: Any) -> ShownRow:
    defaults: dict[str, Any] = {
        "kinds": (kind,),
        "shard": "a.parquet",
        "row": 1,
        "status": "ok",
        "reason": "",
        "is_kept": True,
        "scores": {"ifd": 0.8125, "ppl_direct": 3.0, "prompt_tokens": 4},
    }
    return ShownRow.of([ShownText("user", text), ShownText("assistant", "so")], **defaults | values)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The system's Chromium; made for this file."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium on this machine; CI installs one")
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=quiet)
        yield chromium
        chromium.close()


def opened(browser: Any, path: Path, width: int = 1200, scheme: str = "light") -> Any:
    """The page, and what it printed or asked for."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.said = []
    for event in ("console", "dialog", "pageerror", "requestfailed"):
        page.on(event, lambda what, event=event: page.said.append((event, str(what))))
    page.on("request", lambda request: page.said.append(("request", request.url[:60])))
    page.goto(f"file://{path}")
    return page


@pytest.mark.parametrize("width", [390, 1200])
def test_nothing_in_a_corpus_runs_loads_or_breaks_the_page(
    browser: Any, tmp_path: Path, width: int
) -> None:
    survey = survey_of(
        make_scores(500, 1), 0, {MARKUP: GroupCounts(400, 300, 20), "b": GroupCounts(3, 2, 1)}
    )
    manifest = manifest_with(survey, 500)
    manifest["input"]["uri"] = manifest["command"] = MARKUP
    manifest["scores"]["model_name"] = MARKUP
    manifest["scores"]["identity"]["columns"] = {MARKUP: MARKUP}
    manifest["input"]["skipped_shards"] = [{"path": MARKUP, "reason": MARKUP}]
    rows = [shown("best", MARKUP, shard=MARKUP)]
    rows += [shown("status bad_row", MARKUP, status="bad_row", reason=MARKUP, scores={})]
    path = tmp_path / "report.html"
    path.write_text(render_page(manifest, Summary(survey, MARKUP, tuple(rows))), encoding="utf-8")
    page = opened(browser, path, width)
    assert [what for what in page.said if what[0] != "request"] == []
    assert [url for _, url in page.said if not url.startswith(("file:", "data:"))] == []
    assert page.title() != "run"
    assert page.locator("script, iframe, img").count() == 0
    assert page.locator("style").count() == page.locator("svg").count() + 1
    assert page.locator("pre", has_text="<script>").first.is_visible()
    assert "{{ 7 * 7 }}" in page.content()
    # What is wide scrolls in its own frame.
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def test_a_script_that_were_in_the_page_would_not_run(browser: Any, tmp_path: Path) -> None:
    survey = nothing(False)
    text = render_page(manifest_with(survey, 0), Summary(survey, "", ()))
    path = tmp_path / "report.html"
    path.write_text(text.replace("<main>", "<main><script>document.title='run'</script>"))
    page = opened(browser, path)
    assert page.title() != "run"
    assert "Content Security Policy" in str(page.said)
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_plots_are_readable_on_light_and_dark(browser: Any, tmp_path: Path, scheme: str) -> None:
    survey = survey_of(make_scores(5000, 1), 0, None)
    path = tmp_path / "report.html"
    path.write_text(render_page(manifest_with(survey, 5000), Summary(survey, "", ())))
    page = opened(browser, path, scheme=scheme)
    colours = page.evaluate(
        "[document.body, document.querySelector('svg text')].map((one, i) => "
        "getComputedStyle(one)[i ? 'fill' : 'backgroundColor'])"
    )
    paper, ink = (sum(map(int, re.findall(r"\d+", colour)[:3])) / 765 for colour in colours)
    assert abs(paper - ink) > 0.35
    assert (paper < 0.5) == (scheme == "dark")
    page.close()


def page_of(count: int, **selection: Any) -> str:
    survey = survey_of(make_scores(count, 1), 0, None) if count else nothing(False)
    return render_page(manifest_with(survey, count, **selection), Summary(survey, "", ()))


@pytest.mark.parametrize("count", [0, 1, 2, 10_000])
def test_any_number_of_rows_renders(count: int) -> None:
    text = page_of(count)
    assert f"<b>{count:,}</b><span>rows in the corpus" in text
    assert text.count("<svg") == 5
    assert "None" not in text
    assert "nan" not in re.sub(r"base64,[^\"]+", "", text).lower().split()


def test_a_page_is_small_whatever_the_corpus_is() -> None:
    large = survey_of(make_scores(300_000, 1), 0, None)
    for _ in range(6):  # 19 million rows
        large = large + large
    rows = [
        shown(kind, "🎉<&\"'" * 250_000, row=number)
        for kind in ("best", "last kept", "first missed", "below 1", "above 1", "lowest")
        + tuple(f"status {status}" for status in Status if status != "ok")
        for number in range(20)
    ]
    names = {f"{number} " + "x" * 300: GroupCounts(9, 8, 7) for number in range(1000)}
    survey = Survey(**vars(large) | {"groups": names})
    summary = Summary(survey, "source", tuple(rows))
    assert len(summary.to_json()) < 5e6
    text = render_page(manifest_with(survey, int(large.ok.sum())), summary)
    assert len(text.encode()) < 2e6
    assert "and 960 more values" in text
    assert "more characters" in text


def test_a_page_says_what_was_kept_and_where_other_fractions_would_cut() -> None:
    survey = survey_of(
        make_scores(1000, 1), 3, {"code": GroupCounts(600, 500, 50), "b": GroupCounts(4, 1, 0)}
    )
    rows = (shown("last kept", "Why?"), shown("first missed", "What?", is_kept=False))
    manifest = manifest_with(survey, 1000)
    text = render_page(manifest, Summary(survey, "source", rows))
    words = html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text)))
    ifd = np.sort(make_scores(1000, 1).ifd[make_scores(1000, 1).eligible])[::-1]
    for fraction in (1, 10, 30):
        assert f"{fraction} % {fraction * 10} {ifd[fraction * 10 - 1] - 1 / 8192:.3f}"[:-1] in words
    assert "code 600 500 50 8.3%" in words
    assert "The last ones that are kept Just above the cut-off. 0.8125 kept row 1 of" in words
    assert "answers that the window cut 3" in words
    assert "sf-ray run in out --model m --keep-fraction 0.1" in words


def test_a_page_with_quotas_has_a_cut_off_for_each() -> None:
    survey = survey_of(
        make_scores(100, 1), 0, {"a": GroupCounts(60, 50, 9), "b": GroupCounts(40, 30, 0)}
    )
    cutoff = {"ifd": 0.4321, "shard": "a", "row": 1}
    groups = {"a": {"kept": 9, "cutoff": cutoff}, "b": {"kept": 0, "cutoff": None}}
    manifest = manifest_with(survey, 100, groups=groups, cutoff=None, keep_fraction=None)
    text = render_page(manifest, Summary(survey, "source", ()))
    assert "0.4321" in text
    assert "by IFD alone, without the quota" in " ".join(text.split())


def test_every_status_has_a_meaning() -> None:
    assert {*_MEANING} == {*Status}


def test_the_card_is_one_that_hubs_read() -> None:
    survey = survey_of(make_scores(1000, 1), 0, None)
    manifest = manifest_with(survey, 1000)
    paths = ("a.parquet", "b/c.jsonl.gz", "d.v2.jsonl")
    manifest["output"]["shards"] = [{"path": path} for path in paths]
    head, body = render_card(manifest).removeprefix("---\n").split("---\n", 1)
    said = yaml.safe_load(head)
    assert said["size_categories"] == ["n<1K"]
    assert said["configs"][0]["data_files"] == [
        "data/**/*.jsonl",
        "data/**/*.jsonl.gz",
        "data/**/*.parquet",
    ]
    assert MARK in body
    assert "| kept |" in body


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """Alpaca rows with a `source`; markup, and a row of a megabyte."""
    rows = [row | {"output": row["output"] or "so"} for row in make_rows(300)]
    rows[13]["instruction"] = "why"
    rows[3]["instruction"] = rows[4]["output"] = MARKUP
    rows[20]["output"] = "word " * 200_000
    folder = write_shards(tmp_path / "corpus", rows)
    for number, path in enumerate(sorted(folder.rglob("*.parquet"))):
        table = pq.read_table(path)
        source = [f"{MARKUP[:30]}{(number + at) % 3}" for at in range(table.num_rows)]
        pq.write_table(table.append_column("source", pa.array(source)), path)
    return folder


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_a_run_leaves_a_report_that_agrees_with_its_scores(
    planted: Path,
    tmp_path: Path,
    tiny_model: Path,
    free_scorer: Callable[..., None],
    sf_ray_cli: Cli,
) -> None:
    free_scorer(on_poison="raise")
    out = tmp_path / "out"
    common = ("--model", tiny_model, "--max-length", 128)
    code, _, err = sf_ray_cli("run", planted, out, *common, "--keep-fraction", 0.2)
    assert code == 0, err
    scores = ds.dataset(out / "scores", format="parquet", exclude_invalid_files=True).to_table()
    summary = Summary.from_json((out / "summary.json").read_bytes(), "")
    manifest = json.loads((out / "manifest.json").read_text())
    assert summary.survey.ok.sum() == scores.num_rows == 300
    assert summary.survey.kept.sum() == manifest["selection"]["kept_rows"] == 60
    assert summary.column == "source"
    groups = summary.survey.groups
    assert groups is not None
    assert sorted(groups) == [f"{MARKUP[:30]}{n}" for n in range(3)]
    assert sum(group.kept for group in groups.values()) == 60
    cutoff = manifest["selection"]["cutoff"]["ifd"]
    by_place = {(s["shard"], s["row"]): s["ifd"] for s in scores.to_pylist()}
    for row in summary.rows:
        assert row.scores["ifd"] == by_place[row.shard, row.row]
        assert row.is_kept == (row.scores["ifd"] >= cutoff)
    edge = [row.scores["ifd"] for row in summary.rows if "last kept" in row.kinds]
    assert min(edge) == cutoff
    best = max(by_place, key=lambda place: by_place[place])
    first = max(summary.rows, key=lambda row: row.scores["ifd"])
    assert (first.shard, first.row) == best
    source = ds.dataset(planted / best[0]).to_table().to_pylist()[best[1]]
    assert first.texts[1].text == source["output"][:1200]

    # Made again from what lies there, without corpus and scores.
    page = (out / "report.html").read_bytes()
    assert len(page) < 2e6
    shutil.rmtree(planted)
    shutil.rmtree(out / "scores")
    (out / "report.html").unlink()
    (out / "README.md").write_text("mine")
    code, printed, err = sf_ray_cli("report", out)
    assert code == 0
    assert str(out / "report.html") in printed
    assert (out / "report.html").read_bytes() == page
    assert (out / "README.md").read_text() == "mine"
    assert "is not of our writing, and stays as it is" in err

    code, printed, _ = sf_ray_cli("show", out, "--top", 2, "--around-cut", 1, "--status", "ok")
    assert code == 0
    assert "kept" in printed
    assert printed.count(", kept") == 3
    assert f"{cutoff:.6f}" in printed
    assert "\x1b[31m" not in printed
    code, _, err = sf_ray_cli("show", out, "--status", "no_prompt")
    assert (code, err) == (2, "error: --status no_prompt: no row has it; rows have ok\n")


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_quotas_copies_and_diversity_are_told_in_the_report(
    planted: Path,
    tmp_path: Path,
    tiny_model: Path,
    tiny_encoder: Path,
    free_scorer: Callable[..., None],
    sf_ray_cli: Cli,
) -> None:
    free_scorer(digests=True, embeds=True)
    out = tmp_path / "out"
    options = ("--model", tiny_model, "--max-length", 128, "--encoder", tiny_encoder)
    options += ("--keep-fraction", 0.5, "--drop-duplicates", "--diversify-to", 20)
    code, _, err = sf_ray_cli("run", planted, out, *options, "--report-by", "sauce")
    assert code == 2
    assert "--report-by: the corpus has no column 'sauce'; it has id," in err
    assert not out.exists()
    code, _, err = sf_ray_cli("run", planted, out, *options)
    assert code == 0, err
    summary = Summary.from_json((out / "summary.json").read_bytes(), "")
    assert summary.survey.kept.sum() == 20
    assert sum(row.is_kept for row in summary.rows) == 20
    text = (out / "report.html").read_text()
    assert "20 that best stand for all of them are kept" in " ".join(text.split())


def test_a_report_of_no_finished_run_says_what_to_do(tmp_path: Path, sf_ray_cli: Cli) -> None:
    code, _, err = sf_ray_cli("report", tmp_path)
    assert code == 1
    assert "no manifest.json there, so no finished run; an interrupted one goes on with" in err
    (tmp_path / "manifest.json").write_text('{"manifest_version": 1}')
    code, _, err = sf_ray_cli("report", tmp_path)
    assert code == 1
    assert "no summary.json there; remove manifest.json and run the same command again" in err
    (tmp_path / "manifest.json").write_text('{"manifest_version": 2}')
    for command in ("report", "show"):
        code, _, err = sf_ray_cli(command, tmp_path)
        assert code == 1
        assert "is not a manifest of this version of sf_ray" in err
