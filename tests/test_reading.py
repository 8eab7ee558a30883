"""What runs left behind, read from Python: a run of version 0.1.0, and sets written by hand."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import sf_ray
from sf_ray import SfRayError, read_output, read_scores
from sf_ray.corpus.units import Unit, units_of
from sf_ray.scoring.score_set import ScoreSet, mark_bad
from sf_ray.scoring.score_table import SCORE_SCHEMA
from sf_ray.storage.files import put_table
from sf_ray.storage.location import Location
from tests.support.score_sets import (
    ENCODING,
    keep_footers_of,
    random_rows,
    shard_of,
    table_of,
    write_set,
)

MADE = Path(__file__).parent / "data/version_0_1_0"
COLUMNS = ("shard", "row", "status", "ifd")


def set_of(place: Path, *shards: tuple[str, int], **changes: object) -> ScoreSet:
    """A set of four rows a piece, with the columns that tables written by hand have."""
    rows = {name: random_rows(count, seed) for seed, (name, count) in enumerate(shards)}
    score_set = write_set(Location(str(place)), {}, {}, **changes)
    for name, of_it in rows.items():
        shard = shard_of(name, len(of_it))
        for unit in units_of((len(of_it),), 4):
            where = score_set.pieces.join(shard.piece(unit))
            put_table(where, table_of(of_it, unit, name), ENCODING)
    return score_set


def test_every_library_gets_the_rows_of_all_pieces_in_the_order_of_the_corpus() -> None:
    scores = read_scores(MADE / "out/scores")
    pieces = sorted((MADE / "out/scores").glob("5213ff68072f/*.parquet"))
    expected = pa.concat_tables(pq.read_table(piece) for piece in pieces)
    assert len(scores) == expected.num_rows == 24
    assert scores.arrow().equals(expected.cast(SCORE_SCHEMA))
    assert pa.table(scores).equals(scores.arrow())  # type: ignore[call-overload]
    assert [batch.num_rows for batch in scores.batches()] == [6, 6, 6, 6]
    assert scores.polars().equals(polars.DataFrame(scores.arrow()))
    assert scores.pandas()["ifd"].count() == len(scores.arrow()["ifd"].drop_null())
    relation = scores.duckdb()
    for _ in range(2):  # a second query reads again
        assert relation.aggregate("count(ifd), max(row)").fetchall() == [
            (len(expected["ifd"].drop_null()), 11)
        ]


def test_the_output_of_a_run_leads_to_the_scores_that_it_was_selected_by(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(MADE)
    output = read_output("out")
    assert [Path(file).relative_to(MADE) for file in output.data_files] == [
        Path("out/data/00000.parquet"),
        Path("out/data/00001.parquet"),
    ]
    kept = sum(pq.read_metadata(file).num_rows for file in output.data_files)
    assert kept == output.manifest.selection.kept_rows
    assert output.scores(columns=["ifd"]).schema.names == ["ifd"]
    assert output.scores().scoring_id == output.manifest.scores.scoring_id
    assert f"<output with {kept:,} of 24 rows: {MADE}/out>" == repr(output)


def test_a_run_shows_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(MADE)
    output = read_output("out")
    html = output._repr_html_()
    last = output.manifest.selection.cutoff
    assert last is not None
    for words in (
        f"{output.manifest.selection.kept_rows:,} of 24 rows",
        f"IFD {last.ifd:.6f} (row {last.row} of {last.shard})",
        f"{MADE}/out/report.html",
        f"{MADE}/out/manifest.json",
        "<svg",
        "cut-off",
    ):
        assert words in html
    assert "<script" not in html


def test_a_table_says_what_it_is_and_reads_no_piece_for_it(tmp_path: Path) -> None:
    score_set = set_of(tmp_path, ("a.parquet", 10), model="<b>m</b>\u202e")
    scores = read_scores(tmp_path)
    for piece in Path(score_set.pieces.path).rglob("*.parquet"):
        piece.unlink()
    html = scores._repr_html_()
    assert "Scores of 10 rows" in html
    assert "&lt;b&gt;m&lt;/b&gt;\\u202e" in html
    assert repr(scores).startswith("<scores of 10 rows by model <b>m</b>\\u202e: ")


def test_only_the_current_version_of_a_shard_counts(tmp_path: Path) -> None:
    score_set = set_of(tmp_path, ("a.parquet", 10))
    new = shard_of("a.parquet", 3, "2")
    unit = Unit(0, 3)
    put_table(
        score_set.pieces.join(new.piece(unit)), table_of(random_rows(3, 9), unit, "x"), ENCODING
    )
    with pytest.raises(
        SfRayError, match=r"a\.parquet was scored in several versions.*score .*again"
    ):
        read_scores(tmp_path, columns=COLUMNS)
    keep_footers_of(score_set, new)
    assert read_scores(tmp_path, columns=COLUMNS).arrow()["shard"].to_pylist() == ["x"] * 3


def test_scores_that_are_not_complete_are_refused_and_read_when_asked(tmp_path: Path) -> None:
    score_set = set_of(tmp_path, ("a.parquet", 10))
    bad = shard_of("c.parquet", 5)
    keep_footers_of(score_set, shard_of("a.parquet", 10), shard_of("b.parquet", 5), bad)
    mark_bad(score_set.pieces, bad.stem, "cut off")
    with pytest.raises(SfRayError, match=r"without scores: 2; finish it .*sf-ray score.*partial="):
        read_scores(tmp_path)
    scores = read_scores(tmp_path, columns=COLUMNS, partial=True)
    assert (len(scores), scores.missing_units) == (10, 2)
    assert scores.arrow()["row"].to_pylist() == list(range(10))
    assert "<td" in scores._repr_html_()


def test_several_sets_are_listed(tmp_path: Path) -> None:
    one = set_of(tmp_path, ("a.parquet", 4), model="one")
    set_of(tmp_path, ("a.parquet", 4), model="two")
    with pytest.raises(
        SfRayError, match=r"several score sets; choose one with scoring_id:"
    ) as error:
        read_scores(tmp_path)
    assert "model one" in str(error.value)
    assert read_scores(tmp_path, scoring_id=one.scoring_id).model == "model one"


def test_errors_name_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(SfRayError, match="no scores there; make some with `sf-ray score`"):
        read_scores(tmp_path)
    with pytest.raises(SfRayError, match="no manifest.json there, so no finished run"):
        read_output(tmp_path)
    with pytest.raises(SfRayError, match="scores have no 'perplexity'; they have shard, row"):
        read_scores(tmp_path, columns=["perplexity"])
    set_of(tmp_path, ("a.parquet", 8))
    first, second = sorted(tmp_path.rglob("*.parquet"))
    first.write_bytes(second.read_bytes())
    with pytest.raises(SfRayError, match="does not hold the rows that its name says"):
        read_scores(tmp_path, columns=["ifd"]).arrow()


def test_scores_in_a_bucket_need_storage_options(place: Location) -> None:
    rows = {"a.parquet": random_rows(8, 0)}
    write_set(place, rows, {"a.parquet": [Unit(0, 4), Unit(4, 8)]})
    scores = read_scores(place.uri, columns=["ifd"], storage_options=place.storage_options)
    expected = [conditioned / direct for _, direct, conditioned in rows["a.parquet"]]
    assert np.allclose(scores.arrow()["ifd"].to_numpy(), expected)


def test_what_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sf_ray.runtime.libraries.find_spec", lambda name: None)
    for name in ("pandas", "polars", "duckdb"):
        with pytest.raises(SfRayError, match=rf"needs {name}, .* pip install 'sf_ray\[notebook\]'"):
            getattr(read_scores(MADE / "out/scores"), name)()


def test_reading_loads_neither_torch_nor_ray_nor_what_draws() -> None:
    code = (
        f"import sys, sf_ray; sf_ray.read_scores({str(MADE / 'out/scores')!r}).arrow();"
        "print({'torch', 'ray', 'matplotlib', 'polars', 'duckdb'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_names_of_the_package_are_those_that_it_promises() -> None:
    assert all(getattr(sf_ray, name) is not None for name in sf_ray.__all__)
    with pytest.raises(AttributeError, match="no attribute 'read_score'"):
        sf_ray.read_score  # noqa: B018
