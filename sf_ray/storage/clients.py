"""The client libraries of stores, told to remember nothing and to leave trying again to us.

Each of them caches listings, which other runs make wrong, and repeats requests in a way of its own:
under the retries of `Location.call` the numbers of tries would multiply, their pauses would use up
the time-out of an attempt, and the store's answer would be lost behind it. Knows no path.
"""

import logging
import os
import types
from collections.abc import Mapping
from typing import Any

import fsspec

_GOOGLE, _AZURE = ("gs", "gcs"), ("az", "abfs", "abfss", "adl")
_OPTIONS: dict[str, dict[str, Any]] = {
    "s3": {
        "use_listings_cache": False,
        # A read is one request: with more at once, s3fs requests the size of the file first.
        "max_concurrency": 1,
        # botocore repeats one page of a listing; `Location.call` could only repeat all of it.
        "config_kwargs": {"retries": {"mode": "standard", "max_attempts": 5}},
    },
    **{protocol: {"use_listings_cache": False} for protocol in (*_GOOGLE, *_AZURE)},
}
# What these log of a failure, with tracebacks, is in our error once more.
_TALKATIVE = ("aiobotocore", "azure", "botocore", "google")
_NOWHERE = logging.NullHandler()
# Variables from which s3fs takes credentials that no one renews while the process runs.
_FIXED_IN_ENVIRONMENT = ("AWS_SECRET_ACCESS_KEY", "AZURE_STORAGE_SAS_TOKEN")
_FIXED_IN_OPTIONS = ("key", "secret", "token", "sas_token", "account_key", "connection_string")


def client_options(protocol: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a file system, where the user's go before ours.

    Args:
        protocol: The first part of a URI, e.g. "s3".
        options: The user's storage options.
    """
    for name in _TALKATIVE:
        logging.getLogger(name).addHandler(_NOWHERE)  # again and again is once
    is_elsewhere = options.get("endpoint_url") or os.environ.get("STORAGE_EMULATOR_HOST")
    if protocol in _GOOGLE and is_elsewhere:
        # gcsfs reads this once, when it is imported. It would ask what kind of bucket this is by
        # gRPC, which only Google answers; others leave it waiting for a minute and a half.
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    return {**_OPTIONS.get(protocol, {}), **options}


def hides_missing_buckets(fs: fsspec.AbstractFileSystem) -> bool:
    """Whether a bucket that does not exist looks like an empty one in a listing."""
    return "abfs" in _protocols(fs)


def without_own_retries(fs: fsspec.AbstractFileSystem) -> None:
    """Makes a file system's client try each request once."""
    protocols = _protocols(fs)
    if "s3" in protocols:
        fs.retries = 1
    elif "gs" in protocols:
        for name in ("_request", "_get_file_request", "_get_file_concurrent"):
            method = getattr(type(fs), name, None)
            if once := getattr(method, "__wrapped__", None):
                setattr(fs, name, types.MethodType(once, fs))
    elif "abfs" in protocols:
        policy = getattr(getattr(fs.service_client, "_config", None), "retry_policy", None)
        if policy is not None:
            policy.total_retries = 0


def can_renew(options: Mapping[str, Any]) -> bool:
    """Whether expired credentials may be renewed by others: a file, a role, a login service."""
    fixed = any(options.get(name) for name in _FIXED_IN_OPTIONS)
    return not fixed and not any(os.environ.get(name) for name in _FIXED_IN_ENVIRONMENT)


def forget_credentials(fs: fsspec.AbstractFileSystem) -> None:
    """Makes fsspec create the next file system of this kind anew, which reads credentials again."""
    type(fs).clear_instance_cache()


def _protocols(fs: fsspec.AbstractFileSystem) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)
