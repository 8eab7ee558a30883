"""`sf-ray run --exact` on a real Ray: what float32 would keep, mostly without float32."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from bench.support.corpora import make_rows, write_shards
from sf_ray.commands.setup import Specs
from tests.support.cli import Cli
from tests.support.hash_scorer import HashEngineSpec

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]

ROWS = 600
OPTIONS = ("--max-length", "128", "--unit-rows", "64")
# A sample far smaller than the corpus, so that most rows are left to the fast type.
EXACT = ("--dtype", "bfloat16", "--exact", "--exact-sample", "40")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus of 600 rows, some of them without a score, and some copies."""
    folder = tmp_path_factory.mktemp("exact")
    rows = make_rows(ROWS)
    rows[100:130] = [dict(row) for row in rows[200:230]]
    write_shards(folder / "corpus", rows)
    return folder


@pytest.fixture
def hashes(sf_ray_cli: Cli) -> Cli:
    """A command line whose losses are hashes, with an error in fast types."""
    sf_ray_cli.specs = Specs(engine=HashEngineSpec)
    return sf_ray_cli


def run(cli: Cli, folder: Path, out: Path, model: Path, *options: object) -> dict[str, Any]:
    """Runs, with scores that all runs of this file share; returns the manifest."""
    scores = ("--scores", folder / "scores")
    code, _, stderr = cli(
        "run", folder / "corpus", out, "--model", model, *scores, *OPTIONS, *options
    )
    assert code == 0, stderr
    manifest: dict[str, Any] = json.loads((out / "manifest.json").read_text())
    return manifest


def kept(out: Path) -> list[str]:
    """The ids of the kept rows."""
    paths = sorted((out / "data").rglob("*.parquet"))
    return [row for path in paths for row in pq.read_table(path)["id"].to_pylist()]


@pytest.mark.parametrize(
    "what",
    [
        ["--keep-fraction", "0.05"],
        ["--keep-fraction", "0.3"],
        ["--keep-fraction", "0.15", "--min-answer-tokens", "9", "--order", "ifd"],
        ["--keep-fraction", "1", "--min-ifd", "0.6"],
        ["--keep-fraction", "0.2", "--drop-duplicates"],
    ],
    ids=lambda what: " ".join(what),
)
def test_the_kept_rows_are_those_of_float32(
    folder: Path, tmp_path: Path, tiny_model: Path, hashes: Cli, what: Sequence[str]
) -> None:
    truth = run(hashes, folder, tmp_path / "float32", tiny_model, *what)
    exact = run(hashes, folder, tmp_path / "exact", tiny_model, *what, *EXACT)
    assert kept(tmp_path / "exact") == kept(tmp_path / "float32")
    for key in ("kept_rows", "eligible_rows", "dropped_duplicates", "cutoff"):
        assert exact["selection"][key] == truth["selection"][key], key
    again = exact["scores"]["exact"]
    print(again)
    assert 40 < again["rescored_rows"] < ROWS / 2
