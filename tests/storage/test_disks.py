"""Disks that take no more: each error but those named is raised by the operating system itself."""

import errno
import os
import tempfile
from pathlib import Path

import pytest

from sf_ray.errors import SfRayError
from sf_ray.storage.files import copy_here, put_bytes, put_whole, read_bytes
from sf_ray.storage.lease.files import create_lease
from sf_ray.storage.listing import list_files
from sf_ray.storage.location import Location

FULL = Path("/dev/full")  # takes no byte: ENOSPC


def test_a_disk_that_is_full_while_a_file_is_written_is_named(tmp_path: Path) -> None:
    place = Location(str(tmp_path / "out.parquet"))
    words = f"^{place.uri}: no space is left .*free some on that disk.*the same command goes on"
    with pytest.raises(SfRayError, match=words), put_whole(place):
        FULL.write_bytes(b"x")
    assert list(tmp_path.iterdir()) == []


def test_a_temporary_folder_that_is_full_is_not_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    place = Location(f"memory://{tmp_path.name}/out.parquet")
    words = rf"^{tmp_path} \(TMPDIR, before the upload to {place.uri}\): no space is left"
    with pytest.raises(SfRayError, match=words), put_whole(place):
        FULL.write_bytes(b"x")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(SfRayError, match=rf"^{tmp_path}/none \(TMPDIR, .*\): not found"):
        put_bytes(place, b"x")


def test_a_disk_that_is_full_while_a_file_is_fetched_is_not_the_store(tmp_path: Path) -> None:
    place = Location(f"memory://{tmp_path.name}")
    put_bytes(place.join("a"), b"x")
    (file,) = list_files(place)
    with pytest.raises(SfRayError, match=r"^/dev/full: no space is left .*on that disk"):
        copy_here(place, file, FULL)


def test_what_the_block_cannot_read_is_not_blamed_on_the_disk(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="damaged"), put_whole(Location(str(tmp_path / "out"))):
        raise OSError("damaged content")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("file/x", "File exists|Not a directory"),
        ("n" * 300, "File name too long"),
        ("folder", "directory|not found"),
        ("loop/x", "File exists|symbolic links"),
        ("none", "not found .*each machine"),
        ("a\0b", "null byte"),
    ],
)
def test_a_path_that_cannot_be_is_named_without_an_endpoint(
    tmp_path: Path, name: str, words: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    place = Location(f"{tmp_path}/{name}")
    asks = [read_bytes]
    if name != "none":
        asks += [lambda place: put_bytes(place, b"x"), lambda place: create_lease(place, b"x")]
    if name in ("file/x", "loop/x"):
        asks.append(list_files)
    for ask in asks:
        with pytest.raises(SfRayError, match=words) as error:
            ask(place)
        assert str(error.value).startswith(f"{tmp_path}/")
        for word in ("endpoint", "credentials", "bucket"):
            assert word not in str(error.value)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_a_lease_that_no_disk_takes_is_no_lease_of_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(path: Path, data: bytes) -> None:  # as a full disk does, after it made the name
        path.touch()
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(SfRayError, match=f"000001.json: .*{os.strerror(number)}"):
        create_lease(Location(str(tmp_path / "000001.json")), b"x")
    assert list(tmp_path.iterdir()) == []
