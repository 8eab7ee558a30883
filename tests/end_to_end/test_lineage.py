"""A whole run, and what it leaves and sends for whoever asks where data came from."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.support.corpora import make_rows, write_shards
from tests.support.cli import Cli
from tests.support.lineage import backend, problems

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]


def test_a_run_is_one_event_in_its_output_and_two_at_the_backend(
    tmp_path: Path,
    tiny_model: Path,
    sf_ray_cli: Cli,
    free_scorer: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    free_scorer()
    write_shards(tmp_path / "corpus", make_rows(60))
    out = tmp_path / "out"
    options = ["--model", tiny_model, "--keep-fraction", "0.2", "--max-length", "128"]
    command = ["run", tmp_path / "corpus", out, *options]
    (tmp_path / "taken/data").mkdir(parents=True)
    (tmp_path / "taken/data/precious.txt").touch()
    with backend() as got:
        # Not OPENLINEAGE_URL, which the library copies into variables that outlive the test.
        monkeypatch.setenv("OPENLINEAGE__TRANSPORT", json.dumps({"type": "http", "url": got.url}))
        monkeypatch.setenv("OPENLINEAGE_NAMESPACE", "team")
        assert sf_ray_cli(*command)[0] == 0
        assert got.states == ["START", "COMPLETE"]
        again = sf_ray_cli(*command)
        assert (again[0], len(got.events)) == (0, 2)  # nothing was done, and nothing is said of it
        refused = sf_ray_cli(*command, "--quota", "source=no:1")
        assert (refused[0], len(got.events)) == (2, 2)  # it never began
        taken = ["select", tmp_path / "corpus", out / "scores", tmp_path / "taken"]
        code, _, stderr = sf_ray_cli(*taken, "--keep-count", "9")
        assert (code, got.states[2:]) == (1, ["START", "FAIL"])
        message = got.events[3]["run"]["facets"]["errorMessage"]["message"]
        assert "holds 1 files that no finished or interrupted run wrote" in message
        assert message in stderr
        assert not (tmp_path / "taken/lineage.json").exists()
    event = json.loads((out / "lineage.json").read_text())
    manifest = json.loads((out / "manifest.json").read_text())
    assert problems(event) == []
    assert event["job"] == got.events[1]["job"]
    assert (event["job"]["namespace"], event["job"]["name"]) == ("team", f"sf-ray run {out}")
    (read,), (written,) = event["inputs"], event["outputs"]
    assert (read["name"], written["name"]) == (str(tmp_path / "corpus"), f"{out}/data")
    assert read["inputFacets"]["inputStatistics"]["rowCount"] == manifest["input"]["rows"] == 60
    counted = written["outputFacets"]["outputStatistics"]
    shards = manifest["output"]["shards"]
    assert counted["rowCount"] == manifest["selection"]["kept_rows"] == 12
    assert counted["fileCount"] == len(shards)
    assert counted["size"] == sum(file.stat().st_size for file in (out / "data").rglob("*.parquet"))
    names = [each["name"] for each in written["facets"]["schema"]["fields"]]
    assert names == [each["name"] for each in read["facets"]["schema"]["fields"]] + ["ifd"]
    tags = {tag["key"]: tag["value"] for tag in event["run"]["facets"]["tags"]["tags"]}
    assert tags == {
        "sf_ray_run_id": manifest["run_id"],
        "sf_ray_request_id": manifest["request_id"],
    }
