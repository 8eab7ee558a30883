import os
import time
from pathlib import Path

import pytest

from sf_ray.errors import SfRayError
from sf_ray.storage import shared
from sf_ray.storage.location import Location
from sf_ray.storage.shared import Token, local_path, look, spread, token_in


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "_PAUSE_S", 0.0)


def test_files_of_another_machine_are_the_same_by_size_and_content_not_by_time(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"x" * 9000)
    (seen,) = look([str(path)])
    os.utime(path, (0, 0))  # a copy has another time
    assert seen.problem() == ""
    path.write_bytes(b"x" * 8999 + b"y")
    assert seen.problem() == f"has another content in {path}"
    path.write_bytes(b"x")
    assert seen.problem() == f"has 1 bytes instead of 9,000 in {path}"
    path.unlink()
    assert seen.problem() == f"has no {path}"
    path.mkdir()
    assert path.name in seen.problem()


def test_of_many_files_some_are_looked_at_all_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "_FILES", 5)
    monkeypatch.setattr(shared, "_OPENED", 2)
    paths = [str(tmp_path / f"{i:02d}") for i in range(21)]
    for path in paths:
        Path(path).write_text(path)
    seen = look(paths)
    assert [file.path for file in seen] == [paths[at] for at in (0, 5, 10, 15, 20)]
    assert [bool(file.ends) for file in seen] == [True, False, False, False, True]
    assert spread([], 5) == []
    assert spread([7], 5) == [7]


def test_a_token_is_answered_where_it_is_seen_and_gone_afterwards(tmp_path: Path) -> None:
    place = Location(str(tmp_path / "new" / "out"))
    with token_in(place) as token:
        assert token.answer("n1") == ""
        assert token.is_answered_by("n1")
        assert not token.is_answered_by("n2")
        elsewhere = Token(token.folder.replace("new", "other"))
        assert elsewhere.answer("n2") == "does not see what this machine writes there"
    assert list(tmp_path.iterdir()) == []
    assert token.answer("late") != ""
    assert list(tmp_path.iterdir()) == []


def test_what_lies_in_a_place_stays(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/data").write_text("precious")
    with pytest.raises(KeyboardInterrupt), token_in(Location(str(tmp_path / "out"))):
        raise KeyboardInterrupt
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["data"]


def test_a_node_that_may_not_write_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    with token_in(Location(str(tmp_path))) as token:
        monkeypatch.setattr(Path, "write_bytes", refuse)
        assert token.answer("n1") == "cannot write there (Read-only file system)"


def test_a_place_that_this_machine_cannot_write_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SfRayError, match=f"{tmp_path}/file/out"):
        token_in(Location(f"{tmp_path}/file/out")).__enter__()


def test_tokens_of_runs_that_were_killed_are_removed(tmp_path: Path) -> None:
    old, new = (tmp_path / f".sf_ray-probe-{name}" for name in ("old", "new"))
    for folder in (old, new):
        folder.mkdir()
        (folder / "n1").write_text("")
    os.utime(old, (time.time() - 7200,) * 2)
    with token_in(Location(str(tmp_path))):
        assert not old.exists()
        assert new.exists()  # another run may wait for it


def test_the_path_on_a_disk_is_known_also_at_the_end_of_a_chain(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    archive.write_text("")
    assert local_path(Location(str(tmp_path / "x"))) == str(tmp_path / "x")
    assert local_path(Location(f"file://{tmp_path}/x")) == str(tmp_path / "x")
    assert local_path(Location(f"zip://*.jsonl::{archive}")) == str(archive)
    assert local_path(Location(f"zip://*.jsonl::file://{archive}")) == str(archive)
    assert local_path(Location("zip://*.jsonl::s3://bucket/a.zip")) is None
    assert local_path(Location("s3://bucket/a::b")) is None
