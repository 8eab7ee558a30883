"""Storage options of fsspec in the words of the Rust library that Delta and Lance read with.

The library takes its own settings from the environment, as fsspec's clients do. Reads nothing.
"""

import os
from collections.abc import Mapping
from typing import Any


def object_store_options(uri: str, options: Mapping[str, Any]) -> dict[str, str]:
    """What the library must be told of a place.

    Args:
        uri: Path or URI of the place.
        options: fsspec options of it.
    """
    if not uri.startswith(("s3://", "s3a://")):
        return {}
    client = options.get("client_kwargs") or {}
    endpoint = (
        options.get("endpoint_url")
        or client.get("endpoint_url")
        or os.environ.get("AWS_ENDPOINT_URL_S3")
        or os.environ.get("AWS_ENDPOINT_URL")
    )
    known = {
        "aws_endpoint_url": endpoint,
        "aws_access_key_id": options.get("key"),
        "aws_secret_access_key": options.get("secret"),
        "aws_session_token": options.get("token"),
        "aws_region": client.get("region_name"),
        "aws_skip_signature": "true" if options.get("anon") else None,
        # Whoever names an endpoint without TLS means it.
        "allow_http": "true" if str(endpoint or "").startswith("http://") else None,
    }
    if not known["aws_region"] and not os.environ.get("AWS_REGION"):
        # The library asks the metadata service of a machine for it, which only Amazon's have.
        known["aws_region"] = os.environ.get("AWS_DEFAULT_REGION", "us-east-1")
    return {name: str(value) for name, value in known.items() if value}
