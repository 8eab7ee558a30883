"""The name of a table -> its parts: `iceberg://CATALOG/namespace.table`, `delta://URI`, `lance://URI`.

Names only: no library of a table format is loaded, and nothing is asked. What a part behind an `@`
means, a version to read or a branch to write to, is for the caller to say.
"""

import re
from dataclasses import dataclass, field, replace
from typing import Literal

from sf_ray.errors import UsageError
from sf_ray.storage.location import whole_path
from sf_ray.text.redaction import public_uri, remember_secrets

TableKind = Literal["iceberg", "delta", "lance"]
_KINDS: tuple[TableKind, ...] = ("iceberg", "delta", "lance")
# Only digits at the very end: an "@" also stands in URIs (container@account) and in file names.
_VERSION = re.compile(r"(?P<uri>.+)@(?P<version>[0-9]+)", re.DOTALL)


@dataclass(frozen=True)
class TableName:
    """A table, as it was asked for.

    Attributes:
        kind: The table's format.
        catalog: Iceberg: the catalogue's name in PyIceberg's configuration; else "".
        name: Iceberg: the table with all of its namespaces, e.g. "ns.table"; else "".
        uri: Delta and Lance: the path or URI of the table's folder; else "".
        ref: What stands behind the `@`: for Delta and Lance a version, for Iceberg a snapshot id or
            the name of a branch or tag. None where nothing does.
    """

    kind: TableKind
    catalog: str = ""
    name: str = ""
    uri: str = field(default="", repr=False)
    ref: str | None = None

    def __post_init__(self) -> None:
        remember_secrets(self.uri)

    @property
    def identifier(self) -> tuple[str, ...]:
        """Iceberg's namespaces, and the table's name last."""
        return tuple(self.name.split("."))

    @property
    def text(self) -> str:
        """The table as it was asked for; it may hold secrets."""
        return self._named(self.uri)

    @property
    def public_name(self) -> str:
        """The table as it was asked for, without secrets."""
        return self._named(public_uri(self.uri))

    def absolute(self) -> "TableName":
        """The same table, named by an absolute path where it is named by a path."""
        return replace(self, uri=whole_path(self.uri)) if self.uri else self

    def _named(self, uri: str) -> str:
        place = f"{self.catalog}/{self.name}" if self.kind == "iceberg" else uri
        if self.ref is not None:
            return f"{self.kind}://{place}@{self.ref}"
        # Else digits at the end of a path would be a version.
        is_path = self.kind != "iceberg" and _VERSION.fullmatch(uri)
        return f"{self.kind}://{place}" + ("/" if is_path else "")


def parse_table(text: str) -> TableName | None:
    """Takes the name of a table apart; None where the text names none, but a path or another URI.

    Args:
        text: For Delta and Lance everything behind the scheme is a path or URI, but for an `@` with
            digits at its end, which is a version. A slash behind the digits makes them a part of
            the path.

    Raises:
        UsageError: It begins as the name of a table and is none.
    """
    scheme, sign, rest = text.partition("://")
    kind = next((kind for kind in _KINDS if kind == scheme), None)
    if kind is None or not sign:
        return None
    if kind == "iceberg":
        return _iceberg(text, rest)
    uri, ref = rest, None
    if found := _VERSION.fullmatch(rest):
        uri, ref = found["uri"], found["version"]
    uri = uri.rstrip("/") or uri[:1]  # the root of a disk stays one
    if not uri or uri.endswith(":"):
        raise UsageError(
            f"{public_uri(text)}: no table is named; give {kind}://URI, e.g. "
            f"{kind}:///data/table or {kind}://s3://bucket/table"
        )
    return TableName(kind, uri=uri, ref=ref)


def _iceberg(text: str, rest: str) -> TableName:
    catalog, _, name = rest.partition("/")
    name, sign, ref = name.rpartition("@") if "@" in name else (name, "", "")
    parts = name.split(".")
    is_whole = len(parts) > 1 and all(parts) and "/" not in name and not (sign and not ref)
    if not catalog or not is_whole:
        raise UsageError(
            f"{public_uri(text)}: no name of an Iceberg table; give "
            "iceberg://CATALOG/namespace.table, and behind it @SNAPSHOT or @BRANCH if one is "
            "meant. CATALOG is a name in PyIceberg's configuration"
        )
    return TableName("iceberg", catalog, name, ref=ref if sign else None)
