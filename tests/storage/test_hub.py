"""Repositories of the hub, as a stand-in serves them over HTTP."""

import io
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sf_ray.corpus.readers.shard import open_shard, read_footer
from sf_ray.errors import BadShardError, SfRayError
from sf_ray.storage.files import copy_here, is_there, read_bytes
from sf_ray.storage.listing import list_files, list_input, version_of
from sf_ray.storage.location import Location
from sf_ray.storage.versioned_file import open_bytes, read_range
from tests.support.hub import Hub

NAME = "datasets/o/n"
LARGE = bytes(range(256)) * 40


def place(below: str = "", retry_s: float = 5) -> Location:
    return Location(f"hf://{NAME}{below}", retry_s=retry_s)


@pytest.mark.parametrize(
    ("below", "names"),
    [
        ("", ["README.md", "a/1.parquet", "a/b/2.parquet", "c.jsonl"]),
        ("/", ["README.md", "a/1.parquet", "a/b/2.parquet", "c.jsonl"]),
        ("@main/a", ["1.parquet", "b/2.parquet"]),
        ("/a/1.parquet", ["1.parquet"]),
        ("/**/*.parquet", ["a/1.parquet", "a/b/2.parquet"]),
        ("@main/a/*.parquet", ["1.parquet"]),
        ("@v1", ["old.parquet"]),
        ("@refs%2Fconvert%2Fparquet/default", ["0.parquet"]),
        ("@refs/convert/parquet/*/0.parquet", ["default/0.parquet"]),
        ("/absent", []),
    ],
)
def test_repositories_directories_files_and_globs_are_listed(
    hub: Hub, below: str, names: list[str]
) -> None:
    files = {"README.md": b"", "a/1.parquet": LARGE, "a/b/2.parquet": b"2", "c.jsonl": b"3"}
    hub.put(NAME, {**files, ".gitattributes": b""})
    hub.put(NAME, {"old.parquet": b"old"}, "v1")
    hub.put(NAME, {"default/0.parquet": b"0"}, "refs/convert/parquet")
    found = list_input(place(below)).files
    assert [file.relative for file in found] == names
    for file in found:  # what the listing calls a version, a later question calls the same
        assert version_of(place(below).call("info", file.path)) == file.version


@pytest.mark.parametrize("name", ["a#b.jsonl", "50%.jsonl", "a%20b.jsonl", "é ?.jsonl", "x@v2/y"])
def test_names_mean_what_they_say(hub: Hub, name: str, tmp_path: Path) -> None:
    hub.put(NAME, {name: LARGE}, "v/1")
    (file,) = list_files(place("@v%2F1"))
    assert file.relative == name
    assert read_bytes(place(f"@v%2F1/{name}")) == LARGE
    copy_here(place("@v%2F1"), file, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == LARGE


def test_a_listing_asks_once_for_a_thousand_files(hub: Hub) -> None:
    hub.put(NAME, {f"{i:05d}.jsonl": b"x" for i in range(2500)})
    assert len(list_files(place())) == 2500
    assert len(hub.requests) == 1 + 3  # the repository; pages of 1,000


def test_a_read_is_one_request_for_just_its_bytes(hub: Hub) -> None:
    hub.put(NAME, {"small": b"0123456789", "large": LARGE})
    large, small = list_files(place())
    hub.requests.clear()
    assert read_range(place(), small, 2, 5) == b"234"
    assert read_range(place(), large, 1000, 3000) == LARGE[1000:3000]
    assert [request.rpartition(" ")[2] for request in hub.requests] == [
        "bytes=2-4", "bytes=1000-2999", "bytes=1000-2999",
    ]  # fmt: skip


def test_a_shard_is_read_in_ranges(hub: Hub) -> None:
    table = pa.table({"text": [f"text of row {i}" for i in range(3000)], "n": range(3000)})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=500, compression="none")
    hub.put(NAME, {"0.parquet": buffer.getvalue()})
    (file,) = list_files(place())
    assert sum(read_footer(place(), file).row_groups) == 3000
    with open_shard(place(), file) as reader:
        assert pa.Table.from_batches(reader.batches(1000)).equals(table)
    assert all(
        "bytes=" in asked for asked in hub.requests if "/resolve/" in asked and "GET" in asked
    )


