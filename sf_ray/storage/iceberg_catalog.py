"""The catalogue of an Iceberg table, by pyiceberg and its own configuration.

Whoever reads a table and whoever commits to one ask here. Asks nothing of the catalogue itself.
"""

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sf_ray.errors import UsageError
from sf_ray.storage.table_names import TableName
from sf_ray.text.redaction import remember_secrets

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

# Properties of a catalogue whose values no text of ours may show.
_SECRET = re.compile(r"secret|token|credential|passw|key|sas|signature", re.IGNORECASE)


def catalog_of(table: TableName, options: Mapping[str, Any]) -> "Catalog":
    """The catalogue that a table is named in.

    Args:
        table: The table.
        options: fsspec options of its files, which go before what the configuration says of S3.

    Raises:
        UsageError: The configuration has no catalogue of that name.
    """
    from pyiceberg.catalog import load_catalog
    from pyiceberg.utils.config import Config

    name = table.catalog
    # Read now: pyiceberg itself reads its configuration once, when it is imported.
    config: dict[str, Any] | None = Config().get_catalog_config(name)
    if not config:
        raise UsageError(
            f"{table.public_name}: PyIceberg has no catalogue {name!r}; name it in "
            f".pyiceberg.yaml, or set PYICEBERG_CATALOG__{name.upper()}__URI"
        )
    secrets = {key: value for key, value in config.items() if _SECRET.search(key)}
    remember_secrets(str(config.get("uri", "")), secrets)
    catalog = load_catalog(name, **{**config, **_properties(options)})
    if endpoint := os.environ.get("AWS_ENDPOINT_URL"):  # of which Arrow knows nothing
        catalog.properties.setdefault("s3.endpoint", endpoint)
    return catalog


def options_of(properties: Mapping[str, Any]) -> dict[str, Any]:
    """What a catalogue gives out for the files of a table on S3, as fsspec's options.

    Args:
        properties: Of the table's storage.
    """
    known = {
        "endpoint_url": properties.get("s3.endpoint"),
        "key": properties.get("s3.access-key-id"),
        "secret": properties.get("s3.secret-access-key"),
        "token": properties.get("s3.session-token"),
    }
    options: dict[str, Any] = {name: value for name, value in known.items() if value}
    if region := properties.get("s3.region"):
        options["client_kwargs"] = {"region_name": region}
    return options


def _properties(options: Mapping[str, Any]) -> dict[str, str]:
    """The other way round: fsspec's options in the words of pyiceberg."""
    client = options.get("client_kwargs") or {}
    known = {
        "s3.endpoint": options.get("endpoint_url") or client.get("endpoint_url"),
        "s3.access-key-id": options.get("key"),
        "s3.secret-access-key": options.get("secret"),
        "s3.session-token": options.get("token"),
        "s3.region": client.get("region_name"),
    }
    return {name: str(value) for name, value in known.items() if value}
