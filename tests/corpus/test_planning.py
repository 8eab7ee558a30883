import os
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sf_ray.corpus.plan_cache import keep_footers, read_footers
from sf_ray.corpus.planning import passed_over_text, plan_corpus
from sf_ray.corpus.readers.shard import read_footer
from sf_ray.corpus.units import Footer, Shard
from sf_ray.errors import BadShardError, SfRayError
from sf_ray.storage.listing import File
from sf_ray.storage.location import Location


def corpus_of(folder: Path, tables: dict[str, pa.Table], row_group_size: int = 10) -> Location:
    for name, table in tables.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, folder / name, row_group_size=row_group_size)
    return Location(str(folder))


def numbered(rows: int) -> pa.Table:
    columns = {"text": [f"row {i}" for i in range(rows)], "other": range(rows)}
    return pa.table(columns, schema=pa.schema([("text", pa.string()), ("other", pa.int64())]))


def test_shards_have_a_place_in_the_corpus(tmp_path: Path) -> None:
    location = corpus_of(
        tmp_path, {"b.parquet": numbered(25), "a/1.parquet": numbered(3), "c.parquet": numbered(0)}
    )
    corpus = plan_corpus(location)
    assert [(s.file.relative, s.rows, s.position) for s in corpus.shards] == [
        ("a/1.parquet", 3, 0),
        ("b.parquet", 25, 3),
        ("c.parquet", 0, 28),
    ]
    assert corpus.shards[1].row_groups == (10, 10, 5)
    assert corpus.rows == 28


def write_bad_shards(folder: Path) -> dict[str, str]:
    """Puts every kind of bad shard beside good ones: name -> words of its error."""
    (folder / "cut.parquet").write_bytes((folder / "1.parquet").read_bytes()[:-9])
    (folder / "empty.parquet").write_bytes(b"")
    (folder / "junk.parquet").write_bytes(b"PAR1" + b"\x99" * 40 + b"\x28\0\0\0PAR1")
    return {
        "cut.parquet": "not a whole Parquet file",
        "empty.parquet": "not a whole Parquet file",
        "junk.parquet": "footer cannot be read",
    }


def test_all_bad_shards_are_named_at_once(tmp_path: Path) -> None:
    location = corpus_of(tmp_path, {f"{i}.parquet": numbered(3) for i in range(1, 5)})
    bad = write_bad_shards(tmp_path)
    with pytest.raises(SfRayError, match="3 of 7 shards cannot be used.*--on-bad-shard skip") as e:
        plan_corpus(location)
    for name, words in bad.items():
        assert any(name in line and words in line for line in str(e.value).splitlines())


def test_bad_shards_are_left_out_where_asked(tmp_path: Path) -> None:
    location = corpus_of(tmp_path, {f"{i}.parquet": numbered(3) for i in range(1, 5)})
    bad = write_bad_shards(tmp_path)
    corpus = plan_corpus(location, skip_bad=True)
    assert [shard.file.relative for shard in corpus.shards] == [f"{i}.parquet" for i in range(1, 5)]
    assert [shard.position for shard in corpus.shards] == [0, 3, 6, 9]
    assert {s.relative for s in corpus.skipped} == bad.keys()
    assert all(bad[s.relative] in s.reason for s in corpus.skipped)
    for number in range(1, 5):
        (tmp_path / f"{number}.parquet").write_bytes(b"PAR1")
    with pytest.raises(SfRayError, match="7 of 7 shards cannot be used"):
        plan_corpus(location, skip_bad=True)


def test_a_corpus_without_a_bad_shard_counts_anew(tmp_path: Path) -> None:
    names = ["a.parquet", "b.parquet", "c.parquet"]
    corpus = plan_corpus(corpus_of(tmp_path, {name: numbered(3) for name in names}))
    left = corpus.without({corpus.shards[1].shard_id: "a page is broken"})
    assert [(s.file.relative, s.position) for s in left.shards] == [
        ("a.parquet", 0),
        ("c.parquet", 3),
    ]
    assert [(s.relative, s.reason) for s in left.skipped] == [("b.parquet", "a page is broken")]
    assert left.fingerprint != corpus.fingerprint


def test_footers_that_are_known_are_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = corpus_of(tmp_path / "c", {f"{i}.parquet": numbered(3 + i) for i in range(5)})
    scores = Location(str(tmp_path / "scores"))
    assert read_footers(scores) == {}
    corpus = plan_corpus(location)
    keep_footers(scores, corpus, {})
    read: list[str] = []

    def counted(where: Location, file: File) -> Footer:
        read.append(file.relative)
        return read_footer(where, file)

    monkeypatch.setattr("sf_ray.corpus.planning.read_footer", counted)
    assert plan_corpus(location, read_footers(scores)) == corpus
    assert read == []
    pq.write_table(numbered(9), tmp_path / "c/2.parquet")
    pq.write_table(numbered(1), tmp_path / "c/new.parquet")
    changed = plan_corpus(location, read_footers(scores))
    assert sorted(read) == ["2.parquet", "new.parquet"]
    assert changed == plan_corpus(location)


def test_no_shards_says_what_is_there_instead(tmp_path: Path) -> None:
    with pytest.raises(SfRayError, match="no shards found.*no files"):
        plan_corpus(Location(str(tmp_path)))
    (tmp_path / "data.csv").write_text("a,b")
    with pytest.raises(SfRayError, match="no shards found.*1 other files, e.g. data.csv"):
        plan_corpus(Location(str(tmp_path)))


