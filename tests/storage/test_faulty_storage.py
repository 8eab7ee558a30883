"""Storage that throttles, resets, hangs and loses answers, over a real connection."""

import dataclasses
import gzip
import time
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.support.proxy import FAULTS, Proxy
from sf_ray.corpus.readers.shard import open_shard, read_footer
from sf_ray.errors import SfRayError
from sf_ray.storage.files import (
    is_there,
    put_bytes,
    put_whole,
    read_bytes,
    read_bytes_or_none,
    remove,
)
from sf_ray.storage.lease.lease import lease
from sf_ray.storage.listing import list_files
from sf_ray.storage.location import Location
from tests.support.storage import S3

pytestmark = pytest.mark.s3


@pytest.fixture
def proxy(s3: S3) -> Iterator[Proxy]:
    made = Proxy(str(s3.options["endpoint_url"]))
    yield made
    made.close()


@pytest.fixture
def place(s3: S3, proxy: Proxy) -> Location:
    """A place behind the proxy."""
    return Location(f"{s3.bucket}/place", s3.options | {"endpoint_url": proxy.endpoint}, 60)


@pytest.mark.parametrize("fault", FAULTS)
def test_every_request_is_made_again_until_it_succeeds(
    place: Location, proxy: Proxy, fault: str
) -> None:
    table = pa.table({"text": [f"some text of row {i}" for i in range(3000)]})
    proxy.faults = {fault: 0.3}
    for number in range(8):
        put_bytes(place.join(f"a/{number}"), b"x" * number * 1000)
    with put_whole(place.join("shard.parquet")) as path:
        pq.write_table(table, path, row_group_size=500)
    with put_whole(place.join("lines.jsonl.gz")) as path:
        path.write_bytes(gzip.compress(b'{"text": "some"}\n' * 3000))
    files = list_files(place)
    assert [file.size for file in files[:8]] == [number * 1000 for number in range(8)]
    assert [len(read_bytes(place.join(f"a/{number}"))) for number in range(8)] == [
        number * 1000 for number in range(8)
    ]
    assert read_bytes_or_none(place.join("none")) is None
    assert is_there(place.join("a/1"))
    for shard, wanted in ((files[-1], table), (files[-2], None)):
        assert sum(read_footer(place, shard).row_groups) == 3000
        with open_shard(place, shard) as reader:
            rows = pa.Table.from_batches(reader.batches(1000))
        assert rows.equals(wanted) if wanted else rows.num_rows == 3000
    remove(place.join("a/1"))
    assert not is_there(place.join("a/1"))
    assert proxy.broken[fault] > 3


def test_a_server_that_hangs_is_given_up_and_asked_again(s3: S3, proxy: Proxy) -> None:
    options = s3.options | {
        "endpoint_url": proxy.endpoint,
        "config_kwargs": {"read_timeout": 0.5, "retries": {"total_max_attempts": 1}},
    }
    place = Location(f"{s3.bucket}/place", options, 60)
    put_bytes(place.join("a"), b"data")
    proxy.faults = {"hang": 0.5}
    assert [read_bytes(place.join("a")) for _ in range(4)] == [b"data"] * 4
    assert proxy.broken["hang"]


@pytest.mark.release
@pytest.mark.slow
def test_a_listing_of_many_pages_is_whole(place: Location, s3: S3, proxy: Proxy) -> None:
    direct = dataclasses.replace(place, storage_options=s3.options)
    fs = direct.fs
    fs.pipe({f"{direct.path}/{i:05d}": b"x" for i in range(1100)})
    proxy.faults = {"reset": 0.1, "busy": 0.1, "half": 0.1}
    assert [file.relative for file in list_files(place)] == [f"{i:05d}" for i in range(1100)]


def test_a_store_that_stays_away_is_an_error_in_the_end(
    s3: S3, proxy: Proxy, capsys: pytest.CaptureFixture[str]
) -> None:
    retries = {"config_kwargs": {"retries": {"total_max_attempts": 2}}}
    options = s3.options | {"endpoint_url": proxy.endpoint} | retries
    place = Location(f"{s3.bucket}/place", options, 60)
    put_bytes(place.join("a"), b"data")
    proxy.faults = {"reset": 0.5, "busy": 0.5}
    start = time.monotonic()
    with pytest.raises(SfRayError, match="storage failed for 3 s .*the same command goes on"):
        read_bytes(dataclasses.replace(place, retry_s=3).join("a"))
    # The bound is one of trying again: the last try may be on its way when it is reached.
    assert time.monotonic() - start < 30
    with pytest.raises(SfRayError, match="storage failed"):
        put_bytes(dataclasses.replace(place, retry_s=0).join("b"), b"data")
    proxy.faults = {}
    assert read_bytes(place.join("a")) == b"data"
    assert not is_there(place.join("b"))


def test_what_will_not_pass_is_not_tried_again(place: Location, proxy: Proxy) -> None:
    before = proxy.requests.total()
    with pytest.raises(SfRayError, match="not found"):
        read_bytes(place.join("none"))
    assert proxy.requests.total() - before <= 2


def test_a_lease_whose_answer_is_lost_is_held_all_the_same(place: Location, proxy: Proxy) -> None:
    proxy.faults = {"lost": 0.5}
    for _ in range(4):
        with lease(place):
            pass
    assert proxy.broken["lost"]
    assert list_files(place.join("_lease")) == []
