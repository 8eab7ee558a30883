"""What version 0.1.0 wrote is read unchanged, and a run over it finds nothing to do.

`tests/data/version_0_1_0/README.md` says what lies there and how it was made.
"""

import json
import os
import shlex
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from sf_ray.corpus.plan_cache import read_footers
from sf_ray.storage.location import Location
from tests.support.cli import Cli
from tests.support.storage import contents, copy_of

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]

MADE = Path(__file__).parents[1] / "data/version_0_1_0"
MODIFIED_S = 1_700_000_000  # a shard's id contains it, and Git does not keep it
SCORES = "out/scores/5213ff68072f"

RUN = shlex.split(
    "run corpus out --model model --max-length 256 --unit-rows 6 --keep-fraction 0.5 --export trl "
    "--max-bad-fraction 0.5 --device cpu"
)
SELECT = shlex.split(
    "select corpus out/scores diverse --keep-fraction 0.2 --diversify-to 3 --encoder encoder "
    "--max-bad-fraction 0.5 --device cpu"
)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what version 0.1.0 wrote, as the current directory."""
    copy_of(MADE, tmp_path)
    for shard in (tmp_path / "corpus").iterdir():
        os.utime(shard, (MODIFIED_S, MODIFIED_S))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def modified(folder: Path) -> dict[str, int]:
    """When each file of a folder was written; leases are taken and given back."""
    return {
        path.relative_to(folder).as_posix(): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and path.parent.name != "_lease"
    }


def manifest_of(output: Path) -> dict[str, Any]:
    """A manifest without what differs between two runs that do the same."""
    manifest: dict[str, Any] = json.loads((output / "manifest.json").read_text())
    for name in ("run_id", "finished", "wall_s", "sf_ray_version"):
        assert manifest.pop(name)
    for shard in manifest["output"]["shards"]:
        del shard["bytes"]  # what is written means the same, in other bytes
    # Newer than version 0.1.0: paths are absolute.
    made = f"{output.parent}/"
    manifest = json.loads(json.dumps(manifest).replace(made, ""))
    manifest["command"] = sorted(shlex.split(manifest["command"]))
    return manifest


def assert_same_tables(folder: Path, expected: Path) -> None:
    """The Parquet files of two folders have the same names and tables."""
    names = sorted(path.relative_to(expected) for path in expected.rglob("*.parquet"))
    assert names
    assert sorted(path.relative_to(folder) for path in folder.rglob("*.parquet")) == names
    for name in names:
        assert pq.read_table(folder / name).equals(pq.read_table(expected / name), True)


def nearly(row: dict[str, Any]) -> dict[str, Any]:
    """Equals the row, but for the last bits of its numbers, which differ between CPUs."""
    return {
        name: pytest.approx(value, rel=1e-6) if isinstance(value, float) else value
        for name, value in row.items()
    }


@pytest.mark.parametrize("command", [RUN, SELECT], ids=["run", "select"])
def test_a_finished_run_has_nothing_to_do(made: Path, sf_ray_cli: Cli, command: list[str]) -> None:
    before = modified(made)
    code, stdout, stderr = sf_ray_cli(*command)
    assert code == 0, stderr
    assert "nothing to do" in stderr
    assert "kept" in stdout
    assert modified(made) == before
    made_before = contents(MADE)
    assert made_before.keys() == before.keys()
    assert {name: data for name, data in contents(made).items() if name in before} == made_before


def test_units_that_have_scores_are_not_scored_again(made: Path, sf_ray_cli: Cli) -> None:
    shutil.rmtree(made / "out/data")
    shutil.rmtree(made / "out/export")
    (made / "out/manifest.json").unlink()
    before = modified(made / "out/scores")
    code, _, stderr = sf_ray_cli(*RUN)
    assert code == 0, stderr
    assert "4 units, 4 have scores, 0 to score" in stderr
    assert modified(made / "out/scores") == before
    assert_same_tables(made / "out/data", MADE / "out/data")
    export = contents(MADE / "out/export")
    assert export
    written = contents(made / "out/export")
    # Newer than version 0.1.0: a card that describes the columns.
    assert written.pop("trl/README.md").startswith(b"---\nconfigs:")
    assert written == export

    manifest, expected = manifest_of(made / "out"), manifest_of(MADE / "out")
    assert manifest["output"]["export"]["files"].pop()["path"] == "trl/README.md"
    assert manifest.pop("scores") == expected.pop("scores") | {
        "units": {"total": 4, "scored": 0, "reused": 4},
        "tokens": {"scored": 0, "saved": 0},
    }
    assert manifest == expected
    summary = json.loads((MADE / "out/summary.json").read_text())
    # Newer than version 0.1.0.
    summarised = json.loads((made / "out/summary.json").read_text())
    assert summarised.pop("answer_lengths")["correlated_rows"] == 21
    unused = {"unused_columns": ["id (text)", "source (text)"]}
    assert summarised == summary | unused


def test_rows_that_have_embeddings_are_not_embedded_again(made: Path, sf_ray_cli: Cli) -> None:
    shutil.rmtree(made / "diverse")
    before = modified(made / "out")
    code, _, stderr = sf_ray_cli(*SELECT)
    assert code == 0, stderr
    assert modified(made / "out") == before
    assert_same_tables(made / "diverse/data", MADE / "diverse/data")
    manifest, expected = manifest_of(made / "diverse"), manifest_of(MADE / "diverse")
    expected["selection"]["diversity"] = nearly(expected["selection"]["diversity"])
    assert manifest == expected


@pytest.mark.release
def test_a_new_run_writes_the_scores_of_the_old_one(made: Path, sf_ray_cli: Cli) -> None:
    shutil.move(made / "out", made / "old")
    code, _, stderr = sf_ray_cli("score", "corpus", "out/scores", *RUN[3:9], *RUN[-4:])
    assert code == 0, stderr
    scores, expected = made / SCORES, MADE / SCORES
    pieces = sorted(path.name for path in expected.glob("*.parquet"))
    assert sorted(path.name for path in scores.glob("*.parquet")) == pieces
    for name in pieces:
        table, old = pq.read_table(scores / name), pq.read_table(expected / name)
        assert table.schema.equals(old.schema, True)
        assert table.to_pylist() == [nearly(row) for row in old.to_pylist()]
    assert (scores / "identity.json").read_bytes() == (expected / "identity.json").read_bytes()
    sample = (MADE / "out/scores/_sample.json").read_bytes()
    assert (made / "out/scores/_sample.json").read_bytes() == sample
    footers = read_footers(Location(str(MADE / "out/scores")))
    assert len(footers) == 2
    assert read_footers(Location(str(made / "out/scores"))) == footers


def test_a_finished_run_is_shown(made: Path, sf_ray_cli: Cli) -> None:
    code, stdout, stderr = sf_ray_cli("show", "out", "--top", "2")
    assert code == 0, stderr
    assert "empty_answer" in stdout
    assert "IFD 0.975611  row 11 of 00001.parquet, kept" in stdout


def test_scores_are_compared_with_themselves(made: Path, sf_ray_cli: Cli) -> None:
    code, stdout, stderr = sf_ray_cli("compare", "out/scores", SCORES)
    assert code == 0, stderr
    assert "1.000" in stdout


def test_a_mark_of_a_bad_shard_is_read(made: Path, sf_ray_cli: Cli) -> None:
    mark = made / SCORES / "_bad/00001.4354095388ef.json"
    mark.parent.mkdir()
    mark.write_text('{"reason": "its row groups cannot be read"}')
    code, _, stderr = sf_ray_cli(
        *("select", "corpus", "out/scores", "left", "--keep-fraction", "1"),
        *("--max-bad-fraction", "0.5", "--on-bad-shard", "skip"),
    )
    assert code == 3, stderr
    manifest = json.loads((made / "left/manifest.json").read_text())
    assert manifest["input"]["skipped_shards"] == [
        {"path": "00001.parquet", "reason": "its row groups cannot be read"}
    ]
    assert [path.name for path in (made / "left/data").iterdir()] == ["00000.parquet"]
