"""Real tables, written by the libraries of their formats."""

import base64
import json
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import deltalake
import lance
import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.utils.config import Config
from pyroaring import BitMap

Rows = list[dict[str, Any]]
# What base 85 of Python and that of ZeroMQ, which Delta uses, have at the same places.
_PYTHON = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"
_ZEROMQ = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"


def set_catalog(patch: pytest.MonkeyPatch, name: str, **settings: str) -> None:
    """Describes a catalogue by the environment, as users do; pyiceberg reads that once."""
    for key, value in settings.items():
        # A point in a name is a double underline there, and a line a single one.
        variable = key.upper().replace(".", "__").replace("-", "_")
        patch.setenv(f"PYICEBERG_CATALOG__{name.upper()}__{variable}", value)
    patch.setattr("pyiceberg.catalog._ENV_CONFIG", Config())


@contextmanager
def catalog_at(folder: Path, warehouse: str, **properties: str) -> Iterator[Catalog]:
    """A catalogue `c` with a namespace `n`, which pyiceberg finds by its environment."""
    with pytest.MonkeyPatch.context() as patch:
        settings = {"type": "sql", "uri": f"sqlite:///{folder}/catalog.db", "warehouse": warehouse}
        set_catalog(patch, "c", **settings, **properties)
        catalog = load_catalog("c")
        catalog.create_namespace("n")
        yield catalog


class IcebergTable:
    """`n.t` in a catalogue."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self.name = "iceberg://c/n.t"

    def append(self, rows: Rows) -> None:
        table = pa.Table.from_pylist(rows)
        self._catalog.create_table_if_not_exists("n.t", table.schema).append(table)

    def delete(self, column: str, value: str) -> None:
        self._catalog.load_table("n.t").delete(f"{column} = '{value}'")

    def state(self) -> str:
        snapshot = self._catalog.load_table("n.t").current_snapshot()
        assert snapshot is not None
        return str(snapshot.snapshot_id)


class DeltaTable:
    """A Delta table in a folder."""

    def __init__(self, place: str, options: Mapping[str, str] | None = None) -> None:
        self._place, self._options = place, dict(options or {})
        self.name = f"delta://{place}"

    def append(self, rows: Rows) -> None:
        deltalake.write_deltalake(
            self._place,
            pa.Table.from_pylist(rows),
            mode="append",
            storage_options=self._options or None,
        )

    def delete(self, column: str, value: str) -> None:
        self._table().delete(f"{column} = '{value}'")

    def state(self) -> str:
        return str(self._table().version())

    def _table(self) -> deltalake.DeltaTable:
        return deltalake.DeltaTable(self._place, storage_options=self._options or None)


class LanceTable:
    """A Lance dataset in a folder."""

    def __init__(self, place: str, options: Mapping[str, str] | None = None) -> None:
        self._place, self._options = place, dict(options or {})
        self.name = f"lance://{place}"

    def append(self, rows: Rows) -> None:
        lance.write_dataset(
            pa.Table.from_pylist(rows),
            self._place,
            mode="append",
            storage_options=self._options or None,
        )

    def delete(self, column: str, value: str) -> None:
        self._dataset().delete(f"{column} = '{value}'")

    def state(self) -> str:
        return str(self._dataset().version)

    def _dataset(self) -> lance.LanceDataset:
        return lance.dataset(self._place, storage_options=self._options or None)


AnyTable = IcebergTable | DeltaTable | LanceTable
Maker = Callable[[Path], AnyTable]


def remove_by_vector(folder: Path, rows: list[int]) -> None:
    """Removes rows of the one file of a Delta table as Spark does: by a deletion vector.

    deltalake reads such vectors, and writes none.

    Args:
        folder: The table, of one version.
        rows: Numbers of the rows.
    """
    log = folder / "_delta_log"
    actions = [json.loads(line) for line in (log / f"{0:020d}.json").read_text().splitlines()]
    add = next(action["add"] for action in actions if "add" in action)
    bitmap = BitMap(rows).serialize()
    # A number that says what it is, the count of bitmaps, then each with its upper 32 bits.
    data = struct.pack("<iqi", 1681511377, 1, 0) + bitmap
    data += bytes(-len(data) % 4)
    vector = {
        "storageType": "i",
        "pathOrInlineDv": base64.b85encode(data)
        .decode()
        .translate(str.maketrans(_PYTHON, _ZEROMQ)),
        "sizeInBytes": len(data),
        "cardinality": len(rows),
    }
    protocol = {
        "minReaderVersion": 3,
        "minWriterVersion": 7,
        "readerFeatures": ["deletionVectors"],
        "writerFeatures": ["deletionVectors"],
    }
    remove = {"path": add["path"], "deletionTimestamp": 1, "dataChange": True}
    new = [
        {"protocol": protocol},
        {"remove": remove},
        {"add": add | {"deletionVector": vector, "dataChange": True}},
    ]
    (log / f"{1:020d}.json").write_text("\n".join(map(json.dumps, new)) + "\n")
