import json
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sf_ray.corpus.plan_cache import keep_footers, keep_sample, read_footers, sample_of
from sf_ray.corpus.planning import plan_corpus
from sf_ray.storage.location import Location
from tests.support.json_mutants import mutants_of


def write(folder: Path, name: str, text: str) -> None:
    chat = [{"role": "user", "content": text}]
    table = pa.table({"text": [text], "chat": [chat], "day": [date(2026, 11, 25)]})
    pq.write_table(table, folder / f"{name}.parquet")


def test_a_sample_is_read_once_for_the_same_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, scores = tmp_path / "corpus", Location(str(tmp_path / "scores"))
    corpus.mkdir()
    write(corpus, "a", "one")
    where = Location(str(corpus))
    first = sample_of(scores, plan_corpus(where))
    chat = [{"role": "user", "content": "one"}]
    assert [row.row for row in first.rows] == [{"text": "one", "chat": chat, "day": None}]
    keep_sample(scores, first)

    with monkeypatch.context() as patch:
        patch.delattr("sf_ray.corpus.plan_cache.sample_rows")
        again = sample_of(scores, plan_corpus(where))
    assert (again.rows, again.is_kept) == (first.rows, True)

    write(corpus, "b", "two")
    changed = sample_of(scores, plan_corpus(where))
    assert [row.row["text"] for row in changed.rows] == ["one", "two"]
    assert not changed.is_kept


@pytest.mark.parametrize("data", [b"", b"rubbish", b"[]", b'{"version": 1}'])
def test_a_kept_sample_that_cannot_be_understood_is_none(tmp_path: Path, data: bytes) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    write(corpus, "a", "one")
    (tmp_path / "_sample.json").write_bytes(data)
    assert not sample_of(Location(str(tmp_path)), plan_corpus(Location(str(corpus)))).is_kept


@pytest.mark.parametrize("data", [b"", b"rubbish", b"ARROW1"])
def test_kept_footers_that_cannot_be_understood_are_none(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "_footers.arrow").write_bytes(data)
    assert read_footers(Location(str(tmp_path))) == {}


def test_a_place_that_takes_nothing_and_gives_nothing_is_no_reason_to_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus, scores = tmp_path / "corpus", Location(str(tmp_path / "file" / "scores"))
    corpus.mkdir()
    (tmp_path / "file").touch()
    write(corpus, "a", "one")
    planned = plan_corpus(Location(str(corpus)))
    assert read_footers(scores) == {}
    keep_footers(scores, planned, {})
    sample = sample_of(scores, planned)
    keep_sample(scores, sample)
    assert [row.row["text"] for row in sample.rows] == ["one"]
    notes = capsys.readouterr().err.splitlines()
    assert [note.partition(": /")[0] for note in notes] == [
        "note: the corpus's footers or sample are read again",
        "note: the next run has to read the corpus's footers or sample again",
    ] * 2


def test_any_kept_sample_is_understood_or_read_anew(tmp_path: Path) -> None:
    corpus, scores = tmp_path / "corpus", Location(str(tmp_path / "scores"))
    corpus.mkdir()
    write(corpus, "a", "one")
    planned = plan_corpus(Location(str(corpus)))
    keep_sample(scores, sample_of(scores, planned))
    file = tmp_path / "scores" / "_sample.json"
    for data in mutants_of(json.loads(file.read_bytes()), 6, 200):
        file.write_bytes(data)
        for row in sample_of(scores, planned).rows:
            assert isinstance(row.row, dict)
            assert str(row)


def test_a_plan_that_is_larger_than_any_of_ours_is_made_anew(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    write(corpus, "a", "one")
    for name in ("_sample.json", "_footers.arrow"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(1 << 42)  # 4 TiB, of which the disk has nothing
    assert read_footers(Location(str(tmp_path))) == {}
    assert not sample_of(Location(str(tmp_path)), plan_corpus(Location(str(corpus)))).is_kept
