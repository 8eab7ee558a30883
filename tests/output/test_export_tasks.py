"""What is kept, exported for training frameworks: whole runs, with a scorer that costs nothing."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.support.cli import Cli

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]


def exported(folder: Path) -> list[dict[str, Any]]:
    paths = sorted((folder / "data").glob("*.jsonl"))
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def test_what_is_kept_is_exported_and_another_export_takes_its_place(
    corpus: Path,
    tiny_model: Path,
    tmp_path: Path,
    sf_ray_cli: Cli,
    free_scorer: Callable[..., None],
) -> None:
    free_scorer()
    out = tmp_path / "out"
    command = ("run", corpus, out, "--model", tiny_model, "--keep-count", "40")
    command += ("--max-length", "64", "--device", "cpu")
    code, stdout, _ = sf_ray_cli(*command, "--export", "openai")
    assert code == 0
    assert f"export   {out}/export/openai" in stdout
    rows = exported(out / "export" / "openai")
    manifest = json.loads((out / "manifest.json").read_text())
    left_out = manifest["output"]["export"]["left_out_rows"]
    assert len(rows) + left_out == 40
    kept = [
        row
        for path in sorted((out / "data").rglob("*.parquet"))
        for row in pq.read_table(path).to_pylist()
    ]
    answers = {row["output"] for row in kept}
    assert {row["messages"][-1]["content"] for row in rows} <= answers
    assert all(row["messages"][0]["role"] == "user" for row in rows)

    code, stdout, stderr = sf_ray_cli(*command, "--export", "openai")
    assert code == 0
    assert "nothing to do" in stdout + stderr

    code, _, _ = sf_ray_cli(*command, "--export", "llama-factory")
    assert code == 0
    assert not list((out / "export" / "openai").rglob("*.jsonl"))
    folder = out / "export" / "llama-factory"
    info = json.loads((folder / "dataset_info.json").read_text())["sf_ray"]
    assert (folder / info["file_name"]).is_dir()
    assert {*info["columns"].values()} == {*exported(folder)[0]}

    (folder / "mine.txt").write_text("x")
    code, _, stderr = sf_ray_cli(*command, "--export", "trl")
    assert code == 1
    assert "mine.txt" in stderr
