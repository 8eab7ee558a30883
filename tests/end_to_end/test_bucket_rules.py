"""Buckets that refuse requests without a certain header, as real ones may."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.support.corpora import make_rows, write_shards
from bench.support.proxy import Proxy
from sf_ray.storage.location import Location
from tests.support.cli import Cli
from tests.support.storage import S3

pytestmark = [
    pytest.mark.ray,
    pytest.mark.s3,
    pytest.mark.usefixtures("ray_session"),
]

PAYER = "x-amz-request-payer: requester"
ENCRYPTION = "x-amz-server-side-encryption: aws:kms"


@pytest.fixture
def strict(s3: S3) -> Iterator[str]:
    """Endpoint of a store where whoever asks for the corpus pays, and the rest is encrypted."""
    proxy = Proxy(str(s3.options["endpoint_url"]))

    def denies(method: str, path: str, query: str, headers: str) -> bool:
        if "/corpus" in path or "prefix=corpus" in query:
            return PAYER not in headers
        # A part of an upload is encrypted as the upload says that it begins.
        begins = (method == "PUT" and "partnumber" not in query.lower()) or query == "uploads"
        return begins and ENCRYPTION not in headers

    proxy.denies = denies
    yield proxy.endpoint
    proxy.close()


def test_a_run_pays_for_what_it_reads_and_asks_for_encryption_of_what_it_writes(
    strict: str,
    s3: S3,
    tmp_path: Path,
    tiny_model: Path,
    sf_ray_cli: Cli,
    free_scorer: Callable[..., None],
) -> None:
    free_scorer()
    direct = Location(s3.bucket, s3.options).fs
    bucket = s3.bucket.removeprefix("s3://")
    direct.put(
        f"{write_shards(tmp_path / 'corpus', make_rows(24))}/", f"{bucket}/corpus/", recursive=True
    )
    options = s3.options | {"endpoint_url": strict}
    pays = options | {"requester_pays": True}
    encrypts = options | {"s3_additional_kwargs": {"ServerSideEncryption": "aws:kms"}}
    command = [
        "run", f"{s3.bucket}/corpus", f"{s3.bucket}/out", "--model", tiny_model,
        "--keep-fraction", "0.5", "--export", "trl", "--max-length", "128",
        "--storage-retry-s", "1",
    ]  # fmt: skip
    for given, wanted, denied in ((encrypts, options, "corpus"), (options, pays, "out")):
        code, _, stderr = sf_ray_cli(
            *command, "--storage-options", json.dumps(given),
            "--input-storage-options", json.dumps(wanted),
        )  # fmt: skip
        assert code == 1
        last = stderr.splitlines()[-1]
        assert f"{s3.bucket}/{denied}" in last, stderr
        assert "denied" in last, stderr
    code, _, stderr = sf_ray_cli(
        *command, "--storage-options", json.dumps(encrypts),
        "--input-storage-options", json.dumps(pays),
    )  # fmt: skip
    assert code == 0, stderr
    written = [path for path in direct.find(f"{bucket}/out") if "/_lease/" not in path]
    assert any("/export/" in path for path in written)
    for path in written:
        key = path.removeprefix(f"{bucket}/")
        said = direct.call_s3("head_object", Bucket=bucket, Key=key)
        assert said["ServerSideEncryption"] == "aws:kms", path
