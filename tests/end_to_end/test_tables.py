"""Whole jobs over tables, with a scorer that costs nothing: what a night costs, what comes out."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest

from bench.support.corpora import make_rows
from bench.support.proxy import Proxy
from tests.support.cli import Cli
from tests.support.storage import S3
from tests.support.tables import AnyTable, DeltaTable, IcebergTable, LanceTable, catalog_at

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]

ROWS = make_rows(80)


def kept_of(out: Path) -> list[dict[str, Any]]:
    return ds.dataset(out / "data").to_table().to_pylist()


def ids(rows: list[dict[str, Any]]) -> set[str]:
    return {row["id"] for row in rows}


@pytest.mark.s3
def test_a_night_over_a_table_costs_the_files_that_are_new(
    tmp_path: Path,
    s3: S3,
    tiny_model: Path,
    sf_ray_cli: Cli,
    free_scorer: Callable[..., None],
) -> None:
    free_scorer()
    proxy = Proxy(str(s3.options["endpoint_url"]))
    options = s3.options | {"endpoint_url": proxy.endpoint}
    direct = {
        "s3.endpoint": str(s3.options["endpoint_url"]),
        "s3.access-key-id": str(s3.options["key"]),
        "s3.secret-access-key": str(s3.options["secret"]),
    }

    def command(name: str, place: object, *more: object, table: str = "iceberg://c/n.t") -> str:
        proxy.requests.clear()
        code, _, stderr = sf_ray_cli(
            name, table, place, "--model", tiny_model, "--max-length", 128, "--unit-rows", 16,
            "--input-storage-options", json.dumps(options), *more,
        )  # fmt: skip
        assert code == 0, stderr
        return stderr

    def read() -> set[str]:
        """The data files that were asked for."""
        return {path for _, path in proxy.requests if "/data/" in path}

    scores = tmp_path / "scores"
    with catalog_at(tmp_path, f"{s3.bucket}/warehouse", **direct) as catalog:
        table = IcebergTable(catalog)
        table.append(ROWS[:32])
        table.append(ROWS[32:48])
        first = table.state()
        assert "3 units, 0 have scores, 3 to score" in command("score", scores)
        old = read()
        assert len(old) == 2
        assert "3 units, 3 have scores, 0 to score" in command("score", scores)
        assert not read()

        table.append(ROWS[48:])
        assert "5 units, 3 have scores, 2 to score" in command("score", scores)
        (new,) = read() - old
        asked = {
            path: sum(proxy.requests[method, path] for method in ("GET", "HEAD")) for path in read()
        }
        # Of the others a few rows are looked at, to see whether the format is still the same.
        assert all(asked[path] <= 5 for path in old & read()), asked
        assert asked[new] > 5

        out = tmp_path / "out"
        said = command("run", out, "--scores", scores, "--keep-count", 30)
        assert "5 units, 5 have scores, 0 to score" in said
        kept = kept_of(out)
        assert len(kept) == 30
        by_id = {row["id"]: row for row in ROWS}
        assert all({k: v for k, v in row.items() if k != "ifd"} == by_id[row["id"]] for row in kept)
        manifest = json.loads((out / "manifest.json").read_text())
        assert manifest["input"]["uri"] == "iceberg://c/n.t"
        assert manifest["input"]["table"] == {"format": "iceberg", "snapshot": table.state()}
        assert manifest["input"]["rows"] == 80

        # The rows of an earlier state, of which all have scores.
        then = tmp_path / "then"
        travelled = f"iceberg://c/n.t@{first}"
        said = command("run", then, "--scores", scores, "--keep-fraction", 1, table=travelled)
        assert "3 units, 3 have scores, 0 to score" in said
        assert ids(kept_of(then)) <= ids(ROWS[:48])
    proxy.close()


@pytest.mark.release
@pytest.mark.parametrize("kind", [DeltaTable, LanceTable])
def test_what_comes_out_of_a_table_is_what_comes_out_of_its_rows(
    tmp_path: Path,
    tiny_model: Path,
    sf_ray_cli: Cli,
    free_scorer: Callable[..., None],
    kind: type[DeltaTable | LanceTable],
) -> None:
    free_scorer()
    table: AnyTable = kind(str(tmp_path / "table"))
    table.append(ROWS[:40])
    table.append(ROWS[40:])
    table.delete("id", "row-3")

    def run(out: str, *more: object) -> str:
        code, _, stderr = sf_ray_cli(
            "run", table.name, tmp_path / out, "--model", tiny_model, "--scores",
            tmp_path / "scores", "--max-length", 128, "--unit-rows", 16, "--keep-count", 20, *more,
        )  # fmt: skip
        assert code == 0, stderr
        return stderr

    run("out")
    kept = kept_of(tmp_path / "out")
    assert len(kept) == 20
    assert "row-3" not in ids(kept)
    run("best", "--order", "ifd", "--export", "alpaca")
    assert ids(kept_of(tmp_path / "best")) == ids(kept)
    table.append(make_rows(90)[80:])
    assert "1 to score" in run("more")


def test_a_column_that_was_dropped_stops_a_run_before_anything_is_scored(
    tmp_path: Path, tiny_model: Path, sf_ray_cli: Cli, free_scorer: Callable[..., None]
) -> None:
    free_scorer()
    with catalog_at(tmp_path, f"file://{tmp_path}/warehouse") as catalog:
        IcebergTable(catalog).append(ROWS)
        with catalog.load_table("n.t").update_schema() as update:
            update.delete_column("output")
        code, _, stderr = sf_ray_cli(
            "score", "iceberg://c/n.t", tmp_path / "scores", "--model", tiny_model
        )
    assert code == 1
    assert "columns that earlier states of the table had" in stderr
    assert "output" in stderr
    assert not (tmp_path / "scores").exists()


def test_nothing_is_written_among_the_files_of_a_table(
    tmp_path: Path, tiny_model: Path, sf_ray_cli: Cli
) -> None:
    table = DeltaTable(str(tmp_path / "table"))
    table.append(ROWS[:4])
    code, _, stderr = sf_ray_cli(
        "score", table.name, tmp_path / "table/scores", "--model", tiny_model
    )
    assert code == 2
    assert "lie inside each other" in stderr
