"""The whole job with `--commit-to`, with a scorer that costs nothing."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow.dataset as ds
import pytest
from deltalake import DeltaTable
from pyiceberg.catalog.sql import SqlCatalog

from sf_ray.output.commits.delta import DeltaTarget
from tests.support.cli import Cli


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_a_run_that_dies_before_its_commit_is_finished_without_scoring_or_writing_again(
    corpus: Path,
    tmp_path: Path,
    tiny_model: Path,
    sf_ray_cli: Cli,
    free_scorer: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log, out, table = tmp_path / "units.log", tmp_path / "out", tmp_path / "table"
    free_scorer(log=str(log))
    asked = (
        "run", corpus, out, "--model", tiny_model, "--max-length", "128", "--commit-to",
        f"delta://{table}", "--keep-count",
    )  # fmt: skip

    def dies(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(DeltaTarget, "commit", dies)
        code, _, stderr = sf_ray_cli(*asked, "12")
    assert code == 130, stderr
    assert (out / "manifest.json").exists()
    assert not DeltaTable.is_deltatable(str(table))
    units = log.read_text()
    written = {path: path.stat().st_mtime_ns for path in (out / "data").rglob("*")}

    code, stdout, stderr = sf_ray_cli(*asked, "12")
    assert code == 0, stderr
    assert f"committed  delta://{table}, version 0 (12 rows)" in stdout
    code, stdout, stderr = sf_ray_cli(*asked, "12")
    assert f"committed  delta://{table}, version 0 (12 rows, by an earlier run)" in stdout
    assert log.read_text() == units
    assert {path: path.stat().st_mtime_ns for path in (out / "data").rglob("*")} == written
    kept = ds.dataset(out / "data").to_table()
    there = DeltaTable(table).to_pyarrow_table()
    assert there.sort_by("instruction").to_pylist() == kept.sort_by("instruction").to_pylist()
    assert f"--commit-to delta://{table}" in (out / "manifest.json").read_text()

    code, stdout, stderr = sf_ray_cli(*asked, "5", "--commit-mode", "overwrite")
    assert "version 1 (5 rows)" in stdout
    assert pl.read_delta(str(table)).height == 5
    assert log.read_text() == units

    # The selection alone, into an Iceberg table.
    uri = f"sqlite:///{tmp_path}/cat.db"
    catalog = SqlCatalog("cat", uri=uri, warehouse=f"file://{tmp_path}/warehouse")
    catalog.create_namespace("kept")
    monkeypatch.setenv("PYICEBERG_CATALOG__CAT__URI", uri)
    monkeypatch.setenv("PYICEBERG_CATALOG__CAT__WAREHOUSE", f"file://{tmp_path}/warehouse")
    code, stdout, stderr = sf_ray_cli(
        "select", corpus, out / "scores", tmp_path / "out2", "--keep-count", "7", "--commit-to",
        "iceberg://cat/kept.rows",
    )  # fmt: skip
    assert code == 0, stderr
    assert catalog.load_table("kept.rows").scan().count() == 7
    assert "committed  iceberg://cat/kept.rows, snapshot " in stdout
    catalog.close()
