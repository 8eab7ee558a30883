"""A whole run on Google's and Azure's stores."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from sf_ray.storage.files import read_bytes
from sf_ray.storage.listing import list_files
from sf_ray.storage.location import Location
from tests.support.cli import Cli


@pytest.mark.ray
def test_a_run_from_bucket_to_bucket_is_whole_and_is_not_done_twice(
    ray_session: None,
    sf_ray_cli: Cli,
    free_scorer: Callable[..., None],
    tiny_model: Path,
    corpus: Path,
    bucket: Location,
    tmp_path: Path,
) -> None:
    free_scorer()
    for shard in sorted(corpus.rglob("*.parquet")):
        name = bucket.join(f"in/{shard.relative_to(corpus).as_posix()}")
        name.call("put_file", str(shard), name.path)
    output = bucket.join("out")
    command = [
        "run", f"{bucket.uri}/in", f"{bucket.uri}/out", "--model", tiny_model, "--max-length", 256,
        "--keep-fraction", 0.5, "--storage-options", json.dumps(dict(bucket.storage_options)),
    ]  # fmt: skip
    code, _, said = sf_ray_cli(*command)
    assert code == 0, said
    assert "no conditional writes" not in said
    manifest = json.loads(read_bytes(output.join("manifest.json")))
    copies = list_files(output.join("data"))
    rows = 0
    for number, file in enumerate(copies):
        output.call("get_file", file.path, str(tmp_path / f"{number}.parquet"))
        rows += pq.read_metadata(tmp_path / f"{number}.parquet").num_rows
    assert rows == manifest["selection"]["kept_rows"] == 60
    assert list_files(output.join("_lease")) == []
    code, _, said = sf_ray_cli(*command)
    assert (code, "nothing to do" in said) == (0, True), said
