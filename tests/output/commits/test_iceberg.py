"""Kept rows become snapshots of real Iceberg tables, whose catalogue is a SQLite file."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException

from sf_ray.errors import SfRayError, UsageError
from sf_ray.output.commits import iceberg
from sf_ray.output.commits.columns import common_schema
from sf_ray.output.commits.commit import Mode, Target, target_of
from sf_ray.storage.location import Location
from tests.support.outputs import kept_table, local_output, make_output
from tests.support.storage import S3

NAME = "iceberg://cat/kept.rows"
Rows = list[dict[str, Any]]


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A catalogue with the namespace `kept`, configured as users do it."""
    uri, warehouse = f"sqlite:///{tmp_path}/cat.db", f"file://{tmp_path}/warehouse"
    monkeypatch.setenv("PYICEBERG_CATALOG__CAT__URI", uri)
    monkeypatch.setenv("PYICEBERG_CATALOG__CAT__WAREHOUSE", warehouse)
    catalog = SqlCatalog("cat", uri=uri, warehouse=warehouse)
    catalog.create_namespace("kept")
    yield catalog
    catalog.close()


def checked(tables: list[pa.Table], mode: Mode = "append", name: str = NAME) -> Target:
    target = target_of(name, mode, {}, 1.0)
    target.check(common_schema("iceberg", [(str(i), t.schema) for i, t in enumerate(tables)]))
    return target


def rows_of(catalog: Any, branch: str = "main") -> Rows:
    table = catalog.load_table("kept.rows")
    scan = table.scan(snapshot_id=table.snapshot_by_name(branch).snapshot_id)
    return sorted(scan.to_arrow().to_pylist(), key=lambda row: row["text"])


def data_files(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "warehouse").rglob("sf-ray-*"))


def test_rows_of_all_shards_are_one_snapshot_of_a_new_table_and_other_engines_read_them(
    tmp_path: Path, catalog: Any
) -> None:
    shards = {
        "a.parquet": kept_table("a", "b", n=pa.array([1, 2], pa.int32())),
        "b/c.arrow": kept_table(
            "c", n=pa.array([2**40]), extra=pa.array(["x"]).dictionary_encode()
        ),
    }
    kept = local_output(tmp_path / "out", shards)
    target = checked(list(shards.values()))
    assert target.find(kept.request_id) is None
    done = target.commit(kept)

    table = catalog.load_table("kept.rows")
    (snapshot,) = table.snapshots()
    assert done.version == f"snapshot {snapshot.snapshot_id}"
    assert (done.name, done.rows, done.is_new) == (NAME, 3, True)
    assert snapshot.summary["sf-ray.request-id"] == kept.request_id
    expected = [
        {"text": "a", "n": 1, "ifd": 0.5, "extra": None},
        {"text": "b", "n": 2, "ifd": 0.51, "extra": None},
        {"text": "c", "n": 2**40, "ifd": 0.5, "extra": "x"},
    ]
    assert rows_of(catalog) == expected
    with warnings.catch_warnings():  # Polars would plan faster with a package that is not here
        warnings.simplefilter("ignore")
        assert pl.scan_iceberg(table).sort("text").collect().to_dicts() == expected
    scanned = table.scan().to_arrow()
    assert duckdb.sql("select count(*), sum(n) from scanned").fetchall() == [(3, 2**40 + 3)]
    assert scanned.num_rows == 3
    # The table's files are its own: a later run replaces those of OUTPUT.
    (task,) = table.scan().plan_files()
    assert task.file.file_path.startswith(table.location())


def test_the_same_request_is_one_commit_and_another_request_another(
    tmp_path: Path, catalog: Any
) -> None:
    first, second = kept_table("a"), kept_table("b")
    kept = local_output(tmp_path / "out", {"a.parquet": first})
    once = checked([first]).commit(kept)
    again = checked([first]).commit(kept)
    assert (again.version, again.rows, again.is_new) == (once.version, 1, False)
    assert checked([first]).find(kept.request_id) == again
    checked([second]).commit(local_output(tmp_path / "out2", {"b.parquet": second}, "request-2"))
    assert [row["text"] for row in rows_of(catalog)] == ["a", "b"]
    assert len(catalog.load_table("kept.rows").snapshots()) == 2


