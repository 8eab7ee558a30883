"""Storage options of fsspec -> those of Rust's object_store, by which Delta and Lance reach stores.

The two have different names for the same credentials. object_store reads the environment itself
(AWS_*, GOOGLE_*, AZURE_*), so only what `--storage-options` says has to be translated. Knows no
table format, and asks no store.
"""

import json
import os
from collections.abc import Mapping
from typing import Any

from sf_ray.errors import UsageError
from sf_ray.storage.location import whole_path
from sf_ray.text.redaction import public_uri, remember_secrets

# Options of s3fs, gcsfs and adlfs that say who asks and whom -> object_store's names.
_OF_S3 = {
    "key": "AWS_ACCESS_KEY_ID",
    "username": "AWS_ACCESS_KEY_ID",
    "secret": "AWS_SECRET_ACCESS_KEY",
    "password": "AWS_SECRET_ACCESS_KEY",
    "token": "AWS_SESSION_TOKEN",
    "endpoint_url": "AWS_ENDPOINT_URL",
    "anon": "AWS_SKIP_SIGNATURE",
    "requester_pays": "AWS_REQUEST_PAYER",
    # Of `client_kwargs`, where s3fs takes boto's own names.
    "region_name": "AWS_REGION",
    "aws_access_key_id": "AWS_ACCESS_KEY_ID",
    "aws_secret_access_key": "AWS_SECRET_ACCESS_KEY",
    "aws_session_token": "AWS_SESSION_TOKEN",
}
_OF_GOOGLE = {"token": "GOOGLE_APPLICATION_CREDENTIALS"}
_OF_AZURE = {
    "account_name": "AZURE_STORAGE_ACCOUNT_NAME",
    "account_key": "AZURE_STORAGE_ACCOUNT_KEY",
    "sas_token": "AZURE_STORAGE_SAS_TOKEN",
    "tenant_id": "AZURE_STORAGE_TENANT_ID",
    "client_id": "AZURE_STORAGE_CLIENT_ID",
    "client_secret": "AZURE_STORAGE_CLIENT_SECRET",
    "anon": "AZURE_SKIP_SIGNATURE",
}
_NAMES = {
    "s3": _OF_S3, "s3a": _OF_S3, "gs": _OF_GOOGLE, "gcs": _OF_GOOGLE, "az": _OF_AZURE,
    "abfs": _OF_AZURE, "abfss": _OF_AZURE, "adl": _OF_AZURE, "azure": _OF_AZURE,
}  # fmt: skip
# What decides who asks, or whom, in a way that object_store has no option for.
_WITHOUT_NAME = {"profile", "session", "credential", "connection_string"}
# Options of object_store's own, in any case, go through as they are.
_ITS_OWN = ("aws_", "google_", "azure_")
_ALSO_ITS_OWN = {"allow_http", "timeout", "connect_timeout", "proxy_url"}


def object_store_uri(uri: str) -> str:
    """A path or URI as object_store spells it: paths absolute, one name for each store."""
    whole = whole_path(uri)
    protocol, sign, rest = whole.partition("://")
    return f"gs://{rest}" if sign and protocol == "gcs" else whole


def object_store_options(uri: str, options: Mapping[str, Any]) -> dict[str, str]:
    """Translates storage options; the environment counts where they say nothing.

    Args:
        uri: The path or URI that is to be reached.
        options: The user's storage options, as fsspec takes them. What only tunes a client of
            fsspec's is left out.

    Raises:
        UsageError: An option decides who asks, and object_store has none like it.
    """
    remember_secrets(uri, options)
    protocol, sign, _ = whole_path(uri).partition("://")
    names = _NAMES.get(protocol)
    if not sign or names is None:
        return {}  # a disk, or a store that needs no options
    found: dict[str, str] = {}
    for name, value in {**options, **(options.get("client_kwargs") or {})}.items():
        if name in _WITHOUT_NAME and value is not None:
            raise UsageError(
                f"--storage-options: {name} is not known to the library that reads tables at "
                f"{public_uri(uri)}; give the keys themselves, there or in the environment"
            )
        # First: "aws_access_key_id" is boto's name as well as its own.
        if name in names and value is not None:
            found.update(_value(names[name], value))
        elif name.lower().startswith(_ITS_OWN) or name.lower() in _ALSO_ITS_OWN:
            found[name] = _as_text(value)
    return _of_endpoint(found) | found if names is _OF_S3 else found


def _value(name: str, value: object) -> dict[str, str]:
    """An option with its translated value."""
    if name != "GOOGLE_APPLICATION_CREDENTIALS":
        return {name: _as_text(value)}
    if value == "anon":
        return {"GOOGLE_SKIP_SIGNATURE": "true"}
    if isinstance(value, Mapping):  # the key itself, in place of its file
        return {"GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(value)}
    # Other words of gcsfs ("google_default", "cloud") name what the environment gives anyway.
    return {name: str(value)} if os.path.sep in str(value) else {}


def _of_endpoint(found: Mapping[str, str]) -> dict[str, str]:
    """What a server other than Amazon's needs: leave to speak plain HTTP, and any region."""
    endpoint = found.get("AWS_ENDPOINT_URL") or next(
        (os.environ[n] for n in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL") if os.environ.get(n)),
        "",
    )
    if not endpoint:
        return {}
    needed = {"AWS_ENDPOINT_URL": endpoint}
    if endpoint.startswith("http://") and not os.environ.get("AWS_ALLOW_HTTP"):
        needed["AWS_ALLOW_HTTP"] = "true"
    if not (os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")):
        # Servers that stand in for Amazon's take any region, but a signature must name one.
        needed["AWS_REGION"] = "us-east-1"
    return needed


def _as_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
