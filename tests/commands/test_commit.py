"""What `--commit-to` names is looked at before anything is scored; a commit is made once."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pyarrow as pa
import pytest

from bench.support.corpora import make_rows, write_shards
from sf_ray.commands.commit import commit_target, committed, committed_before
from sf_ray.commands.select import Done
from sf_ray.config.selection_options import SelectOptions
from sf_ray.corpus.planning import SkippedShards, plan_corpus
from sf_ray.errors import LeaseError, SfRayError, UsageError
from sf_ray.output.commits.commit import Committed, KeptRows
from sf_ray.storage.lease.lease import HeldLease
from sf_ray.storage.location import Location
from tests.support.cli import Cli
from tests.support.outputs import kept_table, local_output


@dataclass
class Table:
    """A target that remembers what it was asked."""

    name: str = "delta:///t"
    is_table: bool = True
    made: Committed | None = None
    asked: list[str] = field(default_factory=list)

    def check(self, columns: pa.Schema | None) -> None:
        self.asked.append("check")

    def find(self, request_id: str) -> Committed | None:
        self.asked.append(f"find {request_id}")
        return self.made and replace(self.made, is_new=False)

    def commit(self, kept: KeptRows) -> Committed:
        self.asked.append(f"commit {kept.request_id}")
        self.made = Committed(self.name, "version 0", kept.rows)
        return self.made


def done(kept: KeptRows) -> Done:
    return Done(kept.manifest, kept.output.location, SkippedShards(()))


def options(out: Path, **given: Any) -> SelectOptions:
    return SelectOptions(input="/in", scores="/scores", output=str(out), keep_count=1, **given)


def test_an_output_that_is_there_is_committed_once(tmp_path: Path) -> None:
    kept = local_output(tmp_path, {"a.parquet": kept_table("a", "b")})
    table = Table()
    first = committed_before(options(tmp_path), table, done(kept))
    assert first.committed == Committed("delta:///t", "version 0", 2)
    again = committed_before(options(tmp_path), table, done(kept))
    assert again.committed == Committed("delta:///t", "version 0", 2, is_new=False)
    assert table.asked == ["find request-1", "commit request-1", "find request-1"]
    assert committed_before(options(tmp_path), None, done(kept)).committed is None


def test_whoever_lost_the_output_does_not_commit(tmp_path: Path) -> None:
    kept = local_output(tmp_path, {"a.parquet": kept_table("a")})
    table = Table()
    held = Mock(spec=HeldLease)
    held.check.side_effect = LeaseError("another run holds it")
    with pytest.raises(LeaseError, match="another run holds it"):
        committed(table, done(kept), held)
    assert table.asked == []


def test_no_kept_row_is_no_commit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = local_output(tmp_path, {})
    table = Table()
    assert committed_before(options(tmp_path), table, done(kept)).committed is None
    assert table.asked == ["find request-1"]
    assert "no row is kept, so nothing is committed to delta:///t" in capsys.readouterr().err


def test_the_columns_of_all_shards_and_the_ifd_are_checked(tmp_path: Path) -> None:
    corpus = plan_corpus(Location(str(write_shards(tmp_path / "in", make_rows(20)))))
    place = tmp_path / "table"
    given = options(tmp_path / "out", commit_to=f"delta://{place}", ifd_column="output")
    with pytest.raises(SfRayError, match="column 'output' is there twice"):
        commit_target(given, corpus)
    assert commit_target(options(tmp_path / "out"), corpus) is None
    target = commit_target(options(tmp_path / "out", commit_to=f"delta://{place}"), corpus)
    assert target is not None
    assert target.name == f"delta://{place}"


@pytest.mark.parametrize(
    ("read", "place", "words"),
    [
        ("hf://datasets/o/n/data/*.parquet", "hf://datasets/o/n@main", "this is INPUT"),
        ("hf://datasets/o/n@a%2Fb/data", "hf://datasets/o/n@a/b", "this is INPUT"),
        ("/in", "delta:///in/table", "and INPUT /in lie inside each other"),
        ("/in", "delta:///out/data/table", "and OUTPUT /out/data lie inside each other"),
        ("delta:///t", "delta:///t/", "this is INPUT"),
    ],
)
def test_the_corpus_is_not_committed_to(tmp_path: Path, read: str, place: str, words: str) -> None:
    corpus = plan_corpus(Location(str(write_shards(tmp_path / "in", make_rows(20)))))
    given = SelectOptions(input=read, scores="/s", output="/out", keep_count=1, commit_to=place)
    with pytest.raises(UsageError, match=words):
        commit_target(given, corpus)


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("iceberg://cat/ns.t", "and commit its rows with --commit-to iceberg://cat/ns.t"),
        ("delta://s3://b/t", "and commit its rows with --commit-to delta://s3://b/t"),
        ("hf://datasets/o/n", "and commit its rows with --commit-to hf://datasets/o/n"),
        ("lance:///d/t", "a table holds rows, and no other file of a run: choose a directory"),
    ],
)
def test_a_table_is_no_output(corpus: Path, sf_ray_cli: Cli, place: str, words: str) -> None:
    code, _, stderr = sf_ray_cli("run", corpus, place, "--model", "m", "--keep-count", "1")
    assert code == 2
    assert f"OUTPUT {place}: " in stderr
    assert words in stderr
    assert "Traceback" not in stderr


def test_a_bad_target_stops_a_run_before_it_looks_at_the_model(
    corpus: Path, tmp_path: Path, sf_ray_cli: Cli
) -> None:
    out = tmp_path / "out"
    asked = ("run", corpus, out, "--model", "absent", "--keep-count", "1", "--commit-to")
    for place, words in {
        "iceberg://nowhere/ns.t": "PyIceberg has no catalogue 'nowhere'",
        "s3://b/t": "rows can be committed to iceberg://",
        f"delta://{tmp_path}/t@1": "leave @1 out",
    }.items():
        code, _, stderr = sf_ray_cli(*asked, place)
        assert code == 2
        assert words in stderr
    assert not out.exists()
    code, _, stderr = sf_ray_cli(*asked[:-1], "--commit-mode", "overwrite")
    assert "--commit-mode belongs to --commit-to" in stderr


def test_rows_of_json_have_no_columns(tmp_path: Path, sf_ray_cli: Cli) -> None:
    shard = tmp_path / "in" / "a.jsonl"
    shard.parent.mkdir()
    shard.write_text('{"instruction": "a", "output": "b"}\n')
    code, _, stderr = sf_ray_cli(
        "run", shard.parent, tmp_path / "out", "--model", "absent", "--keep-count", "1",
        "--commit-to", f"delta://{tmp_path}/t",
    )  # fmt: skip
    assert code == 2
    assert "the rows of JSON shards have not; write the corpus as Parquet" in stderr


def test_a_library_that_is_missing_is_named(
    corpus: Path, tmp_path: Path, sf_ray_cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sf_ray.runtime import libraries

    monkeypatch.setattr(libraries, "find_spec", lambda name: None)
    for place, extra in (("iceberg://c/n.t", "iceberg"), (f"delta://{tmp_path}/t", "delta")):
        code, _, stderr = sf_ray_cli(
            "run", corpus, tmp_path / "out", "--model", "absent", "--keep-count", "1",
            "--commit-to", place,
        )  # fmt: skip
        assert code == 1
        assert f"pip install 'sf_ray[{extra}]'" in stderr
