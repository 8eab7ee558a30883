"""The report: what the page says, and that nothing in a corpus can make it do anything else."""

import html
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from sf_ray.config.value_types import By
from sf_ray.corpus.status import Status
from sf_ray.output.manifest import Manifest
from sf_ray.output.report.page import render_page
from sf_ray.output.report.row_kinds import ScoreKind, StatusKind
from sf_ray.output.report.summary import Summary
from sf_ray.output.report.survey import GroupCounts, Survey, nothing, survey_of
from tests.support.manifests import CUTOFF, EXACT, group_keys, manifest_keys
from tests.support.surveys import MARKUP, make_lengths, make_rows, shown


def keys_with(survey: Survey, rows: int, **selection: Any) -> dict[str, Any]:
    """The keys of a manifest that agrees with a survey."""
    kept, ok = int(survey.kept.sum()), int(survey.ok.sum())
    return manifest_keys(rows, ok, kept, eligible_rows=int(survey.eligible.sum()), **selection)


def manifest_with(survey: Survey, rows: int, **selection: Any) -> Manifest:
    return Manifest.model_validate(keys_with(survey, rows, **selection))


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
        make_rows(500, 1), 0, {MARKUP: GroupCounts(400, 300, 20), "b": GroupCounts(3, 2, 1)}
    )
    keys = keys_with(survey, 500)
    keys["input"]["uri"] = keys["command"] = MARKUP
    keys["scores"]["model_name"] = MARKUP
    keys["scores"]["identity"]["columns"] = {MARKUP: MARKUP}
    keys["input"]["skipped_shards"] = [{"path": MARKUP, "reason": MARKUP}]
    manifest = Manifest.model_validate(keys)
    rows = [shown(ScoreKind.BEST, MARKUP, shard=MARKUP)]
    rows += [shown(StatusKind(Status.BAD_ROW), MARKUP, status="bad_row", reason=MARKUP, scores={})]
    path = tmp_path / "report.html"
    summary = Summary(survey, MARKUP, tuple(rows), answer_lengths=make_lengths(500, 1))
    path.write_text(render_page(manifest, summary), encoding="utf-8")
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
    survey = survey_of(make_rows(5000, 1), 0, None)
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
    survey = survey_of(make_rows(count, 1), 0, None) if count else nothing(False)
    summary = Summary(survey, "", (), answer_lengths=make_lengths(count, 1))
    return render_page(manifest_with(survey, count, **selection), summary)


def words_of(text: str) -> str:
    """The words of a page with one space between them."""
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text)))


@pytest.mark.parametrize("by", get_args(By))
@pytest.mark.parametrize("count", [0, 1, 2, 10_000])
def test_any_number_of_rows_renders(count: int, by: str) -> None:
    text = page_of(count, by=by)
    assert f"<b>{count:,}</b><span>rows in the corpus" in text
    assert text.count("<svg") == 5
    assert "None" not in text
    assert "nan" not in re.sub(r"base64,[^\"]+", "", text).lower().split()


def test_a_page_is_small_whatever_the_corpus_is() -> None:
    large = survey_of(make_rows(300_000, 1), 0, None)
    for _ in range(6):  # 19 million rows
        large = large + large
    rows = [
        shown(kind, "🎉<&\"'" * 250_000, row=number)
        for kind in [*ScoreKind, *(StatusKind(status) for status in Status if status != "ok")]
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
        make_rows(1000, 1), 3, {"code": GroupCounts(600, 500, 50), "b": GroupCounts(4, 1, 0)}
    )
    rows = (
        shown(ScoreKind.LAST_KEPT, "Why?"),
        shown(ScoreKind.FIRST_MISSED, "What?", is_kept=False),
    )
    manifest = manifest_with(survey, 1000)
    text = render_page(manifest, Summary(survey, "source", rows))
    words = words_of(text)
    ifd = np.sort(make_rows(1000, 1).ifd[make_rows(1000, 1).eligible])[::-1]
    for fraction in (1, 10, 30):
        assert f"{fraction} % {fraction * 10} {ifd[fraction * 10 - 1] - 1 / 8192:.3f}"[:-1] in words
    assert "code 600 500 50 8.3%" in words
    assert "The last ones that are kept Just above the cut-off. 0.8125 kept row 1 of" in words
    assert "answers that the window cut 3" in words
    assert "sf-ray run in out --model m --keep-fraction 0.1" in words


def test_a_page_says_what_was_scored_again() -> None:
    keys = keys_with(survey_of(make_rows(100, 1), 0, None), 100)
    keys["scores"] |= {"exact": EXACT}
    text = render_page(Manifest.model_validate(keys), Summary(nothing(with_groups=False), "", ()))
    words = " ".join(text.split())
    assert "370 rows near the cut-off or a bound were scored again in float32" in words
    assert "out/scores/mixed" in words


