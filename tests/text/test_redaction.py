from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sf_ray.text import redaction
from sf_ray.text.redaction import known_secrets, public_uri, redact, remember_secrets


@pytest.fixture(autouse=True)
def no_secrets_of_other_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_given", set())


@pytest.mark.parametrize(
    ("uri", "public"),
    [
        ("/data/a@b?c=d.jsonl", "/data/a@b?c=d.jsonl"),  # a local name
        ("s3://bucket/part-?.jsonl", "s3://bucket/part-?.jsonl"),  # a glob
        ("s3://bucket/year=?/x=1/a.jsonl", "s3://bucket/year=?/x=1/a.jsonl"),
        ("hf://datasets/o/n@v1/a.parquet", "hf://datasets/o/n@v1/a.parquet"),
        ("https://host:8080/a@v1.jsonl", "https://host:8080/a@v1.jsonl"),
        ("https://[::1]/a@v1.jsonl", "https://[::1]/a@v1.jsonl"),
        ("https://host/a?versionId=3", "https://host/a?versionId=3"),
        ("https://user:canary@host/a", "https://host/a"),
        ("https://canary@host/a@v1", "https://host/a@v1"),
        ("s3://AKIA:canary/ca+nary@bucket/a", "s3://bucket/a"),  # a slash that nobody escaped
        ("sftp://u:ca@nary@host/a", "sftp://host/a"),
        (
            "https://b.s3.amazonaws.com/a?X-Amz-Credential=canary&X-Amz-Signature=canary",
            "https://b.s3.amazonaws.com/a?X-Amz-Credential=***&X-Amz-Signature=***",
        ),
        (
            "https://a.blob.core.windows.net/c?se=canary&sp=r&sig=canary%2B#t=canary",
            "https://a.blob.core.windows.net/c?se=***&sp=***&sig=***#t=***",
        ),
        ("simplecache::http://user:canary@host/a", "simplecache::http://host/a"),
        (
            "zip://a.jsonl::simplecache::https://u:canary@h/b.zip?sig=canary",
            "zip://a.jsonl::simplecache::https://h/b.zip?sig=***",
        ),
        ("zip://a::s3://k:can/ary@b/c.zip::x", "zip://a::s3://b/c.zip::x"),
    ],
)
def test_a_public_uri_has_no_user_and_no_values_of_a_query(uri: str, public: str) -> None:
    assert public_uri(uri) == public
    assert public_uri(public) == public
    quoted = redact(f"Cannot connect ('{uri}') to <{uri}>")
    assert quoted == f"Cannot connect ('{public}') to <{public}>"


@pytest.mark.parametrize(
    "text",
    [
        "{'key': 'AKIA', 'secret': 'canary'}",
        '{"aws_secret_access_key": "canary with spaces", "n": 1}',
        "AccountName=a;AccountKey=canary==;EndpointSuffix=x",
        "SharedAccessSignature=canary",
        "secret: canary",
        "password = canary",
        "Authorization: Bearer canary",
        "headers: bearer canary.canary-canary",
        "Basic Y2FuYXJ5canary=",
        "x-amz-security-token: canary",
        "api_key='canary'",
    ],
)
def test_a_secret_is_known_by_the_name_before_it(text: str) -> None:
    shown = redact(text)
    assert "canary" not in shown
    assert "***" in shown
    assert redact(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "shard a.jsonl, line 3: not JSON; mend it, or go on with --on-bad-line skip",
        "HF_TOKEN must be, on every machine, a token that may read it",
        "check the credentials in the environment or --storage-options",
        "12 tokens: 4 of them in the prompt; max_length=4, token_budget=4096",
        "s3://bucket/key=4/a.jsonl: not found",
        "score: 3 of 9 rows",
    ],
)
def test_ordinary_lines_stay_as_they_are(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    ("name", "is_secret"),
    [
        ("AWS_SECRET_ACCESS_KEY", True),
        ("AWS_SESSION_TOKEN", True),
        ("HF_TOKEN", True),
        ("AZURE_STORAGE_KEY", True),
        ("AZURE_STORAGE_CONNECTION_STRING", True),
        ("AZURE_STORAGE_SAS_TOKEN", True),
        ("AZURE_CLIENT_SECRET", True),
        ("GOOGLE_API_KEY", True),
        ("RAY_AUTH_TOKEN", True),
        ("AWS_ACCESS_KEY_ID", False),
        ("AZURE_STORAGE_ACCOUNT_NAME", False),
        ("GOOGLE_CLOUD_PROJECT", False),
        ("GOOGLE_APPLICATION_CREDENTIALS", False),  # the path of a file
        ("AWS_WEB_IDENTITY_TOKEN_FILE", False),
        ("TOKENIZERS_PARALLELISM", False),
        ("PWD", False),
    ],
)
def test_secrets_of_the_environment_appear_in_no_text(
    name: str, is_secret: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "canary/42+")
    assert ("canary" in redact("a canary/42+ b, canary%2F42%2B c")) != is_secret


@pytest.mark.parametrize(
    "options",
    [
        {"secret": "canary"},
        {"client_kwargs": {"aws_session_token": "canary"}},
        {"headers": [("Authorization", "canary")]},
        {"anything": b"canary"},
    ],
)
def test_values_of_storage_options_appear_in_no_text(options: dict[str, Any]) -> None:
    remember_secrets(options=options)
    assert redact("said canary, and s3://b/canary") == "said ***, and s3://b/***"


def test_options_that_are_no_secrets_stay_readable() -> None:
    options = {"endpoint_url": "https://k:canary@store:9000", "anon": "true", "region": "eu-west-1"}
    remember_secrets(options=options)
    shown = redact("no answer of https://k:canary@store:9000 in eu-west-1")
    assert shown == "no answer of https://store:9000 in eu-west-1"


def test_a_password_of_a_uri_appears_in_no_other_text() -> None:
    remember_secrets(
        "zip://a::https://user:can%20ary@host/a?sig=ca%2Fnary&versionId=12345678&form=parquet"
    )
    shown = redact("login failed: can%20ary, ca/nary, ca%2Fnary, user, 12345678, parquet")
    assert shown == "login failed: ***, ***, ***, user, 12345678, parquet"


def test_a_long_secret_leaves_no_rest_behind_a_short_one() -> None:
    remember_secrets(options={"a": "canary", "b": "canary-and-more"})
    assert redact("canary-and-more") == "***"


@given(
    st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S"]), min_size=6),
    st.sampled_from(
        ["{}", "https://user:{}@host/a", "https://host/a?sig={}", "zip://a::b://k:{}@c"]
    ),
)
def test_no_secret_that_was_given_is_left(secret: str, form: str) -> None:
    redaction._given.clear()
    remember_secrets(options={"secret": secret})
    shown = redact("x " + form.format(secret) + " y")
    assert secret in {"***", *known_secrets()}
    assert secret not in shown.replace("***", "")


@pytest.mark.parametrize("word", ["x", "secret", "a://", "?a", "a=", "'", "bearer ", "@", "::"])
def test_a_text_of_any_length_takes_time_in_proportion(word: str) -> None:
    # Would one of the expressions begin anew at every character, this took hours.
    assert redact(word * 100_000)