def test_schemas_are_ranked_by_how_many_shards_with_rows_have_them(
    tmp_path: Path,
) -> None:
    view = pa.table({"text": pa.array(["a"], pa.large_string())})
    none = pa.table({"text": pa.nulls(0)})
    tables = {"0": none, "1": view, "2": numbered(1), "3": none, "4": numbered(2), "5": none}
    location = corpus_of(tmp_path, {f"{name}.parquet": table for name, table in tables.items()})
    corpus = plan_corpus(location)
    assert corpus.schema == numbered(1).schema
    assert [shard.schema for shard in corpus.shards] == [2, 1, 0, 2, 0, 2]
    assert [(schema, len(shards)) for schema, shards in corpus.by_schema()] == [
        (numbered(1).schema, 2),
        (view.schema, 1),
    ]
    assert corpus.column_names == ["text", "other"]
    left = corpus.without({corpus.shards[i].shard_id: "bad" for i in (2, 4)})
    assert left.schemas == (view.schema, none.schema)
    assert [left.schemas[shard.schema] for shard in left.shards] == [
        none.schema,
        view.schema,
        none.schema,
        none.schema,
    ]

    scores = Location(str(tmp_path / "scores"))
    keep_footers(scores, corpus, {})
    known = read_footers(scores)
    assert plan_corpus(location, known) == corpus
    assert len({id(footer.schema) for footer in known.values()}) == 3  # equal ones are one object


def test_what_describes_a_data_set_is_no_shard_of_it(tmp_path: Path) -> None:
    for name in ("dataset_dict.json", "train/dataset_info.json", "train/state.json", "README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    location = corpus_of(tmp_path, {"train/0.parquet": numbered(3)})
    assert [shard.file.relative for shard in plan_corpus(location).shards] == ["train/0.parquet"]


def test_what_is_passed_over_is_known_with_its_reason(tmp_path: Path) -> None:
    location = corpus_of(tmp_path, {"train/0.parquet": numbered(3)})
    for name in ("README.md", "_SUCCESS", "train/b.csv", "c.jsonl.lzo", "B.PARQUET.crc"):
        (tmp_path / name).write_text("x")
    (tmp_path / "again").symlink_to(tmp_path / "train")
    passed_over = plan_corpus(location).passed_over
    assert passed_over == {
        "again": "a link to a folder that is listed already",
        "c.jsonl.lzo": "not read: unpack it",
        "train/b.csv": "not read",
    }
    assert passed_over_text({"b": "x", "a": "not read"}) == (
        "passed over: 2 files, e.g. a: not read"
    )


def test_shards_of_several_kinds_are_refused(tmp_path: Path) -> None:
    location = corpus_of(tmp_path, {"a/0.parquet": numbered(3), "a/1.parquet": numbered(3)})
    (tmp_path / "b.jsonl.gz").write_bytes(b"")
    words = r"several kinds: JSON \(b.jsonl.gz\) and Parquet \(a/0.parquet\).*glob, e.g. (.*)$"
    with pytest.raises(SfRayError, match=words) as error:
        plan_corpus(location)
    glob = re.search(words, str(error.value))
    assert glob is not None
    assert len(plan_corpus(Location(glob[1])).shards) == 2


def test_rows_of_json_are_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "c"
    folder.mkdir()
    (folder / "a.jsonl").write_text('{"a": 1}\n\n{"a": 2}\n')
    (folder / "b.json").write_text('[{"a": 1}]')
    scores = Location(str(tmp_path / "scores"))
    corpus = plan_corpus(Location(str(folder)))
    assert [(shard.row_groups, shard.starts) for shard in corpus.shards] == [
        ((2,), (0,)),
        ((1,), (1,)),
    ]
    keep_footers(scores, corpus, {})
    monkeypatch.delattr("sf_ray.corpus.planning.read_footer")
    assert plan_corpus(Location(str(folder)), read_footers(scores)) == corpus


def test_a_name_that_is_no_text_is_a_bad_shard(tmp_path: Path) -> None:
    for name in (b"a.jsonl", b"caf\xe9.jsonl"):
        (tmp_path / os.fsdecode(name)).write_text('{"prompt": "a", "completion": "b"}\n')
    with pytest.raises(BadShardError, match=r"caf\\xe9.jsonl.*not UTF-8, so that no manifest"):
        plan_corpus(Location(str(tmp_path)))
    corpus = plan_corpus(Location(str(tmp_path)), skip_bad=True)
    assert [shard.file.relative for shard in corpus.shards] == ["a.jsonl"]
    assert [shard.relative for shard in corpus.skipped] == [r"caf\xe9.jsonl"]
    assert corpus.fingerprint


def test_shards_of_alike_names_have_names_of_their_own_for_all_that_is_made_of_them() -> None:
    names = ["c/p.jsonl", "c//p.jsonl", "c/%/p.jsonl", "/c/p.jsonl", "C/p.jsonl", "c/p.jsonl.gz"]
    shards = [Shard(File(name, name, 9, "v1"), (9,), 0) for name in names]
    for made in ("written_name", "stem"):
        assert len({os.path.normpath(f"/o/{getattr(shard, made)}") for shard in shards}) == 6
