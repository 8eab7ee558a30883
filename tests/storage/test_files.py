import os
import threading
import time
import zipfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from sf_ray.errors import SfRayError
from sf_ray.storage.files import (
    map_requests,
    put_bytes,
    put_whole,
    read_bytes,
    read_bytes_or_none,
    remove,
)
from sf_ray.storage.listing import list_files, list_input, overlap, version_of
from sf_ray.storage.local_tree import LISTED_ALREADY
from sf_ray.storage.location import Location


def test_files_are_listed_in_order_with_relative_names(place: Location) -> None:
    for name in ("b/2.parquet", "a.parquet", "b/10.parquet", "_SUCCESS", "b/.hidden.parquet"):
        put_bytes(place.join(name), b"x" * len(name))
    files = list_files(place)
    assert [file.relative for file in files] == ["a.parquet", "b/10.parquet", "b/2.parquet"]
    assert [file.size for file in files] == [9, 12, 11]
    assert list_files(place, "2.parquet")[0].relative == "b/2.parquet"


def test_a_file_and_a_glob_are_corpora_too(place: Location) -> None:
    for name in ("b/2.parquet", "b/1.parquet", "c/1.parquet"):
        put_bytes(place.join(name), b"x")
    assert [f.relative for f in list_files(place.join("b/1.parquet"))] == ["1.parquet"]
    found = list_input(place.join("*/1.parquet")).files
    assert [file.relative for file in found] == ["b/1.parquet", "c/1.parquet"]


