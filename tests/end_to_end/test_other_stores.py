"""A whole run on Google's and Azure's stores."""

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from bench.support.proxy import Proxy
from sf_ray.storage.files import read_bytes
from sf_ray.storage.lease.lease import lease
from sf_ray.storage.listing import list_files
from sf_ray.storage.location import Location
from tests.support.cli import Cli


@pytest.fixture
def proxy(bucket: Location) -> Iterator[tuple[Proxy, Location]]:
    """A proxy before the store, and the bucket behind it."""
    options = dict(bucket.storage_options)
    if endpoint := options.get("endpoint_url"):
        made = Proxy(str(endpoint))
        options["endpoint_url"] = made.endpoint
    else:
        text = str(options["connection_string"])
        endpoint = dict(part.split("=", 1) for part in text.strip(";").split(";"))["BlobEndpoint"]
        made = Proxy(endpoint)
        host = "/".join(endpoint.split("/")[:3])
        options["connection_string"] = text.replace(host, made.endpoint)
    yield made, replace(bucket, storage_options=options)
    made.close()


def put_corpus(corpus: Path, bucket: Location) -> None:
    for shard in sorted(corpus.rglob("*.parquet")):
        name = bucket.join(f"in/{shard.relative_to(corpus).as_posix()}")
        name.call("put_file", str(shard), name.path)


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
    put_corpus(corpus, bucket)
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


@pytest.mark.release
@pytest.mark.ray
def test_a_place_has_one_run_which_waits_for_a_store_that_is_gone_and_goes_on_where_it_ended(
    ray_session: None,
    sf_ray_cli: Cli,
    free_scorer: Callable[..., None],
    tiny_model: Path,
    corpus: Path,
    bucket: Location,
    proxy: tuple[Proxy, Location],
) -> None:
    free_scorer(unit_s=0.2)
    put_corpus(corpus, bucket)
    broken, place = proxy
    scored = bucket.join("out/scores")
    command = [
        "run", f"{bucket.uri}/in", f"{bucket.uri}/out", "--model", tiny_model, "--max-length", 256,
        "--unit-rows", 8, "--keep-fraction", 0.5,
        "--storage-options", json.dumps(dict(place.storage_options)),
    ]  # fmt: skip

    def scored_pieces() -> int:
        return sum(file.path.endswith(".parquet") for file in list_files(scored))

    @contextmanager
    def breaks(pieces: int, lasts_s: float = 60) -> Iterator[None]:
        """Resets all connections once so many pieces of scores are there."""
        is_over = threading.Event()

        def outage() -> None:
            while scored_pieces() < pieces:
                if is_over.wait(0.05):
                    return
            broken.faults = {"reset": 1.0}
            is_over.wait(lasts_s)
            broken.faults = {}

        thread = threading.Thread(target=outage)
        thread.start()
        yield
        is_over.set()
        thread.join()

    with lease(bucket.join("out")):
        code, _, said = sf_ray_cli(*command)
    assert code == 1
    assert f"another run writes there: process {os.getpid()}" in said

    # Whoever may not ask is told so at once, and nothing is scored.
    broken.denies = lambda *_: True
    code, _, said = sf_ray_cli(*command)
    assert code == 1
    assert said.count("error: ") == 1
    assert "access denied" in said
    assert "trying again" not in said
    broken.denies = lambda *_: False
    assert list_files(bucket.join("out")) == []

    with breaks(pieces=1):
        code, _, said = sf_ray_cli(*command, "--storage-retry-s", 1)
    assert code == 1
    assert said.count("error: ") == 1
    assert "storage failed for 1 s" in said
    assert "the same command goes on where this one was" in said
    assert "Traceback" not in said

    # The store was gone when the run gave up its leases; they would end by themselves in a minute.
    for path in bucket.call("find", bucket.join("out").path):
        if "/_lease/" in path:
            bucket.call("rm_file", path)

    before = scored_pieces()
    with breaks(pieces=before + 1, lasts_s=3):
        code, _, said = sf_ray_cli(*command)
    assert code == 0, said
    assert "15 units, " in said
    assert "15 units, 0 have scores" not in said
    manifest = json.loads(read_bytes(bucket.join("out/manifest.json")))
    assert manifest["selection"]["kept_rows"] == 60
