"""A process that is killed in the middle of a commit leaves none, and the next one makes it."""

import subprocess
import sys
from pathlib import Path

import pytest
from pyiceberg.catalog.sql import SqlCatalog

from sf_ray.output.commits.columns import common_schema
from sf_ray.output.commits.commit import KeptRows, target_of
from sf_ray.output.layout import Output
from sf_ray.storage.location import Location
from tests.support.outputs import kept_table, local_output

ROWS = kept_table(*[f"{number}" for number in range(1000)])
DIES = """
import os, signal, sys
from tests.output.commits.test_killed import KeptRows, commit

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

if sys.argv[1] == "iceberg":  # all is written, and the catalogue is about to be asked
    from pyiceberg.catalog.sql import SqlCatalog
    SqlCatalog.commit_table = die
else:
    batches = KeptRows.batches
    KeptRows.batches = lambda *given: (batch if n else die() for n, batch in enumerate(
        [*batches(*given)] * 2, -1
    ))
commit(sys.argv[2], sys.argv[3])
"""


def commit(name: str, out: str) -> bool:
    """Commits an output; whether that was new."""
    output = Output(Location(out))
    manifest = output.manifest()
    assert manifest is not None
    target = target_of(name, "append", {}, 1.0)
    kind = "iceberg" if name.startswith("iceberg") else "delta"
    target.check(common_schema(kind, [("a", ROWS.schema)]))
    return target.commit(KeptRows(output, manifest)).is_new


@pytest.mark.release
@pytest.mark.parametrize("kind", ["iceberg", "delta"])
def test_a_process_that_is_killed_in_a_commit_leaves_none(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    local_output(out, {"a.parquet": ROWS})
    uri, warehouse = f"sqlite:///{tmp_path}/cat.db", f"file://{tmp_path}/warehouse"
    monkeypatch.setenv("PYICEBERG_CATALOG__CAT__URI", uri)
    monkeypatch.setenv("PYICEBERG_CATALOG__CAT__WAREHOUSE", warehouse)
    catalog = SqlCatalog("cat", uri=uri, warehouse=warehouse)
    catalog.create_namespace("kept")
    name = "iceberg://cat/kept.rows" if kind == "iceberg" else f"delta://{tmp_path}/table"

    command = [sys.executable, "-c", DIES, kind, name, str(out)]
    killed = subprocess.run(command, check=False, capture_output=True)
    assert killed.returncode == -9, killed.stderr.decode()
    assert not catalog.table_exists("kept.rows")
    assert not (tmp_path / "table" / "_delta_log").exists()
    assert commit(name, str(out))
    assert not commit(name, str(out))
    if kind == "iceberg":
        table = catalog.load_table("kept.rows")
        assert table.scan().count() == 1000
        assert len(table.snapshots()) == 1
    catalog.close()
