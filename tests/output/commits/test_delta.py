"""Kept rows become versions of real Delta tables."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from sf_ray.errors import BadShardError, SfRayError, UsageError
from sf_ray.output.commits.columns import common_schema
from sf_ray.output.commits.commit import KeptRows, Mode, Target, target_of
from sf_ray.storage.location import Location
from tests.support.outputs import kept_table, local_output, make_output
from tests.support.storage import S3

Rows = list[dict[str, Any]]


def checked(place: Path | str, tables: list[pa.Table], mode: Mode = "append") -> Target:
    target = target_of(f"delta://{place}", mode, {}, 1.0)
    target.check(common_schema("delta", [(str(i), t.schema) for i, t in enumerate(tables)]))
    return target


def rows_of(place: Path) -> Rows:
    found: Rows = pl.read_delta(str(place)).sort("text").to_dicts()
    return found


def texts_of(place: Path) -> list[str]:
    return [row["text"] for row in rows_of(place)]


def test_rows_of_all_shards_are_one_version_of_a_new_table_and_other_engines_read_them(
    tmp_path: Path,
) -> None:
    shards = {
        "a.parquet": kept_table("a", "b", n=pa.array([1, 2], pa.uint16())),
        "b/c.arrow": kept_table(
            "c", n=pa.array([2**40]), extra=pa.array(["x"]).dictionary_encode()
        ),
    }
    kept = local_output(tmp_path / "out", shards)
    place = tmp_path / "table"
    target = checked(place, list(shards.values()))
    assert target.find(kept.request_id) is None
    done = target.commit(kept)
    assert (done.name, done.version, done.rows, done.is_new) == (
        f"delta://{place}", "version 0", 3, True,
    )  # fmt: skip
    expected = [
        {"text": "a", "n": 1, "ifd": 0.5, "extra": None},
        {"text": "b", "n": 2, "ifd": 0.51, "extra": None},
        {"text": "c", "n": 2**40, "ifd": 0.5, "extra": "x"},
    ]
    assert rows_of(place) == expected
    table = DeltaTable(place)
    stored = table.to_pyarrow_dataset()
    assert duckdb.sql("select count(*), sum(n) from stored").fetchall() == [(3, 2**40 + 3)]
    assert stored.count_rows() == 3
    (info,) = table.history()
    assert info["sf-ray.request-id"] == kept.request_id
    # The table's files are its own: a later run replaces those of OUTPUT.
    assert len(list(place.glob("*.parquet"))) == 1


def test_the_same_request_is_one_commit_and_another_request_another(tmp_path: Path) -> None:
    place, first, second = tmp_path / "table", kept_table("a"), kept_table("b")
    kept = local_output(tmp_path / "out", {"a.parquet": first})
    checked(place, [first]).commit(kept)
    again = checked(place, [first]).commit(kept)
    assert (again.version, again.rows, again.is_new) == ("version 0", 1, False)
    assert checked(place, [first]).find(kept.request_id) == again
    other = local_output(tmp_path / "out2", {"b.parquet": second}, "request-2")
    assert checked(place, [second]).commit(other).version == "version 1"
    assert texts_of(place) == ["a", "b"]


def test_an_overwrite_leaves_our_rows_alone_and_what_it_removed_may_be_committed_again(
    tmp_path: Path,
) -> None:
    place, a, b = tmp_path / "table", kept_table("a"), kept_table("b")
    first = local_output(tmp_path / "1", {"a.parquet": a}, "request-1")
    second = local_output(tmp_path / "2", {"b.parquet": b}, "request-2")
    checked(place, [a]).commit(first)
    # Rows that were appended are not yet all that there is.
    assert checked(place, [a], "overwrite").find("request-1") is None
    checked(place, [b], "overwrite").commit(second)
    assert texts_of(place) == ["b"]
    assert checked(place, [b]).find("request-2") is not None
    assert checked(place, [a]).find("request-1") is None
    checked(place, [a], "overwrite").commit(first)
    assert texts_of(place) == ["a"]
    assert checked(place, [a]).find("request-1") is not None


@pytest.mark.parametrize("mode", ["append", "overwrite"])
def test_new_columns_join_a_table_that_is_there_and_its_others_become_null(
    tmp_path: Path, mode: Mode, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "table"
    write_deltalake(place, pa.table({"n": [9], "text": ["z"]}), partition_by="n")
    ours = kept_table("a", empty=pa.nulls(1), extra=pa.array([[{"x": 1}]]))
    checked(place, [ours], mode).commit(local_output(tmp_path / "out", {"a.parquet": ours}))
    said = capsys.readouterr().err
    assert f"delta://{place} gets new columns: empty, extra, ifd" in said
    assert f"empty: null in every row, so text in delta://{place}" in said
    row = {"n": None, "text": "a", "empty": None, "extra": [{"x": 1}], "ifd": 0.5}
    there = {"n": 9, "text": "z", "empty": None, "extra": None, "ifd": None}
    assert rows_of(place) == ([row, there] if mode == "append" else [row])


def overtaken_by(monkeypatch: pytest.MonkeyPatch, others: Any) -> None:
    """Lets others commit once, when our rows are being read and not yet committed."""
    batches = KeptRows.batches

    def overtaken(self: KeptRows, schema: pa.Schema) -> Any:
        yield from batches(self, schema)
        monkeypatch.setattr(KeptRows, "batches", batches)
        # The library reads rows in a thread of its own, in which it cannot begin anew.
        with ThreadPoolExecutor(1) as threads:
            threads.submit(others).result()

    monkeypatch.setattr(KeptRows, "batches", overtaken)


@pytest.mark.parametrize("mode", ["append", "overwrite"])
def test_an_append_that_others_overtook_goes_on_top(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: Any
) -> None:
    place, a, b = tmp_path / "table", kept_table("a"), kept_table("b")
    checked(place, [a]).commit(local_output(tmp_path / "1", {"a.parquet": a}, "request-1"))
    target = checked(place, [b])
    overtaken_by(monkeypatch, lambda: write_deltalake(place, kept_table("z"), mode=mode))
    target.commit(local_output(tmp_path / "2", {"b.parquet": b}, "request-2"))
    assert texts_of(place) == (["a", "b", "z"] if mode == "append" else ["b", "z"])


def test_two_commits_of_one_request_at_once_are_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, a, b = tmp_path / "table", kept_table("a"), kept_table("b")
    checked(place, [a]).commit(local_output(tmp_path / "1", {"a.parquet": a}, "request-1"))
    kept = local_output(tmp_path / "2", {"b.parquet": b}, "request-2")
    first, second = checked(place, [b]), checked(place, [b])
    overtaken_by(monkeypatch, lambda: second.commit(kept))
    assert not first.commit(kept).is_new
    assert texts_of(place) == ["a", "b"]


def test_an_overwrite_that_others_overtook_is_refused_and_the_next_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, a, b = tmp_path / "table", kept_table("a"), kept_table("b")
    checked(place, [a]).commit(local_output(tmp_path / "1", {"a.parquet": a}, "request-1"))
    kept = local_output(tmp_path / "2", {"b.parquet": b}, "request-2")
    # Between the check and the commit, and in the middle of the commit.
    target = checked(place, [b], "overwrite")
    write_deltalake(place, kept_table("y"), mode="append")
    with pytest.raises(SfRayError, match=r"version 1 was not there when .* look at it"):
        target.commit(kept)
    target = checked(place, [b], "overwrite")
    overtaken_by(monkeypatch, lambda: write_deltalake(place, kept_table("z"), mode="append"))
    with pytest.raises(SfRayError, match="version 2 was not there when"):
        target.commit(kept)
    assert texts_of(place) == ["a", "y", "z"]
    checked(place, [b], "overwrite").commit(kept)
    assert texts_of(place) == ["b"]


def test_a_commit_that_fails_half_way_leaves_nothing_to_be_seen(tmp_path: Path) -> None:
    shards = {f"{i}.parquet": kept_table(f"{i}") for i in range(3)}
    kept = local_output(tmp_path / "out", shards)
    place = tmp_path / "table"
    target = checked(place, list(shards.values()))
    third = tmp_path / "out" / "data" / "2.parquet"
    whole = third.read_bytes()
    third.write_bytes(b"x" * len(whole))
    with pytest.raises(BadShardError, match=r"^shard 2\.parquet: not a whole Parquet file"):
        target.commit(kept)
    assert not DeltaTable.is_deltatable(str(place))
    third.write_bytes(whole)
    target.commit(kept)
    assert texts_of(place) == ["0", "1", "2"]


@pytest.mark.release
@pytest.mark.s3
def test_a_table_in_a_bucket(s3: S3) -> None:
    a, b = kept_table("a", "b"), kept_table("c")
    place = f"delta://{s3.bucket}/table"

    def commit(table: pa.Table, request: str, mode: Mode) -> str:
        out = Location(f"{s3.bucket}/{request}", s3.options)
        kept = make_output(out, {"a.parquet": table}, request)
        target = target_of(place, mode, s3.options, 1.0)
        target.check(common_schema("delta", [("a", table.schema)]))
        assert target.find(request) is None
        return target.commit(kept).version

    assert commit(a, "request-1", "append") == "version 0"
    assert commit(b, "request-2", "append") == "version 1"
    assert commit(b, "request-3", "overwrite") == "version 2"


def test_what_cannot_be_committed_to_is_refused_before_scoring(
    tmp_path: Path, s3_options: dict[str, Any]
) -> None:
    a = kept_table("a")

    def refused(place: Path | str, words: str) -> None:
        with pytest.raises(SfRayError, match=words):
            checked(place, [a])

    refused(f"{tmp_path}/t@3", "makes the next version of the table; leave @3 out")
    write_deltalake(tmp_path / "types", pa.table({"text": [1]}))
    refused(tmp_path / "types", "its column 'text' is int64, and the rows have string")
    strict = pa.schema([pa.field("text", pa.string()), pa.field("id", pa.int64(), nullable=False)])
    DeltaTable.create(tmp_path / "strict", strict)
    refused(tmp_path / "strict", "its column 'id' must not be null")
    only = DeltaTable.create(
        tmp_path / "only", a.schema, configuration={"delta.appendOnly": "true"}
    )
    with pytest.raises(UsageError, match="may only be added .* take --commit-mode append"):
        checked(tmp_path / "only", [a], "overwrite")
    checked(tmp_path / "only", [a])
    assert only.version() == 0
    (tmp_path / "file").write_text("x")
    refused(tmp_path / "file", "file")
    # A store of no answer, a bucket that is not there.
    target = target_of("delta://s3://absent-bucket/t", "append", s3_options, 0.1)
    with pytest.raises(SfRayError, match=r"s3://absent-bucket/t.*not found.*the bucket exists"):
        target.check(common_schema("delta", [("a", a.schema)]))


def test_an_error_of_the_library_is_one_line(tmp_path: Path) -> None:
    place = tmp_path / "table"
    write_deltalake(place, pa.table({"text": ["a"]}))
    (log,) = (place / "_delta_log").glob("*.json")
    log.write_text('{"protocol": {"minReaderVersion": 99, "minWriterVersion": 99}}\n')
    with pytest.raises(SfRayError, match="^delta://.*Delta's library does not do") as error:
        checked(place, [kept_table("a")])
    assert "\n" not in str(error.value)
    assert not isinstance(error.value, UsageError)
