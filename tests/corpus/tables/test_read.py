"""Tables that the libraries themselves have written, as corpora."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import PropertyMock, patch

import deltalake
import lance
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog import Catalog
from pyiceberg.table import DataScan, FileScanTask
from pyiceberg.table.snapshots import Summary
from pyiceberg.types import LongType, StringType

from sf_ray.corpus.planning import Corpus, plan_corpus
from sf_ray.corpus.readers.shard import open_shard
from sf_ray.corpus.tables.read import former_columns_named, read_table
from sf_ray.corpus.units import shard_id
from sf_ray.errors import BadShardError, SfRayError
from sf_ray.storage.table_names import parse_table
from tests.support.storage import S3
from tests.support.tables import (
    AnyTable,
    DeltaTable,
    IcebergTable,
    LanceTable,
    Rows,
    catalog_at,
    remove_by_vector,
    set_catalog,
)


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with catalog_at(tmp_path, f"file://{tmp_path}/warehouse") as made:
        yield made


@pytest.fixture(params=["iceberg", "delta", "lance"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> AnyTable:
    if request.param == "iceberg":
        return IcebergTable(request.getfixturevalue("catalog"))
    return (DeltaTable if request.param == "delta" else LanceTable)(str(tmp_path / "t"))


def row(number: int, **more: Any) -> dict[str, Any]:
    return {"instruction": f"i{number}", "output": f"o{number}", **more}


def corpus_of(name: str, options: dict[str, Any] | None = None) -> Corpus:
    parsed = parse_table(name)
    assert parsed is not None
    return plan_corpus(read_table(parsed, options or {}, 5))


def rows_of(corpus: Corpus, columns: list[str] | None = None) -> Rows:
    rows = []
    for shard in corpus.shards:
        with open_shard(corpus.location, shard.file) as reader:
            assert reader.schema.equals(corpus.schema)
            read = [found for batch in reader.batches(7, columns) for found in batch.to_pylist()]
        assert len(read) == shard.rows
        rows += read
    return sorted(rows, key=lambda found: str(found))


def test_each_state_of_a_table_is_a_corpus_of_its_files(table: AnyTable) -> None:
    table.append([row(1), row(2)])
    first = table.state()
    table.append([row(3)])
    second = table.state()
    table.delete("instruction", "i1")

    now = corpus_of(table.name)
    assert rows_of(now) == [row(2), row(3)]
    assert now.table is not None
    assert (now.table.snapshot, now.name) == (table.state(), table.name)
    then = corpus_of(f"{table.name}@{second}")
    assert rows_of(then) == [row(1), row(2), row(3)]
    assert then.name == f"{table.name}@{second}"
    at_first = corpus_of(f"{table.name}@{first}")
    assert rows_of(at_first) == [row(1), row(2)]
    assert rows_of(then, ["output"]) == [{"output": f"o{number}"} for number in (1, 2, 3)]
    # A file that two states share is one shard, so that it is scored once.
    ids = [{shard.shard_id for shard in corpus.shards} for corpus in (at_first, then, now)]
    assert ids[0] < ids[1]
    assert len(ids[2] & ids[1]) == 1  # the file of row 3; that of row 1 is another now


def test_two_readings_give_the_same_shards_in_the_same_order(table: AnyTable) -> None:
    for number in range(4):
        table.append([row(number)])
    one, other = corpus_of(table.name), corpus_of(table.name)
    assert [shard.shard_id for shard in one.shards] == [shard.shard_id for shard in other.shards]
    assert one.fingerprint == other.fingerprint


def test_a_column_that_was_added_is_null_in_older_rows_and_costs_nothing(
    catalog: Catalog, tmp_path: Path
) -> None:
    table = IcebergTable(catalog)
    table.append([row(1)])
    before = corpus_of(table.name)
    with catalog.load_table("n.t").update_schema() as update:
        update.add_column("input", StringType())
    table.append([row(2, input="x")])
    now = corpus_of(table.name)
    assert rows_of(now) == [row(1, input=None), row(2, input="x")]
    assert {shard.shard_id for shard in before.shards} < {shard.shard_id for shard in now.shards}

    place = tmp_path / "d"
    DeltaTable(str(place)).append([row(1)])
    new = pa.Table.from_pylist([row(2, input="x")])
    deltalake.write_deltalake(str(place), new, mode="append", schema_mode="merge")
    assert rows_of(corpus_of(f"delta://{place}")) == [row(1, input=None), row(2, input="x")]

    place = tmp_path / "l"
    LanceTable(str(place)).append([row(1)])
    lance.dataset(str(place)).add_columns({"input": "'x'"})
    assert rows_of(corpus_of(f"lance://{place}")) == [row(1, input="x")]


def test_columns_are_found_by_their_ids_whatever_they_are_called(catalog: Catalog) -> None:
    narrow = pa.table({"size": pa.array([7], pa.int32())})
    rows = pa.Table.from_pylist([row(1, meta={"source": "web", "tags": [{"name": "a"}]})])
    rows = rows.append_column("size", narrow["size"])
    catalog.create_table("n.t", rows.schema).append(rows)
    table = IcebergTable(catalog)
    before = corpus_of(table.name)
    loaded = catalog.load_table("n.t")
    # Two columns change names: whoever looks at names reads answers as questions.
    for old, new in (("instruction", "held"), ("output", "instruction"), ("held", "output")):
        with loaded.update_schema() as update:
            update.rename_column(old, new)
    with loaded.update_schema() as update:
        update.rename_column("meta.source", "site")
        update.add_column(("meta", "stars"), LongType())
        update.update_column("size", LongType())
        update.rename_column("meta.tags.element.name", "label")
        update.move_first("output")
    now = corpus_of(table.name)
    assert now.schema.names == ["output", "instruction", "meta", "size"]
    assert now.schema.field("size").type == pa.int64()
    meta = {"site": "web", "tags": [{"label": "a"}], "stars": None}
    assert rows_of(now) == [{"output": "i1", "instruction": "o1", "meta": meta, "size": 7}]
    # Scores of the old names do not count for the new ones.
    assert {shard.shard_id for shard in now.shards}.isdisjoint(
        shard.shard_id for shard in before.shards
    )


def test_a_map_is_read_as_it_is_and_refused_where_its_fields_changed(catalog: Catalog) -> None:
    field = pa.map_(pa.string(), pa.struct([("score", pa.int64())]))
    rows = pa.table({"instruction": ["i1"], "notes": pa.array([[("k", {"score": 1})]], field)})
    catalog.create_table("n.t", rows.schema).append(rows)
    table = "iceberg://c/n.t"
    assert rows_of(corpus_of(table)) == [{"instruction": "i1", "notes": [("k", {"score": 1})]}]
    with catalog.load_table("n.t").update_schema() as update:
        update.rename_column("notes.value.score", "points")
    with pytest.raises(BadShardError, match="column 'notes'.*inside of a map were renamed"):
        corpus_of(table)


def test_a_column_that_comes_back_under_its_name_is_another_one(catalog: Catalog) -> None:
    table = IcebergTable(catalog)
    table.append([row(1, note="old")])
    before = corpus_of(table.name)
    loaded = catalog.load_table("n.t")
    with loaded.update_schema() as update:
        update.delete_column("note")
    with loaded.update_schema() as update:
        update.add_column("note", StringType())
    now = corpus_of(table.name)
    assert rows_of(now) == [row(1, note=None)]
    assert before.shards[0].shard_id != now.shards[0].shard_id


def test_a_dropped_column_is_named_and_so_is_the_way_back(catalog: Catalog) -> None:
    table = IcebergTable(catalog)
    table.append([row(1)])
    with catalog.load_table("n.t").update_schema() as update:
        update.delete_column("output")
    corpus = corpus_of(table.name)
    assert rows_of(corpus) == [{"instruction": "i1"}]
    with (
        pytest.raises(
            SfRayError, match="(?s)no column .output..*earlier states.*: output; an earlier"
        ) as raised,
        former_columns_named(corpus.table),
    ):
        raise SfRayError("it has no column 'output'")
    assert "@SNAPSHOT" in str(raised.value)


def test_values_of_a_partition_stand_in_paths_only(tmp_path: Path) -> None:
    place = tmp_path / "d"
    rows = [row(1, source="a b %"), row(2, source=None), row(3, source="é/x")]
    deltalake.write_deltalake(str(place), pa.Table.from_pylist(rows), partition_by=["source"])
    corpus = corpus_of(f"delta://{place}")
    assert rows_of(corpus) == rows
    assert rows_of(corpus, ["source"]) == sorted(
        [{"source": found["source"]} for found in rows], key=str
    )


def test_names_of_a_column_mapping_are_those_of_the_table(tmp_path: Path) -> None:
    place = tmp_path / "d"
    deltalake.write_deltalake(
        str(place),
        pa.Table.from_pylist([row(1)]),
        configuration={"delta.columnMapping.mode": "name"},
    )
    (file,) = deltalake.DeltaTable(str(place)).file_uris()
    assert pq.read_schema(file).names != ["instruction", "output"]
    assert rows_of(corpus_of(f"delta://{place}")) == [row(1)]


def test_rows_that_a_deletion_vector_removes_are_not_there(tmp_path: Path) -> None:
    place = tmp_path / "d"
    properties = deltalake.WriterProperties(max_row_group_size=4)
    rows = [row(number) for number in range(20, 30)]
    deltalake.write_deltalake(str(place), pa.Table.from_pylist(rows), writer_properties=properties)
    before = corpus_of(f"delta://{place}")
    remove_by_vector(place, [0, 4, 5, 6, 7, 9])  # a whole row group among them
    corpus = corpus_of(f"delta://{place}")
    left = [rows[number] for number in (1, 2, 3, 8)]
    assert rows_of(corpus) == left == rows_of(corpus, ["instruction", "output"])
    (shard,) = corpus.shards
    assert shard.row_groups == (3, 0, 1)
    with open_shard(corpus.location, shard.file) as reader:
        last = [batch.to_pylist() for batch in reader.batches(9, groups=range(2, 3))]
    assert last == [[rows[8]]]
    assert shard.shard_id != before.shards[0].shard_id


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"delete_files": {"x"}}, "rows that a delete file removes.*rewrite_data_files"),
        ({"file_format": "ORC"}, "1 of its data files are no Parquet, e.g. .*parquet; write them"),
        ({"key_metadata": b"k"}, "encrypted"),
    ],
)
def test_files_that_would_give_wrong_rows_are_refused_by_name(
    catalog: Catalog, change: dict[str, Any], says: str
) -> None:
    """No library here writes such files, so that a plan says that there are some."""
    table = IcebergTable(catalog)
    table.append([row(1)])
    tasks = list(catalog.load_table("n.t").scan().plan_files())

    def planned(_: DataScan) -> list[FileScanTask]:
        (task,) = tasks
        task.delete_files = change.get("delete_files", set())
        if "file_format" in change:
            task.file[2] = type(task.file.file_format)(change["file_format"])
        if "key_metadata" in change:
            task.file[12] = change["key_metadata"]
        return [task]

    with patch.object(DataScan, "plan_files", planned), pytest.raises(SfRayError, match=says):
        corpus_of(table.name)


def test_rows_that_are_removed_by_equality_are_refused(catalog: Catalog) -> None:
    table = IcebergTable(catalog)
    table.append([row(1)])
    summary = {"total-equality-deletes": "1"}  # as Flink's writer leaves it
    counted = patch.object(
        Summary, "additional_properties", new_callable=PropertyMock, return_value=summary
    )
    with counted, pytest.raises(SfRayError, match="removed by equality.*rewrite_data_files"):
        corpus_of(table.name)


def test_a_file_without_ids_is_read_by_the_tables_other_names_or_refused(
    catalog: Catalog, tmp_path: Path
) -> None:
    table = IcebergTable(catalog)
    table.append([row(1, meta={"tags": [{"name": "a"}]})])
    path = tmp_path / "warehouse/added.parquet"
    pq.write_table(pa.Table.from_pylist([row(2, meta={"tags": [{"name": "b"}]})]), path)
    loaded = catalog.load_table("n.t")
    loaded.add_files([f"file://{path}"])  # writes down which names count
    with loaded.update_schema() as update:
        update.rename_column("output", "answer")
        update.rename_column("meta.tags.element.name", "label")
    corpus = corpus_of(table.name)
    renamed = [
        {"instruction": f"i{n}", "answer": f"o{n}", "meta": {"tags": [{"label": "ab"[n - 1]}]}}
        for n in (1, 2)
    ]
    assert rows_of(corpus) == renamed
    with loaded.transaction() as transaction:
        transaction.remove_properties("schema.name-mapping.default")
    with pytest.raises(BadShardError, match=r"no field ids.*schema\.name-mapping\.default"):
        corpus_of(table.name)


def test_a_file_that_is_not_what_its_table_says_is_a_bad_shard(tmp_path: Path) -> None:
    place = tmp_path / "d"
    DeltaTable(str(place)).append([row(1)])
    (uri,) = deltalake.DeltaTable(str(place)).file_uris()
    pq.write_table(pa.Table.from_pylist([row(1), row(2)]), uri)
    log = place / "_delta_log" / f"{0:020d}.json"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    for line in lines:
        if "add" in line:
            line["add"]["size"] = Path(uri).stat().st_size
    log.write_text("\n".join(map(json.dumps, lines)) + "\n")
    with pytest.raises(BadShardError, match="has 2 rows, and its table says that it has 1"):
        corpus_of(f"delta://{place}")
    Path(uri).unlink()
    with pytest.raises(SfRayError, match="disappeared"):
        corpus_of(f"delta://{place}")


def test_what_is_not_there_is_said_with_what_to_look_at(
    catalog: Catalog, tmp_path: Path, table: AnyTable
) -> None:
    table.append([row(1)])
    with pytest.raises(SfRayError, match=r"@99.*(no snapshot, branch or tag|version|opened)"):
        corpus_of(f"{table.name}@99")
    for name, says in (
        ("iceberg://c/n.u", "the catalogue c has no table n.u"),
        ("iceberg://gone/n.t", "no catalogue 'gone'.*PYICEBERG_CATALOG__GONE__URI"),
        (f"delta://{tmp_path}/no", "no Delta table there"),
        (f"lance://{tmp_path}/no", "cannot be opened; look at the path"),
    ):
        with pytest.raises(SfRayError, match=says):
            corpus_of(name)


def test_a_catalogue_that_is_down_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    set_catalog(monkeypatch, "down", uri="http://127.0.0.1:9")
    with pytest.raises(SfRayError, match="the catalogue down did not answer.*whether it is up"):
        corpus_of("iceberg://down/n.t")


def test_a_table_without_rows_says_so(catalog: Catalog) -> None:
    catalog.create_table("n.t", pa.schema([("instruction", pa.string())]))
    with pytest.raises(SfRayError, match="nothing was ever written"):
        corpus_of("iceberg://c/n.t")


@pytest.mark.s3
def test_tables_lie_in_buckets_too(tmp_path: Path, s3: S3, s3_environment: None) -> None:
    options = {key: str(value) for key, value in s3.options.items()}
    iceberg = {
        "s3.endpoint": options["endpoint_url"],
        "s3.access-key-id": options["key"],
        "s3.secret-access-key": options["secret"],
    }
    rust = {
        "aws_endpoint_url": options["endpoint_url"],
        "aws_access_key_id": options["key"],
        "aws_secret_access_key": options["secret"],
        "aws_region": "us-east-1",
        "allow_http": "true",
    }
    with catalog_at(tmp_path, f"{s3.bucket}/warehouse", **iceberg) as catalog:
        tables: list[AnyTable] = [
            IcebergTable(catalog),
            DeltaTable(f"{s3.bucket}/d", rust),
            LanceTable(f"{s3.bucket}/l", rust),
        ]
        for table in tables:
            table.append([row(1), row(2)])
            corpus = corpus_of(table.name, s3.options)
            assert rows_of(corpus) == [row(1), row(2)]
            assert corpus.shards[0].shard_id == shard_id(corpus.shards[0].file)
        # The endpoint and keys of the environment do too, in the catalogue's place.
        with pytest.MonkeyPatch.context() as patch:
            for name in iceberg:
                variable = name.upper().replace(".", "__").replace("-", "_")
                patch.delenv(f"PYICEBERG_CATALOG__C__{variable}")
            set_catalog(patch, "c")
            for table in tables:
                assert rows_of(corpus_of(table.name)) == [row(1), row(2)]