@pytest.mark.parametrize("content", [b"first", LARGE])
@pytest.mark.parametrize("heads_tell", [True, False])
def test_a_commit_between_listing_and_reading_is_noticed(
    hub: Hub, content: bytes, heads_tell: bool
) -> None:
    hub.heads_tell = heads_tell
    hub.put(NAME, {"a": content, "b": b"same"})
    hub.put(NAME, {"a": content}, "v1")
    a, b = list_files(place())
    (pinned,) = list_files(place("@v1"))
    for _ in range(3):
        with open_bytes(place(), a) as handle:
            assert handle.read() == content
    hub.put(NAME, {"a": content[::-1], "b": b"same"})
    with pytest.raises(BadShardError, match="changed while the job ran"), open_bytes(place(), a):
        pass
    for location, file in ((place(), b), (place("@v1"), pinned)):
        with open_bytes(location, file) as handle:
            handle.read()
    with pytest.raises(BadShardError, match="changed while"), open_bytes(place(), b):
        hub.put(NAME, {"b": b"other"})
    hub.put(NAME, {"c": b""})
    with pytest.raises(BadShardError, match="disappeared while"), open_bytes(place(), b):
        pass


def test_the_api_is_asked_about_files_no_more_often_than_needed(hub: Hub) -> None:
    hub.put(NAME, {f"{i}": LARGE[: 150 * i] for i in range(30)})
    files = list_files(place())
    for file in files:
        assert version_of(place().call("info", file.path)) == file.version
    assert hub.counted("POST") == 2  # one for small files and one for large ones
    assert hub.counted("HEAD") == 30


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_may_pass_is_asked_again(hub: Hub, status: int) -> None:
    hub.put(NAME, {"a": b"data"})
    assert read_bytes(place("/a")) == b"data"
    hub.answers = [status] * 2
    assert read_bytes(place("/a")) == b"data"
    hub.answers = [status] * 2
    assert is_there(place("/a"))
    hub.answers = [status] * 100
    with pytest.raises(SfRayError, match=f"/a: storage failed for 0.1 s .*{status}"):
        read_bytes(place("/a", retry_s=0.1))


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("hf://datasets/o/absent", "not found (no such repository"),
        ("hf://datasets/o/n@absent/a", "not found (the repository has no such revision"),
        ("hf://datasets/o/n/absent", "not found (no such file in this revision"),
        ("hf://datasets/o", "must be 'namespace/name'"),
        ("hf://", "hf://: cannot be opened"),
        ("hf://dataset/o/n/a", "Did you mean 'datasets/'"),
    ],
)
def test_what_is_not_there_is_named_at_once(hub: Hub, uri: str, words: str) -> None:
    hub.put(NAME, {"a": b"data"})
    with pytest.raises(SfRayError) as error:
        read_bytes(Location(uri))
    assert words in str(error.value)
    assert str(error.value).startswith(uri)


@pytest.mark.parametrize(("status", "allowed"), [(401, False), (403, False), (401, True)])
def test_what_a_token_may_not_read_is_refused_at_once(
    hub: Hub, status: int, allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.put(NAME, {"a": b"data"})
    if not allowed:
        for asked in (lambda: read_bytes(place("/a")), lambda: list_input(place("/*"))):
            Location("hf://x/y").fs.invalidate_cache()
            hub.answers = [status]
            with pytest.raises(SfRayError, match=f"access denied .*{status}.*HF_TOKEN"):
                asked()
        return
    hub.tokens = {"hf_good"}
    with pytest.raises(SfRayError, match="access denied .*401.*HF_TOKEN"):
        list_files(place())
    for location in (place(), replace(place(), storage_options={"token": "hf_good"})):
        monkeypatch.setenv("HF_TOKEN", "hf_good")
        location.fs.invalidate_cache()
        (file,) = list_files(location)
        assert read_range(location, file, 0, 4) == b"data"
        assert "hf_good" not in repr(location)
        monkeypatch.delenv("HF_TOKEN")


def test_offline_is_said_and_no_request_is_made(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for asked in (list_files, read_bytes):
        with pytest.raises(SfRayError, match="^hf://datasets/o/n.*: HF_HUB_OFFLINE .*unset it"):
            asked(place("/a"))
    assert hub.requests == []


def test_a_hub_that_cannot_be_reached_is_named(hub: Hub) -> None:
    location = Location("hf://datasets/o/n/a", {"endpoint": "http://127.0.0.1:1"}, retry_s=0.1)
    with pytest.raises(SfRayError, match="storage failed for 0.1 s .*check the endpoint"):
        read_bytes(location)
