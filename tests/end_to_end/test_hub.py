"""The whole job on a corpus of the hub, with a scorer that costs nothing."""

import io
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from bench.support.corpora import make_rows
from tests.support.cli import Cli
from tests.support.hub import Hub


@pytest.mark.release
@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_a_revision_of_the_hub_is_a_corpus_and_its_next_one_has_scores_already(
    tmp_path: Path, tiny_model: Path, hub: Hub, sf_ray_cli: Cli, free_scorer: Callable[..., None]
) -> None:
    free_scorer()
    rows = make_rows(60)
    shards = {}
    for number in range(3):
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows[number * 20 : number * 20 + 20]), buffer)
        shards[f"data/{number}.parquet"] = buffer.getvalue()
    hub.put("datasets/o/n", {"README.md": b"# A data set", **shards}, "v/1")
    out = tmp_path / "out"

    def run(revision: str) -> tuple[int, str, str]:
        return sf_ray_cli(
            "run", f"hf://datasets/o/n@{revision}/data", out, "--model", tiny_model,
            "--scores", tmp_path / "scores", "--keep-count", "12", "--max-length", "128",
            "--unit-rows", "16",
        )  # fmt: skip

    code, _, stderr = run("v%2F1")
    assert code == 0, stderr
    kept = ds.dataset(out / "data").to_table().to_pylist()
    assert len(kept) == 12
    assert all({k: v for k, v in row.items() if k != "ifd"} in rows for row in kept)
    assert "hf://datasets/o/n@v%2F1/data" in (out / "manifest.json").read_text()

    # A file that is the same in another revision has scores; a changed one gets new ones.
    hub.put("datasets/o/n", shards | {"data/2.parquet": shards["data/1.parquet"]}, "v2")
    out = tmp_path / "out2"
    code, _, stderr = run("v2")
    assert code == 0, stderr
    assert "6 units, 4 have scores, 2 to score" in stderr


@pytest.mark.parametrize("command", ["run", "score"])
def test_nothing_is_written_to_the_hub(tmp_path: Path, sf_ray_cli: Cli, command: str) -> None:
    place = "hf://datasets/o/n@main/out"
    code, _, stderr = sf_ray_cli(
        command, tmp_path, place, "--model", tmp_path,
        *(["--keep-count", "1"] if command == "run" else []),
    )  # fmt: skip
    assert code == 2
    assert f"{place}: sf-ray reads from there, but cannot write" in stderr
