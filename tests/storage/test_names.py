import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sf_ray.errors import SfRayError
from sf_ray.storage.files import put_bytes, read_bytes, remove
from sf_ray.storage.listing import list_input
from sf_ray.storage.location import Location
from sf_ray.storage.names import (
    as_text,
    piece_name,
    refuse_names,
    why_unusable,
    written_name,
)
from tests.support.storage import S3

# What means something to URLs, chains of file systems, globs, shells or terminals.
PIECES = [
    "/", "//", "::", "://", "s3://b/", "file:", "zip::", "?", "#", "%", "%2F", "%%", " ", "*",
    "[v]", "{", "\\", "\x1b[2J", "\r", "~", "+", "&", "@", "\u00e9", "e\u0301", "A", "a", ".gz",
    ".jsonl", "c/p", "c//p", "n" * 250,
]  # fmt: skip
strange = st.lists(st.sampled_from(PIECES), min_size=1, max_size=6).map("".join)


@given(st.lists(st.one_of(strange, st.text("/%ab", max_size=6)), unique=True, max_size=30))
def test_no_two_shards_are_written_under_one_name(names: list[str]) -> None:
    written = [written_name(name) for name in names]
    assert len({os.path.normpath(f"/out/{name}") for name in written}) == len(names)
    assert all("" not in name.split("/") for name in written)
    assert len({piece_name(name) for name in names if not name.endswith(".parquet")}) == len(
        {name for name in names if not name.endswith(".parquet")}
    )


@given(strange)
def test_names_of_score_pieces_fit_on_a_disk(name: str) -> None:
    piece = piece_name(name) + ".0123456789ab.000000000000-000000000999.parquet"
    assert max(len(os.fsencode(part)) for part in piece.split("/")) <= 255
    assert len(os.fsencode(piece)) < 1024 - 300  # what SCORES itself may take


@pytest.mark.parametrize("name", ["a.jsonl", "b/c.jsonl.gz", "100%.jsonl", "%2F/x.jsonl", "é/[v1]"])
def test_other_names_stay_as_they_are(name: str) -> None:
    assert written_name(name) == piece_name(name) == name


@given(st.lists(strange.filter(lambda name: len(name) < 200), unique=True, max_size=12))
def test_what_is_joined_is_read_back_from_a_disk_and_from_memory(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("names")
    for place in (Location(str(folder)), Location(f"memory://{folder.name}")):
        _write_and_read_back(place, [*names, *(f"two\nlines{name}" for name in names)])


@pytest.mark.s3
def test_what_is_joined_is_read_back_from_a_bucket(s3: S3) -> None:
    names = [
        f"{before}{piece}{after}"
        for piece in PIECES
        for before in ("", "x")
        for after in ("", "y.z")
    ]
    _write_and_read_back(Location(f"{s3.bucket}/out", s3.options), names)


def _write_and_read_back(place: Location, names: list[str]) -> None:
    # A name that is also a folder of another one is no name that one place holds.
    written = {name: written_name(name) for name in names}
    folders = {name[:at] for name in written.values() for at in range(len(name)) if name[at] == "/"}
    kept = {n: w for n, w in written.items() if w not in folders and not _has_hidden(w)}
    for name, target in kept.items():
        put_bytes(place.join(target), name.encode())
    listed = {file.relative for file in list_input(place).files}
    assert listed == set(kept.values())
    for name, target in kept.items():
        assert read_bytes(place.join(target)) == name.encode()
        remove(place.join(target))


def _has_hidden(name: str) -> bool:
    return any(part.startswith((".", "_")) for part in name.split("/"))


@pytest.mark.s3
def test_a_bucket_s_keys_are_told_apart_and_its_folder_markers_are_no_files(s3: S3) -> None:
    place = Location(f"{s3.bucket}/in", s3.options)
    keys = ["c/p.jsonl", "c//p.jsonl", "/lead.jsonl", "lead.jsonl", "f.jsonl", "f.jsonl/g.jsonl"]
    for key in keys:
        place.fs.pipe_file(f"{place.path}/{key}", key.encode())
    bucket = s3.bucket.removeprefix("s3://")
    for key, body in (("m.jsonl/", b""), ("d/", b""), ("full.jsonl/", b"{}")):
        place.fs.call_s3("put_object", Bucket=bucket, Key=f"in/{key}", Body=body)
    for listing in (list_input(place), list_input(place.join("**"))):
        assert sorted(file.relative for file in listing.files) == sorted(keys)
        assert all(
            read_bytes(Location(f"s3://{file.path}", s3.options)) == file.relative.encode()
            for file in listing.files
        )
        assert listing.left_out == {"full.jsonl/": "its name ends in '/', as those of folders do"}


def test_a_name_that_is_no_text_or_is_cut_by_clients_is_unusable() -> None:
    disk, bucket = Location("/data"), Location("s3://bucket/in")
    assert "not UTF-8" in why_unusable(disk, os.fsdecode(b"a\xff.jsonl"))
    assert as_text(os.fsdecode(b"a\xff.jsonl")) == "a\\xff.jsonl"
    assert "'?versionId='" in why_unusable(bucket, "q?versionId=3.jsonl")
    assert why_unusable(disk, "q?versionId=3.jsonl") == why_unusable(bucket, "q?v#%2F.jsonl") == ""


def test_names_that_a_disk_cannot_hold_are_refused(tmp_path: Path) -> None:
    place = Location(str(tmp_path / "out"))
    fine = ["a.jsonl", "a.jsonl.gz", "A.jsonl", "\u00e9", "e\u0301", "b/c", "b/d/e", "n" * 255]
    refuse_names(place, fine)
    assert list(tmp_path.rglob(".probe*")) == []
    for names, words in (
        (["n" * 256], "takes no name of that length"),
        ([f"{'x/' * 2500}y"], "takes no name of that length"),
        (["b", "b/c/d"], "cannot hold both shards b and b/c/d"),
    ):
        with pytest.raises(SfRayError, match=words):
            refuse_names(place, names)


@pytest.mark.s3
def test_names_that_a_bucket_cannot_hold_are_refused(s3: S3) -> None:
    place = Location(f"{s3.bucket}/out", s3.options)
    refuse_names(place, ["b", "b/c/d", "A", "a", "n" * (1024 - len("out/"))])
    with pytest.raises(SfRayError, match="takes no name of that length"):
        refuse_names(place, ["n" * (1025 - len("out/"))])


@pytest.mark.parametrize(
    "names", [["x/A.jsonl", "x/a.jsonl"], ["\u00e9.jsonl", "e\u0301.jsonl"]], ids=ascii
)
def test_names_that_a_disk_takes_for_one_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str]
) -> None:
    # A disk that is blind to case or to the way that an accent is written, as two systems have it.
    monkeypatch.setattr(
        "sf_ray.storage.names.is_there", lambda place: "probe-e" in place.public_uri
    )
    with pytest.raises(SfRayError, match="takes the names of the shards .* for one"):
        refuse_names(Location(str(tmp_path)), names)
    assert list(tmp_path.rglob(".probe*")) == []
