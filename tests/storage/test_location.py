import pickle
from pathlib import Path

import pytest

from sf_ray.errors import SfRayError
from sf_ray.storage.files import read_bytes_or_none
from sf_ray.storage.listing import list_files
from sf_ray.storage.location import Location


def test_credentials_do_not_show() -> None:
    location = Location("s3://key:secret@bucket/path", {"secret": "hunter2"})
    assert location.public_uri == "s3://bucket/path"
    assert "hunter2" not in repr(location)


@pytest.mark.parametrize(
    "uri",
    [
        "hf://datasets/o/n@main/x",
        "hf://datasets/o/n@refs%2Fconvert%2Fparquet/a#b?c@d",
        "s3://bucket/a@b",
        "memory://[v1]/x@y",
        "https://host?ref=a@b",
        "a/local@path",
    ],
)
def test_an_at_sign_in_a_name_is_part_of_it(uri: str) -> None:
    assert Location(uri).public_uri == uri


def test_an_unknown_protocol_is_an_error() -> None:
    with pytest.raises(SfRayError, match="nosuch:///x: cannot be opened"):
        list_files(Location("nosuch:///x"))


@pytest.mark.s3
def test_a_missing_bucket_is_named(s3_options: dict[str, object]) -> None:
    with pytest.raises(SfRayError, match="s3://sf-ray-no-such-bucket: not found"):
        list_files(Location("s3://sf-ray-no-such-bucket", s3_options))


@pytest.mark.s3
def test_a_dead_endpoint_is_named() -> None:
    options: dict[str, object] = {"endpoint_url": "http://127.0.0.1:1", "key": "a", "secret": "b"}
    options["config_kwargs"] = {"retries": {"total_max_attempts": 1}}
    with pytest.raises(SfRayError, match="failed for 0.5 s .*check the endpoint, the network"):
        list_files(Location("s3://bucket/x", options, retry_s=0.5))


@pytest.mark.s3
def test_options_stay_as_they_were_given_and_one_file_system_serves_them(
    s3_options: dict[str, object],
) -> None:
    options = s3_options | {"config_kwargs": {"retries": {"max_attempts": 2}}}
    location = Location("s3://sf-ray-no-such-bucket/x", options)
    before = location.fs
    assert read_bytes_or_none(location) is None
    assert location.fs is before
    assert options["config_kwargs"] == {"retries": {"max_attempts": 2}}


def test_a_relative_path_means_the_same_in_a_process_with_another_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    sent = [pickle.dumps(Location(uri, retry_s=7)) for uri in ("out/scores", "s3://bucket/out")]
    monkeypatch.chdir("elsewhere")
    there, bucket = map(pickle.loads, sent)
    assert (there.path, there.retry_s) == (f"{tmp_path}/out/scores", 7)
    assert bucket == Location("s3://bucket/out", retry_s=7)
