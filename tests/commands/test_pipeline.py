import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.support.corpora import make_rows, write_shards
from bench.support.proxy import Proxy
from sf_ray.storage.location import Location
from tests.support.cli import Cli
from tests.support.storage import S3


@pytest.mark.s3
@pytest.mark.parametrize("part", ["out/_lease/", "out/data/", "out/export/"])
def test_a_run_that_may_not_delete_is_refused_before_it_scores(
    part: str, tmp_path: Path, s3: S3, tiny_model: Path, sf_ray_cli: Cli,
    free_scorer: Callable[..., None], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    free_scorer()
    # The run ends before it needs a cluster.
    monkeypatch.setattr("sf_ray.commands.setup.start_ray", lambda _: None)
    monkeypatch.setattr("sf_ray.commands.setup.resolve_device", lambda device: device)
    write_shards(tmp_path / "corpus", make_rows(4))
    proxy = Proxy(str(s3.options["endpoint_url"]))
    proxy.denies = lambda method, path, _: method == "DELETE" and part in path
    code, _, stderr = sf_ray_cli(
        "run", tmp_path / "corpus", f"{s3.bucket}/out", "--model", tiny_model, "--keep-count", "1",
        "--storage-options", json.dumps(s3.options | {"endpoint_url": proxy.endpoint}),
        "--storage-retry-s", "1", "--max-length", "128", "--device", "cpu", "--export", "trl",
    )  # fmt: skip
    proxy.close()
    assert code == 1
    assert f"s3:DeleteObject on {s3.bucket.removeprefix('s3://')}/{part}" in stderr.splitlines()[-1]
    assert "to score" not in stderr
    fs = Location(s3.bucket, s3.options).fs
    assert [path for path in fs.find(s3.bucket) if "/_lease/" not in path] == []
