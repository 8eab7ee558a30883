"""A path or URI -> what OpenLineage calls that dataset.

Equal names of different tools are one node of the graph, so the names are those that the spec of
OpenLineage gives: https://openlineage.io/docs/spec/naming/. No secrets come out, and nothing is
looked up.
"""

import re
from typing import NamedTuple

from sf_ray.text.redaction import public_uri

# abfss://container@account.dfs.core.windows.net/path: what looks like a user is the container.
_AZURE = re.compile(r"(?:abfss?|az)://(?P<container>[^@/:]+)@(?P<account>[^@/.:]+)(\.[^/]*)?")
# Spellings of one store, as fsspec and others know them -> that of the OpenLineage spec.
_SCHEMES = {"s3a": "s3", "s3n": "s3", "gcs": "gs", "abfs": "abfss"}


class DatasetName(NamedTuple):
    """What OpenLineage calls a dataset.

    Attributes:
        namespace: The store, e.g. "s3://bucket".
        name: The dataset in it, e.g. "corpus/alpaca".
    """

    namespace: str
    name: str


def dataset_of(uri: str, account: str = "") -> DatasetName:
    """The name of a path or URI as the OpenLineage spec forms it; without secrets.

    A glob is named by the folder that it begins in, and an archive's files by the archive.

    Args:
        uri: Absolute path, or a URI of any file system.
        account: Azure's storage account, for a URI that does not name it.
    """
    if "::" in uri and re.match(r"\w+://", uri):
        fronts, _, last = uri.rpartition("::")
        # Behind the last link of a chain a path or URI begins; else `::` is part of a name.
        uri = last if re.match(r"/|[\w+]+://", last) else f"{fronts}::{last}"
    if "://" not in uri:
        return DatasetName("file", _folder(uri.partition("://")[2] or uri))
    if azure := _AZURE.match(uri):
        namespace = f"abfss://{azure['container']}@{azure['account']}.dfs.core.windows.net"
        return DatasetName(namespace, _folder(uri[azure.end() :]).strip("/") or "/")
    scheme, _, rest = public_uri(uri).partition("://")
    store, _, path = rest.partition("/")
    if scheme in ("file", "local"):
        return DatasetName("file", _folder("/" + path))
    if scheme in ("abfs", "abfss", "az") and account:
        return DatasetName(f"abfss://{store}@{account}.dfs.core.windows.net", _name(path))
    if scheme in ("http", "https"):
        path = path.partition("?")[0]
    name = _name(path)
    # HDFS's names are absolute paths, those of object stores are keys.
    name = f"/{name}" if scheme == "hdfs" and name != "/" else name
    return DatasetName(f"{_SCHEMES.get(scheme, scheme)}://{store}", name)


def _name(path: str) -> str:
    return _folder(path).strip("/") or "/"


def _folder(path: str) -> str:
    """The path up to the first part with a wildcard."""
    parts = path.rstrip("/").split("/")
    fixed = next((i for i, part in enumerate(parts) if re.search(r"[*?\[]", part)), len(parts))
    return "/".join(parts[:fixed]) or "/"
