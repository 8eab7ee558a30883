"""Scores in the terminal, without a run."""

from pathlib import Path

import pyarrow as pa

from bench.support import free_scorer
from sf_ray.corpus.units import Unit
from sf_ray.scoring.score_set import describe, find_score_set, score_set_of
from sf_ray.scoring.score_table import SCORE_ENCODING
from sf_ray.storage.files import put_table
from sf_ray.storage.location import Location
from tests.support.cli import Cli
from tests.support.score_sets import keep_footers_of, shard_of


def put_scores(folder: Path, model: str, **more: object) -> str:
    """Scores of 300 rows in three pieces; returns their id."""
    identity = {"model": model, "dtype": "float32", "alignment": "reference", "max_length": 9}
    score_set = score_set_of(Location(str(folder)), identity | more)
    describe(score_set, model)
    for shard in range(3):
        name = f"a/{shard}.parquet"
        table = free_scorer.free_scores(name, 0, 100, pa.chunked_array([[5] * 100]))
        piece = score_set.pieces.join(shard_of(name, 100).piece(Unit(0, 100)))
        put_table(piece, table, SCORE_ENCODING)
    return score_set.scoring_id


def test_scores_are_counted_and_the_best_below_1_are_named(tmp_path: Path, sf_ray_cli: Cli) -> None:
    scoring_id = put_scores(tmp_path / "scores", "m")
    code, out, err = sf_ray_cli("show", tmp_path / "scores", "--top", 3, "--status", "ok")
    assert (code, err) == (0, "")
    assert scoring_id in out
    assert "300 rows in 3 pieces" in out
    assert " ".join(out.split()).count("ok 300") == 1
    tables = [free_scorer.free_scores(f"a/{n}.parquet", 0, 100, pa.chunked_array([[5] * 100]))
              for n in range(3)]  # fmt: skip
    rows = pa.concat_tables(tables).sort_by([("ifd", "descending")]).slice(0, 3).to_pylist()
    places = [f"IFD {row['ifd']:.6f}  row {row['row']} of {row['shard']}" for row in rows]
    assert "\n".join(places) in out
    assert "IFD" in out.split("status ok")[1]


def test_scores_of_a_shard_that_changed_since_are_not_counted(
    tmp_path: Path, sf_ray_cli: Cli
) -> None:
    scoring_id = put_scores(tmp_path / "scores", "m", unit_rows=100)
    location = Location(str(tmp_path / "scores"))
    changed = shard_of("a/0.parquet", 50, "2")
    table = free_scorer.free_scores("a/0.parquet", 0, 50, pa.chunked_array([[5] * 50]))
    put_table(location.join(f"{scoring_id}/{changed.piece(Unit(0, 50))}"), table, SCORE_ENCODING)
    others = [shard_of(f"a/{number}.parquet", 100) for number in (1, 2)]
    keep_footers_of(find_score_set(location, scoring_id), changed, *others)
    code, out, _ = sf_ray_cli("show", tmp_path / "scores")
    assert code == 0
    assert "250 rows in 3 pieces" in out


def test_which_scores_and_what_they_cannot_tell(tmp_path: Path, sf_ray_cli: Cli) -> None:
    code, _, err = sf_ray_cli("show", tmp_path)
    assert code == 1
    assert "no scores there; make some with `sf-ray score`" in err
    assert "has no manifest.json: no finished run either" in err
    one = put_scores(tmp_path / "scores", "m")
    put_scores(tmp_path / "scores", "other")
    code, _, err = sf_ray_cli("show", tmp_path / "scores")
    assert code == 1
    assert "choose one with --scoring-id" in err
    code, _, _ = sf_ray_cli("show", tmp_path / "scores", "--scoring-id", one)
    assert code == 0
    code, _, err = sf_ray_cli("show", tmp_path / "scores", "--scoring-id", one, "--around-cut", 1)
    assert code == 2
    assert "--around-cut: scores have no cut-off; give the OUTPUT of a run" in err
    code, _, err = sf_ray_cli("show", tmp_path / "scores", "--top", 11)
    assert code == 2
    assert "--top: input should be less than or equal to 10 (got '11')" in err
