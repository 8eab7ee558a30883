"""A run leaves a report that agrees with its scores, and that can be made again."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from bench.support.corpora import make_rows, write_shards
from sf_ray.output.report.row_kinds import ScoreKind
from sf_ray.output.report.summary import Summary
from tests.support.cli import Cli
from tests.support.surveys import MARKUP


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
    sf_ray_cli.draws = True
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
    edge = [row.scores["ifd"] for row in summary.rows if ScoreKind.LAST_KEPT in row.kinds]
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


@pytest.mark.release
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
