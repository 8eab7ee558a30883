"""Names of tables: `iceberg://CATALOG/namespace.table@SNAPSHOT`, `delta://URI@VERSION`, `lance://`.

A name says where a table is found, not where its files lie. Reads nothing.
"""

import re
from dataclasses import dataclass
from typing import Literal

from sf_ray.errors import UsageError
from sf_ray.text.redaction import public_uri

_VERSION = re.compile(r"@(\d+)$")


@dataclass(frozen=True)
class TableName:
    """A table, and which state of it.

    Attributes:
        kind: The format of the table.
        catalog: Of Iceberg, the catalogue; else "".
        name: Of Iceberg, the namespace and the table in it, with dots between; else "".
        uri: Of Delta and Lance, path or URI of its folder; else "".
        ref: A snapshot id, branch or tag of Iceberg, or a version; None for the newest state.
    """

    kind: Literal["iceberg", "delta", "lance"]
    catalog: str = ""
    name: str = ""
    uri: str = ""
    ref: str | None = None

    def __str__(self) -> str:
        where = f"{self.catalog}/{self.name}" if self.kind == "iceberg" else public_uri(self.uri)
        return f"{self.kind}://{where}" + ("" if self.ref is None else f"@{self.ref}")


def parse_table(text: str) -> TableName | None:
    """The table that a text names; None where it is a path, or a URI of another kind.

    Raises:
        UsageError: It begins as a table's name does, and is none.
    """
    kind, mark, rest = text.partition("://")
    if not mark or kind not in ("iceberg", "delta", "lance"):
        return None
    if kind == "iceberg":
        catalog, slash, table = rest.partition("/")
        table, at, ref = table.partition("@")
        if not (catalog and slash) or "." not in table.strip(".") or (at and not ref):
            raise UsageError(
                f"{text}: an Iceberg table is named iceberg://CATALOG/NAMESPACE.TABLE, with "
                "@SNAPSHOT, @BRANCH or @TAG behind it for a state other than the newest"
            )
        return TableName("iceberg", catalog, table, ref=ref or None)
    version = _VERSION.search(rest)
    uri = rest[: version.start()] if version else rest
    if not uri:
        raise UsageError(f"{text}: the path or URI of the table is missing: {kind}://s3://...")
    number = version.group(1) if version else None
    return TableName("delta" if kind == "delta" else "lance", uri=uri, ref=number)
