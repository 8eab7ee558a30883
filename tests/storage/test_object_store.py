"""Storage options of fsspec, as the libraries of tables want them."""

from typing import Any

import pytest

from sf_ray.errors import UsageError
from sf_ray.storage.object_store import object_store_options, object_store_uri


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION",
        "AWS_ALLOW_HTTP",
    ):  # fmt: skip
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("uri", "options", "expected"),
    [
        ("/d/t", {"key": "k"}, {}),
        ("s3://b/t", {}, {}),
        (
            "s3://b/t",
            {"key": "k", "secret": "s", "token": "t", "anon": False, "use_ssl": True},
            {
                "AWS_ACCESS_KEY_ID": "k",
                "AWS_SECRET_ACCESS_KEY": "s",
                "AWS_SESSION_TOKEN": "t",
                "AWS_SKIP_SIGNATURE": "false",
            },
        ),
        (
            "s3://b/t",
            {"endpoint_url": "http://h:1"},
            {
                "AWS_ENDPOINT_URL": "http://h:1",
                "AWS_ALLOW_HTTP": "true",
                "AWS_REGION": "us-east-1",
            },
        ),
        (
            "s3a://b/t",
            {"client_kwargs": {"endpoint_url": "https://h", "region_name": "eu-1"}},
            {"AWS_ENDPOINT_URL": "https://h", "AWS_REGION": "eu-1"},
        ),
        # Options of the library's own go through; fsspec ignores them.
        ("s3://b/t", {"AWS_CONDITIONAL_PUT": "etag"}, {"AWS_CONDITIONAL_PUT": "etag"}),
        ("gs://b/t", {"token": "anon"}, {"GOOGLE_SKIP_SIGNATURE": "true"}),
        ("gcs://b/t", {"token": "/k.json"}, {"GOOGLE_APPLICATION_CREDENTIALS": "/k.json"}),
        ("gs://b/t", {"token": {"type": "x"}}, {"GOOGLE_SERVICE_ACCOUNT_KEY": '{"type": "x"}'}),
        ("gs://b/t", {"token": "google_default"}, {}),
        (
            "abfss://c@a/t",
            {"account_name": "a", "account_key": "k"},
            {"AZURE_STORAGE_ACCOUNT_NAME": "a", "AZURE_STORAGE_ACCOUNT_KEY": "k"},
        ),
    ],
)
def test_options_are_translated(
    uri: str, options: dict[str, Any], expected: dict[str, str]
) -> None:
    assert object_store_options(uri, options) == expected


def test_an_endpoint_of_the_environment_may_speak_plain_http(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://h:2")
    monkeypatch.setenv("AWS_REGION", "eu-2")
    assert object_store_options("s3://b/t", {}) == {
        "AWS_ENDPOINT_URL": "http://h:2",
        "AWS_ALLOW_HTTP": "true",
    }


@pytest.mark.parametrize(
    ("uri", "option"), [("s3://b/t", "profile"), ("az://c/t", "connection_string")]
)
def test_who_asks_is_not_left_open(uri: str, option: str) -> None:
    with pytest.raises(UsageError, match=f"{option} is not known .* give the keys themselves"):
        object_store_options(uri, {option: "x"})


def test_stores_have_one_name_each_and_paths_are_absolute() -> None:
    assert object_store_uri("gcs://b/t") == "gs://b/t"
    assert object_store_uri("s3://b/t") == "s3://b/t"
    assert object_store_uri("t").endswith("/t")
    assert object_store_uri("file:///d/t") == "/d/t"