def test_an_overwrite_leaves_our_rows_alone_and_what_it_removed_may_be_committed_again(
    tmp_path: Path, catalog: Any
) -> None:
    a, b = kept_table("a"), kept_table("b")
    first = local_output(tmp_path / "1", {"a.parquet": a}, "request-1")
    second = local_output(tmp_path / "2", {"b.parquet": b}, "request-2")
    checked([a]).commit(first)
    # Rows that were appended are not yet all that there is.
    assert checked([a], "overwrite").find("request-1") is None
    checked([b], "overwrite").commit(second)
    assert [row["text"] for row in rows_of(catalog)] == ["b"]
    assert checked([b], "overwrite").find("request-2") is not None
    assert checked([b]).find("request-2") is not None
    assert checked([a]).find("request-1") is None
    checked([a], "overwrite").commit(first)
    assert [row["text"] for row in rows_of(catalog)] == ["a"]


def test_a_branch_begins_where_the_main_one_is_and_leaves_it_alone(
    tmp_path: Path, catalog: Any
) -> None:
    a, b, c = kept_table("a"), kept_table("b"), kept_table("c")
    checked([a]).commit(local_output(tmp_path / "1", {"a.parquet": a}, "request-1"))
    name = f"{NAME}@audit"
    checked([b], name=name).commit(local_output(tmp_path / "2", {"b.parquet": b}, "request-2"))
    assert [row["text"] for row in rows_of(catalog)] == ["a"]
    assert [row["text"] for row in rows_of(catalog, "audit")] == ["a", "b"]
    assert checked([b], name=name).find("request-2") is not None
    assert checked([b]).find("request-2") is None
    third = local_output(tmp_path / "3", {"c.parquet": c}, "request-3")
    checked([c], "overwrite", name).commit(third)
    assert [row["text"] for row in rows_of(catalog, "audit")] == ["c"]
    assert [row["text"] for row in rows_of(catalog)] == ["a"]


