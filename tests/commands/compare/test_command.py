from collections.abc import Callable
from pathlib import Path

import pytest

from sf_ray.storage.location import Location
from tests.support.cli import Cli
from tests.support.score_sets import keep_footers_of, random_rows, shard_of, whole, write_set


def test_the_command_prints_the_table(tmp_path: Path, sf_ray_cli: Cli) -> None:
    rows_a = {"x.parquet": random_rows(200, 1)}
    # Of B the first row has no score, and all the others have what A says.
    rows_b = {"x.parquet": [("bad_row", 1.0, 1.0), *rows_a["x.parquet"][1:]]}
    for model, rows in (("a", rows_a), ("b", rows_b)):
        score_set = write_set(Location(str(tmp_path / model)), rows, whole(rows), model=model)
        keep_footers_of(score_set, shard_of("x.parquet", 200))
    code, out, err = sf_ray_cli(
        "compare", tmp_path / "a", tmp_path / "b", "--at", "0.1,0.125,0.1", "--max-ifd", "0.8"
    )
    assert (code, err) == (0, "")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "model model a model b" in lines
    assert "rows with scores 200 200" in lines
    assert "ok on both 199 99.5%" in lines
    assert "A ok, B bad_row 1 0.5%" in lines
    assert "Spearman's rank correlation, 199 rows that are ok on both sides" in lines
    assert "IFD 1.000" in lines
    assert "The best rows with IFD below 0.8" in lines
    assert [line for line in lines if line.startswith(("10% 20 20 20", "12.5% 25 25 25"))]
    assert sum(line.startswith("10%") for line in lines) == 1
    assert "both say the same 1.000" in lines


def test_the_page_holds_all_that_it_needs_and_runs_nothing(tmp_path: Path, sf_ray_cli: Cli) -> None:
    rows = {"x.parquet": [*random_rows(30, 1), ("ok", 1.0, 3.0)]}
    where = Location(str(tmp_path / "scores"))
    name = "</title><script>alert(1)</script>"
    sets = [write_set(where, rows, whole(rows), model=model) for model in (name, "b")]
    page = tmp_path / "page.html"
    code, out, err = sf_ray_cli(
        "compare", where.uri, where.uri, "--page", page,
        "--scoring-id-a", sets[0].scoring_id, "--scoring-id-b", sets[1].scoring_id,
    )  # fmt: skip
    assert code == 0, err
    assert f"page {page}" in " ".join(out.split())
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "default-src 'none'" in text
    assert "<svg" in text
    assert "var(--ink)" in text
    assert not [link for link in ("src=", "url(http", "<link", "@import") if link in text]
    assert "rows that are ok on both sides" in text
    above = sum(conditioned / direct > 2 for _, direct, conditioned in rows["x.parquet"])
    assert f"Rows with an IFD above 2 stand at the edge: {above}." in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "SCORES_A is missing"),
        (("{empty}", "{scores}"), "empty: no scores there; make some with `sf-ray score`"),
        (("{scores}", "{scores}"), "several score sets; choose one with --scoring-id-a"),
        (("{one}", "{scores}"), "several score sets; choose one with --scoring-id-b"),
        (("{one}", "{one}", "--at", "2"), "--at: input should be less than or equal to 1"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    arguments: tuple[str, ...], words: str, tmp_path: Path, sf_ray_cli: Cli
) -> None:
    rows = {"x.parquet": random_rows(4, 0)}
    where = Location(str(tmp_path / "scores"))
    one, _ = (write_set(where, rows, whole(rows), model=model) for model in "ab")
    places = {"empty": tmp_path / "empty", "scores": where.uri, "one": one.pieces.public_uri}
    code, _, err = sf_ray_cli("compare", *(each.format(**places) for each in arguments))
    assert code in (1, 2)
    assert words in err
    assert "Traceback" not in err


@pytest.mark.release
@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_what_two_runs_leave_is_compared_and_a_lost_piece_is_missed(
    corpus: Path,
    tiny_model: Path,
    tmp_path: Path,
    sf_ray_cli: Cli,
    free_scorer: Callable[..., None],
) -> None:
    free_scorer()
    for name, unit_rows in (("a", "16"), ("b", "100")):
        code, _, err = sf_ray_cli(
            "score", corpus, tmp_path / name, "--model", tiny_model,
            "--max-length", "128", "--unit-rows", unit_rows,
        )  # fmt: skip
        assert code == 0, err
    code, out, err = sf_ray_cli("compare", tmp_path / "a", tmp_path / "b")
    assert (code, err) == (0, "note: unit_rows differs: 16 and 100\n")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "rows with scores 120 120" in lines
    assert "10% 12 12 12 12 1.000" in lines
    next((tmp_path / "b").rglob("00001.*.parquet")).unlink()
    code, out, err = sf_ray_cli("compare", tmp_path / "a", tmp_path / "b")
    assert (code, out) == (1, "")
    assert "units of its corpus without scores: 1" in err
    assert sf_ray_cli("compare", tmp_path / "a", tmp_path / "b", "--partial")[0] == 0
