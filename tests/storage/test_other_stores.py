"""What Google's and Azure's stores must do as S3 does: files, versions, leases, outages, errors."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from sf_ray.errors import LeaseError, SfRayError
from sf_ray.storage.files import is_there, put_bytes, read_bytes, read_bytes_or_none, remove
from sf_ray.storage.lease.files import create_lease, exclusive_put, lease_age_s
from sf_ray.storage.lease.lease import lease
from sf_ray.storage.listing import list_files, list_input, version_of
from sf_ray.storage.location import Location
from tests.support.answers import Answers, google
from tests.support.gcs import Gcs


def test_files_and_their_versions_are_those_of_now(bucket: Location) -> None:
    place = bucket.join("a")
    for name in ("x/1", "x/2", "y"):
        put_bytes(place.join(name), name.encode())
    before = list_files(place)
    assert [file.relative for file in before] == ["x/1", "x/2", "y"]
    for file in before:
        assert version_of(place.call("info", file.path)) == file.version
    put_bytes(place.join("y"), b"other")
    put_bytes(place.join("z"), b"new")
    after = list_files(place)
    assert [old.version == new.version for old, new in zip(before, after, strict=False)] == [
        True, True, False,
    ]  # fmt: skip
    assert version_of(place.call("info", after[2].path)) == after[2].version
    assert [file.relative for file in list_input(bucket.join("a/*/1")).files] == ["x/1"]
    assert read_bytes(place.join("y")) == b"other"
    assert place.call("cat_file", after[2].path, start=1, end=3) == b"th"
    remove(place.join("y"))
    remove(place.join("y"))
    assert not is_there(place.join("y"))
    assert read_bytes_or_none(place.join("y")) is None


def test_of_many_exclusive_puts_one_is_made(
    bucket: Location, capsys: pytest.CaptureFixture[str]
) -> None:
    barrier = threading.Barrier(6)

    def put(number: int) -> bool:
        barrier.wait()
        return exclusive_put(bucket.join("one"), str(number).encode())

    with ThreadPoolExecutor(6) as threads:
        made = list(threads.map(put, range(6)))
    assert sum(made) == 1
    assert read_bytes(bucket.join("one")) == str(made.index(True)).encode()
    assert create_lease(bucket.join("other"), b"mine")
    assert not create_lease(bucket.join("other"), b"of another run")
    assert "no conditional writes" not in capsys.readouterr().err
    age_s = lease_age_s(bucket, list_files(bucket)[1])
    assert age_s is not None
    assert 0 <= age_s < 60


def test_a_place_has_one_writer(bucket: Location) -> None:
    words = "another run writes there"
    with lease(bucket), pytest.raises(LeaseError, match=words), lease(bucket):
        pass
    assert list_files(bucket.join("_lease")) == []


def test_a_store_that_ignores_the_condition_is_noticed(
    gcs: Gcs, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Gcs, "keeps_conditions", False)
    assert create_lease(Location("gs://bucket/ignored", gcs.options), b"mine")
    assert "this storage has no conditional writes" in capsys.readouterr().err


def test_a_store_that_is_gone_for_a_while_is_waited_for(gcs: Gcs) -> None:
    place = Location("gs://bucket/outage", gcs.options, retry_s=60)
    put_bytes(place, b"before")
    gcs.close()
    try:
        with pytest.raises(SfRayError, match="storage failed for 0.5 s .*the same command goes"):
            read_bytes(replace(place, retry_s=0.5))
        threading.Timer(1, gcs.start).start()
        assert read_bytes(place) == b"before"
    finally:
        if not gcs.is_running:
            gcs.start()


@pytest.mark.parametrize(
    ("status", "reason", "words"),
    [
        (400, "invalid", "the store refuses the request"),
        (401, "required", "credentials are missing or wrong .*GOOGLE_APPLICATION_CREDENTIALS"),
        (401, "authError", "credentials have expired"),
        (403, "forbidden", "access denied .*because.*GOOGLE_APPLICATION_CREDENTIALS"),
        (404, "notFound", "not found .*check the name, and that the bucket exists"),
        (429, "rateLimitExceeded", "storage failed for 1 s .*asks for fewer requests"),
        (500, "backendError", "storage failed for 1 s .*check the endpoint"),
        (503, "backendError", "storage failed for 1 s .*check the endpoint"),
    ],
)
def test_what_google_answers_is_said_and_repeated_only_where_that_helps(
    status: int, reason: str, words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    server = Answers()
    server.answers = [google(status, reason)]
    options = {"endpoint_url": server.endpoint, "token": "anon"}
    place = Location(f"gs://bucket-{reason}/x", options, retry_s=1)
    asks: list[Callable[[Location], object]] = [
        read_bytes, list_files, lambda place: exclusive_put(place, b"x")
    ]  # fmt: skip
    for ask in asks:
        before = server.requests
        with pytest.raises(SfRayError, match=f"^{place.uri}: .*{words}"):
            ask(place)
        # An exclusive put that a store refuses is looked at once more: the file may be there.
        assert server.requests - before <= 2 or "for 1 s" in words
    assert "Traceback" not in capfd.readouterr().err
    server.close()


@pytest.mark.azurite
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"AccountKey": "d3Jvbmc="}, "credentials .*AZURE_STORAGE_ACCOUNT_NAME"),
        ({"AccountName": "nobody"}, "credentials .*AZURE_STORAGE_ACCOUNT_NAME"),
        ({"AccountKey": "abc"}, "credentials are missing or wrong .*Incorrect padding"),
    ],
)
def test_wrong_keys_of_azure_are_said_at_once(
    azurite: str, change: dict[str, str], words: str
) -> None:
    parts = dict(part.split("=", 1) for part in azurite.strip(";").split(";")) | change
    text = ";".join(f"{name}={value}" for name, value in parts.items())
    place = Location("az://bucket/x", {"connection_string": text}, retry_s=60)
    for ask in (read_bytes, list_input, lambda place: put_bytes(place, b"x")):
        with pytest.raises(SfRayError, match=f"^az://bucket/x: .*{words}"):
            ask(place)


@pytest.mark.azurite
def test_a_container_that_is_not_there_is_not_an_empty_one(azurite: str) -> None:
    place = Location("az://no-such-container/x", {"connection_string": azurite})
    for ask in (list_input, read_bytes, lambda place: exclusive_put(place, b"x")):
        with pytest.raises(SfRayError, match="not found .*check the name, and that the bucket"):
            ask(place)
