import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sf_ray.errors import SfRayError
from sf_ray.storage.files import (
    list_files,
    map_requests,
    overlap,
    put_bytes,
    put_whole,
    read_bytes,
    read_bytes_or_none,
    remove,
    version_of,
)
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
    assert [f.relative for f in list_files(place.join("*/1.parquet"))] == [
        "b/1.parquet",
        "c/1.parquet",
    ]


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
    assert overlap(local("a/*.parquet"), local("a/out"))
    assert not overlap(local("a"), local("ab"))
    assert not overlap(local("a"), Location("memory://a"))
    (tmp_path / "link").symlink_to(tmp_path / "a")
    (tmp_path / "a").mkdir()
    assert overlap(local("a"), local("link/out"))


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