def test_new_columns_join_a_table_that_is_there_and_its_others_become_null(
    tmp_path: Path, catalog: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    catalog.create_table("kept.rows", pa.schema([("text", pa.string()), ("n", pa.int64())]))
    catalog.load_table("kept.rows").append(pa.table({"text": ["z"], "n": [9]}))
    ours = kept_table("a", empty=pa.nulls(1), extra=pa.array([[{"x": 1}]]))
    checked([ours]).commit(local_output(tmp_path / "out", {"a.parquet": ours}))
    said = capsys.readouterr().err
    assert f"{NAME} gets new columns: empty, extra, ifd" in said
    assert f"empty: null in every row, so text in {NAME}" in said
    assert rows_of(catalog) == [
        {"text": "a", "n": None, "empty": None, "extra": [{"x": 1}], "ifd": 0.5},
        {"text": "z", "n": 9, "empty": None, "extra": None, "ifd": None},
    ]


@pytest.mark.parametrize(
    "overtakes", ["append", pytest.param("new column", marks=pytest.mark.release)]
)
def test_an_append_that_others_overtook_goes_on_top(
    tmp_path: Path, catalog: Any, monkeypatch: pytest.MonkeyPatch, overtakes: str
) -> None:
    a = kept_table("a")
    checked([a]).commit(local_output(tmp_path / "1", {"a.parquet": a}, "request-1"))
    b = kept_table("b", extra=pa.array(["x"]))
    target = checked([b])

    def others() -> None:
        table = catalog.load_table("kept.rows")
        if overtakes == "append":
            table.append(kept_table("z"))
        else:
            with table.update_schema() as update:
                update.union_by_name(pa.schema([("other", pa.string())]))

    overtaken_by(monkeypatch, others)
    target.commit(local_output(tmp_path / "2", {"b.parquet": b}, "request-2"))
    expected = ["a", "b", "z"] if overtakes == "append" else ["a", "b"]
    assert [row["text"] for row in rows_of(catalog)] == expected
    assert [row["extra"] for row in rows_of(catalog)][1] == "x"
    assert len(data_files(tmp_path)) == 2


@pytest.mark.parametrize("was_empty", [True, False])
def test_an_overwrite_that_others_overtook_is_refused_and_the_next_one_goes_on(
    tmp_path: Path, catalog: Any, monkeypatch: pytest.MonkeyPatch, was_empty: bool
) -> None:
    a, b = kept_table("a"), kept_table("b")
    if was_empty:
        catalog.create_table("kept.rows", a.schema)
    else:
        checked([a]).commit(local_output(tmp_path / "1", {"a.parquet": a}, "request-1"))
    kept = local_output(tmp_path / "2", {"b.parquet": b}, "request-2")
    files = len(data_files(tmp_path))
    # Between the check and the commit, and in the middle of the commit.
    target = checked([b], "overwrite")
    catalog.load_table("kept.rows").append(kept_table("y"))
    with pytest.raises(SfRayError, match=r"snapshot \d+ \(append\) was not there .* look at it"):
        target.commit(kept)
    target = checked([b], "overwrite")
    overtaken_by(monkeypatch, lambda: catalog.load_table("kept.rows").append(kept_table("z")))
    with pytest.raises(SfRayError, match=r"snapshot \d+ \(append\) was not there"):
        target.commit(kept)
    assert [row["text"] for row in rows_of(catalog)][-2:] == ["y", "z"]
    assert len(data_files(tmp_path)) == files
    checked([b], "overwrite").commit(kept)
    assert [row["text"] for row in rows_of(catalog)] == ["b"]


def overtaken_by(monkeypatch: pytest.MonkeyPatch, others: Any) -> None:
    """Lets others commit once, when our files are written and not yet committed."""
    write = iceberg._write

    def overtaken(*args: Any) -> None:
        write(*args)
        monkeypatch.setattr(iceberg, "_write", write)
        others()

    monkeypatch.setattr(iceberg, "_write", overtaken)


def test_a_commit_that_fails_half_way_leaves_nothing(
    tmp_path: Path, catalog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(iceberg, "_FILE_BYTES", 1)
    monkeypatch.setattr(iceberg, "_ROW_GROUP_BYTES", 1)
    shards = {f"{i}.parquet": kept_table(f"{i}") for i in range(3)}
    kept = local_output(tmp_path / "out", shards)
    target = checked(list(shards.values()))
    third = tmp_path / "out" / "data" / "2.parquet"
    whole = third.read_bytes()
    third.write_bytes(b"x" * len(whole))
    with pytest.raises(SfRayError, match=r"2\.parquet"):
        target.commit(kept)
    assert data_files(tmp_path) == []
    assert not catalog.table_exists("kept.rows")
    third.write_bytes(whole)
    target.commit(kept)
    assert len(data_files(tmp_path)) == 3
    assert [row["text"] for row in rows_of(catalog)] == ["0", "1", "2"]


def test_a_catalogue_that_refuses_for_another_reason_is_not_asked_again(
    tmp_path: Path, catalog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = kept_table("a")
    catalog.create_table("kept.rows", a.schema, properties={"commit.retry.num-retries": "0"})
    target = checked([a])

    def refuses(*args: Any) -> None:
        raise CommitFailedException("no space left in the catalogue")

    monkeypatch.setattr(SqlCatalog, "commit_table", refuses)
    with pytest.raises(SfRayError, match="CommitFailedException: no space left in the catalogue"):
        target.commit(local_output(tmp_path / "1", {"a.parquet": a}))
    assert data_files(tmp_path) == []


@pytest.mark.s3
def test_a_table_in_a_bucket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3: S3, s3_options: dict[str, Any]
) -> None:
    properties = {
        "uri": f"sqlite:///{tmp_path}/cat.db",
        "warehouse": f"{s3.bucket}/warehouse",
        "s3.endpoint": str(s3_options["endpoint_url"]),
        "s3.access-key-id": str(s3_options["key"]),
        "s3.secret-access-key": str(s3_options["secret"]),
        "s3.region": "us-east-1",
    }
    for key, value in properties.items():
        name = key.upper().replace(".", "__").replace("-", "_")
        monkeypatch.setenv(f"PYICEBERG_CATALOG__CAT__{name}", value)
    catalog = SqlCatalog("cat", **properties)
    catalog.create_namespace("kept")
    a = kept_table("a", "b")
    kept = make_output(Location(f"{s3.bucket}/out", s3.options), {"a.parquet": a})
    checked([a]).commit(kept)
    assert checked([a], "overwrite").commit(kept).is_new
    assert [row["text"] for row in rows_of(catalog)] == ["a", "b"]
    catalog.close()


def test_what_cannot_be_committed_to_is_refused_before_scoring(
    tmp_path: Path, catalog: Any
) -> None:
    a = kept_table("a")
    schema = common_schema("iceberg", [("a", a.schema)])

    def refused(name: str, words: str) -> None:
        with pytest.raises(UsageError, match=words):
            target_of(name, "append", {}, 1.0).check(schema)

    refused("iceberg://nowhere/kept.rows", "PyIceberg has no catalogue 'nowhere'")
    refused("iceberg://cat/other.rows", "no namespace 'other'; create it")
    refused(f"{NAME}@audit", "no such table, and so no branch of it")
    refused(f"{NAME}@123", "123 is a snapshot, which never changes")
    checked([a]).commit(local_output(tmp_path / "1", {"a.parquet": a}))
    table = catalog.load_table("kept.rows")
    table.manage_snapshots().create_tag(table.current_snapshot().snapshot_id, "v1").commit()
    refused(f"{NAME}@v1", "'v1' is a tag: name a branch")
    catalog.create_table("kept.types", pa.schema([("text", pa.int64())]))
    refused("iceberg://cat/kept.types", "its column 'text' is int64, and the rows have string")
    strict = pa.schema([pa.field("text", pa.string()), pa.field("id", pa.int64(), nullable=False)])
    catalog.create_table("kept.strict", strict)
    refused("iceberg://cat/kept.strict", "its column 'id' must not be null")
    with catalog.create_table("kept.parts", a.schema).update_spec() as update:
        update.add_identity("text")
    refused("iceberg://cat/kept.parts", "the table is partitioned")


def test_a_catalogue_that_is_down_is_named_without_its_secrets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYICEBERG_CATALOG__DOWN__TYPE", "rest")
    monkeypatch.setenv("PYICEBERG_CATALOG__DOWN__URI", "http://ann:hunter2-x@127.0.0.1:1")
    monkeypatch.setenv("PYICEBERG_CATALOG__DOWN__TOKEN", "token-of-ann-x")
    with pytest.raises(SfRayError, match="^iceberg://down/a.b: the catalogue or its") as error:
        target_of("iceberg://down/a.b", "append", {}, 1.0).check(pa.schema([]))
    assert "hunter2" not in str(error.value)
    assert "token-of-ann" not in str(error.value)
    assert "127.0.0.1" in str(error.value)


def test_rights_to_write_files_are_tried(
    tmp_path: Path, catalog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyiceberg.io.pyarrow import PyArrowFile

    a = kept_table("a")
    checked([a]).commit(local_output(tmp_path / "1", {"a.parquet": a}))

    def denied(*args: Any, **kwargs: Any) -> None:
        raise PermissionError("ACCESS_DENIED")

    monkeypatch.setattr(PyArrowFile, "create", denied)
    with pytest.raises(SfRayError, match="PermissionError: ACCESS_DENIED"):
        checked([a])