# Characters that mean something to globs, URIs or shells. A `?` begins the query of some URIs.
ODD_NAMES = ["v1 [test]", "[v1]", "a*b", "what?", "a#1", "a%20b", "a b", "ü日本", "c+d&e", "{x}"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_name_that_exists_is_no_glob(place: Location, name: str) -> None:
    put_bytes(place.join(f"{name}/x{name}.jsonl"), b"x")
    put_bytes(place.join("v/x.jsonl"), b"x")  # what some of the names would match
    folder = place.join(name)
    for listed in (list_files(folder), list_input(folder).files):
        assert [file.relative for file in listed] == [f"x{name}.jsonl"]
        assert read_bytes(replace(place, uri=f"{place.uri}/{name}/{listed[0].relative}")) == b"x"
    file = folder.join(f"x{name}.jsonl")
    assert [found.relative for found in list_input(file).files] == [f"x{name}.jsonl"]
    below = list_input(folder.join("*.jsonl")).files
    assert [found.relative for found in below] == [f"x{name}.jsonl"]
    assert list_input(place.join("none/[x]")).files == []


@pytest.mark.parametrize("name", ["v1::en", "a::b::c"])
@pytest.mark.parametrize("scheme", ["local", pytest.param("s3", marks=pytest.mark.s3)])
def test_two_colons_may_be_part_of_a_name(
    tmp_path: Path, name: str, scheme: str, request: pytest.FixtureRequest
) -> None:
    place = Location(str(tmp_path))
    if scheme == "s3":
        s3 = request.getfixturevalue("s3")
        place = Location(s3.bucket, s3.options)
    put_bytes(place.join(f"{name}/{name}.jsonl"), b"x")
    assert [file.relative for file in list_files(place.join(name))] == [f"{name}.jsonl"]
    assert read_bytes(place.join(f"{name}/{name}.jsonl")) == b"x"


def test_two_colons_lead_from_one_file_system_to_the_next(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("b.jsonl", b"12")
    for inside in (f"zip://b.jsonl::{tmp_path}/a.zip", f"zip://b.jsonl::file://{tmp_path}/a.zip"):
        assert read_bytes(Location(inside)) == b"12"


def test_an_output_is_never_a_glob(tmp_path: Path) -> None:
    place = Location(str(tmp_path))
    put_bytes(place.join("a/1.parquet"), b"x")
    assert list_files(place.join("*")) == []
    assert not overlap(place.join("a"), place.join("*"))
    assert overlap(place.join("*/1.parquet"), place.join("b"), one_is_input=True)
    assert not overlap(place.join("[a]/data"), place.join("[a]/scores"))


def test_links_to_files_are_files(tmp_path: Path) -> None:
    place = Location(str(tmp_path / "place"))
    put_bytes(Location(str(tmp_path / "blobs/a1")), b"12345")
    put_bytes(place.join("b.parquet"), b"123")
    (tmp_path / "place/a.parquet").symlink_to("../blobs/a1")  # as a hub's cache has them
    before = list_files(place)
    assert [(file.relative, file.size) for file in before] == [("a.parquet", 5), ("b.parquet", 3)]
    assert read_bytes(place.join("a.parquet")) == b"12345"
    put_bytes(Location(str(tmp_path / "blobs/a1")), b"54321")
    assert list_files(place)[0].version != before[0].version
    (tmp_path / "blobs/a1").unlink()
    with pytest.raises(SfRayError, match="not found"):
        list_files(place)


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    place, store = tmp_path / "place", tmp_path / "store"
    for path in (place / "real/1.jsonl", store / "2.jsonl", store / "deep/3.jsonl"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    (place / "b").symlink_to(store)
    (place / "a").symlink_to(place / "real")  # listed under its own name
    (place / "c").symlink_to(store)
    (store / "up").symlink_to(place)  # a circle
    (place / ".hidden").symlink_to(store)
    listing = list_input(Location(str(place)))
    assert [f.relative for f in listing.files] == ["b/2.jsonl", "b/deep/3.jsonl", "real/1.jsonl"]
    assert listing.left_out == dict.fromkeys(["a", "b/up", "c"], LISTED_ALREADY)
    assert list_files(Location(str(place))) == listing.files
    pattern = list_input(Location(f"{place}/*/2.jsonl"))
    assert [file.relative for file in pattern.files] == ["b/2.jsonl"]


def test_what_is_no_file_and_cannot_be_read_is_left_out_with_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Location(str(tmp_path))
    put_bytes(place.join("lost+found/1.jsonl"), b"x")
    put_bytes(place.join("2.jsonl"), b"x")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "self").symlink_to("self")
    scandir = os.scandir

    def denied(path: str) -> Any:
        if path.endswith("lost+found"):
            raise PermissionError(13, "denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    listing = list_input(place)
    assert [file.relative for file in listing.files] == ["2.jsonl"]
    assert listing.left_out == {
        "lost+found": "a folder that may not be read",
        "pipe": "neither a file nor a folder",
        "self": "Too many levels of symbolic links",
    }


def test_another_content_has_another_version(place: Location) -> None:
    put_bytes(place.join("a"), b"one")
    before = list_files(place)[0].version
    assert list_files(place)[0].version == before
    put_bytes(place.join("a"), b"two")
    assert list_files(place)[0].version != before


_TIME = datetime(2026, 11, 24, tzinfo=UTC)


@pytest.mark.parametrize(
    ("details", "version"),
    [
        ({"ETag": '"abc"', "LastModified": _TIME}, "abc"),  # S3
        ({"etag": "CJ+=", "md5Hash": "x==", "generation": "1", "updated": "2026"}, "CJ+="),  # GCS
        ({"etag": "0x8D", "last_modified": _TIME, "content_md5": None}, "0x8D"),  # Azure
        ({"created": 1.5, "mtime": 2.5, "ino": 3}, "2.5"),  # a disk
        ({"time": _TIME, "mtime": _TIME}, str(_TIME.timestamp())),  # SFTP, SMB, HDFS
        ({"created": _TIME}, str(_TIME.timestamp())),  # memory
        ({"blob_id": "e69d", "lfs": None, "xet_hash": None, "last_commit": None}, "e69d"),  # hub
        ({"xet_hash": "77", "mtime": _TIME, "uploaded_at": _TIME}, "77"),  # a bucket of the hub
        ({"modificationTime": 1790000000000, "owner": "x"}, "1790000000000"),  # WebHDFS
        ({"ETag": "W/1", "Content-MD5": "q=="}, "W/1"),  # HTTP
        ({"Content-MD5": "q==", "Last-Modified": "Tue"}, "q=="),
        ({"mimetype": "text/plain", "Last-Modified": "Tue, 24 Nov"}, "Tue, 24 Nov"),
        ({"mode": "100644", "sha": "e69d"}, "e69d"),  # GitHub
        ({"mode": "100644", "hex": "e69d"}, "e69d"),  # git
        ({"CRC": 0, "date_time": (2026, 1, 1, 0, 0, 0)}, "0"),  # zip
        ({"modify": "20261124"}, "20261124"),  # FTP
        ({"modified": _TIME, "etag": None}, str(_TIME.timestamp())),  # WebDAV
        ({"last_commit": "LastCommitInfo(oid='1')"}, "LastCommitInfo(oid='1')"),
    ],
)
def test_each_file_system_tells_versions_in_its_own_words(
    details: dict[str, object], version: str
) -> None:
    assert version_of({"name": "a", "type": "file", "size": 1, **details}) == version


def test_a_file_without_a_version_is_refused_with_what_is_known() -> None:
    with pytest.raises(SfRayError, match="a: .*only name, size, type: .*copy them to a disk"):
        version_of({"name": "a", "size": 1, "type": "file"})


def test_what_is_written_is_whole_or_not_there(place: Location) -> None:
    with pytest.raises(RuntimeError), put_whole(place.join("a")) as path:
        path.write_bytes(b"half")
        raise RuntimeError("killed")
    assert read_bytes_or_none(place.join("a")) is None
    put_bytes(place.join("a"), b"whole")
    assert read_bytes(place.join("a")) == b"whole"
    remove(place.join("a"))
    remove(place.join("a"))
    assert read_bytes_or_none(place.join("a")) is None


def test_an_unfinished_local_file_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), put_whole(Location(str(tmp_path / "a"))):
        raise RuntimeError("killed")
    assert list(tmp_path.iterdir()) == []


def test_places_inside_each_other_are_noticed(tmp_path: Path) -> None:
    def local(name: str) -> Location:
        return Location(str(tmp_path / name))

    assert overlap(local("a"), local("a/b"))
    assert overlap(local("a/b"), local("a"))
    assert overlap(local("a"), local("./a"))
    assert overlap(local("a/*.parquet"), local("a/out"), one_is_input=True)
    assert not overlap(local("a"), local("ab"))
    assert not overlap(local("a"), Location("memory://a"))
    (tmp_path / "link").symlink_to(tmp_path / "a")
    (tmp_path / "a").mkdir()
    assert overlap(local("a"), local("link/out"))
    (tmp_path / "a/in").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    assert overlap(local("a"), local("elsewhere/out"), one_is_input=True)


@pytest.mark.parametrize("uri", ["somewhere", "memory://somewhere"])
def test_requests_are_made_several_at_a_time_and_answered_in_order(uri: str) -> None:
    location, asked, at_once = Location(uri), [], threading.Semaphore(3)

    def request(number: int) -> int:
        assert at_once.acquire(blocking=False), "more at once than was said"
        asked.append(number)
        time.sleep(0.01 * (number % 3))
        at_once.release()
        if number == 40:
            raise SfRayError("this one fails")
        return number * number

    answers = map_requests(location, request, range(100), 3)
    assert asked == []
    assert [next(answers) for _ in range(30)] == [n * n for n in range(30)]
    assert len(asked) <= 33
    with pytest.raises(SfRayError, match="this one fails"):
        list(answers)
    assert len(asked) < 50
    assert list(map_requests(location, request, [], 3)) == []