def test_a_page_says_what_was_left_out_for_what_it_says() -> None:
    files = [{"uri": f"/eval/{MARKUP}", "fingerprint": "f", "rows": 9}]
    shared = {"shard": MARKUP, "row": 3, "uri": f"/eval/{MARKUP}", "in_shard": MARKUP, "in_row": 7}
    near = {"threshold": 0.95, "by": "embedding", "compared_rows": 90, "dropped_rows": 12}
    near |= {"sampled_rows": 80, "sampled_near_rows": 11, "sampled_found_rows": 10}
    survey = survey_of(make_rows(100, 1), 0, None)
    manifest = manifest_with(
        survey,
        100,
        overlap_with=files,
        overlapping_rows=5,
        overlaps=[shared | {"words": f"{MARKUP} \u202e thirteen words"}],
        near_duplicates=near,
    )
    text = render_page(manifest, Summary(survey, "", ()))
    words = " ".join(text.split())
    assert "12 near copies of better rows were left out (a cosine of 0.95 or more)" in words
    assert "10 of the 11 near copies among 80 sampled rows were found" in words
    assert "5 rows share 13 words in a row with" in words
    assert "Shared with evaluation sets" in words
    assert MARKUP not in text
    assert html.escape(MARKUP, quote=False).split("&")[0] in text
    assert "\\u202e thirteen words" in text
    page = render_page(manifest_with(survey, 100), Summary(survey, "", ()))
    assert "evaluation sets" not in page


def test_a_page_with_quotas_has_a_cut_off_for_each() -> None:
    survey = survey_of(
        make_rows(100, 1), 0, {"a": GroupCounts(60, 50, 9), "b": GroupCounts(40, 30, 0)}
    )
    groups = {"a": group_keys(9, cutoff=CUTOFF | {"ifd": 0.4321}), "b": group_keys(0)}
    manifest = manifest_with(survey, 100, groups=groups, cutoff=None, keep_fraction=None)
    text = render_page(manifest, Summary(survey, "source", ()))
    assert "0.4321" in text
    assert "by IFD alone, without the quota" in " ".join(text.split())


def test_columns_of_text_that_no_score_depends_on_are_named() -> None:
    summary = Summary(nothing(False), "", (), ("title (text)", "tags (lists)"))
    page = render_page(manifest_with(summary.survey, 0), summary)
    assert "<dt>columns not used</dt><dd>title (text), tags (lists)</dd>" in page
    assert "columns not used" not in page_of(0)


def test_a_page_says_how_what_is_kept_depends_on_the_length_of_answers() -> None:
    words = words_of(page_of(10_000))
    assert "Length of answers IFD is not seen to depend on the length of the answer here" in words
    head = "answer tokens rows eligible kept of its rows"
    assert f"{head} length-normalised 1 to 107 964 749 306 31.7% 314 108 to 231 1,108 8" in words
    normalised = words_of(page_of(10_000, by="length-normalised"))
    assert f"{head} 1 to 107 964 749 306 31.7% 108 to 231 1,108 8" in normalised


def test_a_page_of_an_older_version_has_no_section_on_lengths() -> None:
    survey = survey_of(make_rows(100, 1), 0, None)
    assert "Length of answers" in page_of(100)
    page = render_page(manifest_with(survey, 100), Summary(survey, "", ()))
    assert "Length of answers" not in page


@pytest.mark.parametrize(
    ("selection", "sentence"),
    [
        ({}, "High values below 1 are kept: much is left to learn."),
        ({"by": "ifd-low"}, "Kept are the rows with the lowest IFD."),
        ({"by": "random", "rank_by": None}, "Kept are random rows."),
        ({"by": "longest", "rank_by": None}, "Kept are the rows with the longest answers."),
        ({"rank_by": "ppl-direct"}, "Kept are the rows with the highest perplexity of the answer "
                                    "alone."),
        ({"by": "length-normalised"}, "Kept are, of each length of answers, the rows with the "
                                      "highest IFD."),
        ({"by": "length-matched"}, "Kept are random rows whose answers are as long as those of the "
                                   "rows with the highest IFD."),
    ],
)  # fmt: skip
def test_a_page_says_which_rows_are_kept_and_offers_other_cut_offs_by_ifd_alone(
    selection: dict[str, Any], sentence: str
) -> None:
    text = page_of(1000, **selection)
    assert sentence in text
    is_by_ifd = selection in ({}, {"by": "length-normalised"})
    assert ("Other cut-offs" in text) == is_by_ifd
