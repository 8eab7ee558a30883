"""Names of files that others chose: which can be used, and what files of ours are named after them.

A name is bytes: it is never parsed. A bucket has names that a disk cannot have, a disk some that
are no text, and a few client libraries cut names. What cannot be kept apart, read back or written
is refused by name while a corpus is planned. Knows no corpus and no Ray.
"""

import errno
import hashlib
import os
import secrets
import unicodedata
from collections.abc import Iterable, Sequence

from sf_ray.errors import SfRayError
from sf_ray.storage.files import is_there, put_bytes, remove
from sf_ray.storage.location import Location

# A score piece has the name of its shard and 47 bytes more; disks take 255 bytes between slashes.
_PART_BYTES = 200
# S3, Google and Azure take 1,024 bytes in all, of which SCORES and the score set need some.
_STEM_BYTES, _KEY_BYTES = 600, 1024
# Names with this are cut by s3fs and adlfs, whose path would then be that of another object.
_VERSION_SUFFIX = "?versionid="
# Where a name may be a file and a folder of others at once.
_FLAT = {"s3", "s3a", "gs", "gcs"}


def written_name(relative: str) -> str:
    """The path, below OUTPUT/data, of what is written of a shard; no two shards have the same.

    A bucket may hold `c//p` beside `c/p`. An empty part, which no disk can have, becomes `%`; and a
    part that is `%` already, or several, gets one more. All other names stay as they are.

    Args:
        relative: Path of the shard, relative to the corpus.
    """
    return "/".join(part if part.strip("%") else part + "%" for part in relative.split("/"))


def piece_name(relative: str) -> str:
    """The beginning of the names of a shard's score pieces: its own name, or a hash of a long one.

    Args:
        relative: Path of the shard, relative to the corpus.
    """
    name = written_name(relative.removesuffix(".parquet"))
    parts = [os.fsencode(part) for part in name.split("/")]
    if max(map(len, parts)) <= _PART_BYTES and sum(map(len, parts)) + len(parts) <= _STEM_BYTES:
        return name
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def as_text(name: str) -> str:
    """A name with its bytes that are no UTF-8 as hexadecimal escapes, for errors and manifests."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def why_unusable(location: Location, name: str) -> str:
    """Why a file of this name can be read or recorded by nobody here; "" where it can.

    Args:
        location: The place that was listed.
        name: Name of a file there.
    """
    if as_text(name) != name:
        return "its name is not UTF-8, so that no manifest can hold it; rename it"
    if location.is_remote and _VERSION_SUFFIX in name.lower():
        return "its name has '?versionId=', where storage clients cut it; rename it"
    return ""


def refuse_names(place: Location, names: Sequence[str]) -> None:
    """Refuses names that cannot all be written below a place, before anything is scored.

    Storage is asked only where names are so long or so alike that it may be unable.

    Args:
        place: The folder that the files go to.
        names: Their paths below it, from `written_name`.

    Raises:
        SfRayError: Names the files.
    """
    _refuse_long(place, names)
    _refuse_files_that_are_folders(place, names)
    _refuse_alike(place, names)


def _refuse_long(place: Location, names: Iterable[str]) -> None:
    path, where = place.path, place.public_uri
    for name in names:
        size = len(f"{path}/{name}".encode())
        if size <= _PART_BYTES:
            continue
        if place.is_remote:
            is_long = size - len(path.partition("/")[0].encode()) - 1 > _KEY_BYTES
        else:
            is_long = _is_refused_by_disk(f"{path}/{name}")
        if is_long:
            raise SfRayError(
                f"{where}: cannot hold the shard {name}: this storage takes no name of that "
                "length; choose an OUTPUT with a shorter path, or --order ifd, which makes names "
                "of its own"
            )


def _is_refused_by_disk(path: str) -> bool:
    try:
        os.lstat(path)
    except OSError as error:
        return error.errno == errno.ENAMETOOLONG
    return False


def _refuse_files_that_are_folders(place: Location, names: Sequence[str]) -> None:
    protocol = place.fs.protocol
    if _FLAT & {protocol, *(protocol if isinstance(protocol, tuple) else ())}:
        return
    known = set(names)
    for name in names:
        folder = name
        while "/" in folder:
            folder = folder.rpartition("/")[0]
            if folder in known:
                raise SfRayError(
                    f"{place.public_uri}: cannot hold both shards {folder} and {name}: here a "
                    "name is a file or a folder; choose an OUTPUT in a bucket, a narrower INPUT, "
                    "or --order ifd, which makes names of its own"
                )


def _refuse_alike(place: Location, names: Iterable[str]) -> None:
    """Refuses names that this storage takes for one, as some disks do with `A` and `a`."""
    first: dict[str, str] = {}
    for name in names:
        alike = first.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if alike == name:
            continue
        if not _takes_for_one(place):
            return
        raise SfRayError(
            f"{place.public_uri}: this storage takes the names of the shards {alike} and {name} "
            "for one; choose another OUTPUT, or --order ifd, which makes names of its own"
        )


def _takes_for_one(place: Location) -> bool:
    """Whether a file is found under a name in other case, or with its accent written apart."""
    token = secrets.token_hex(6)
    probe = place.join(f"_lease/.probe-\u00e9-{token}")
    put_bytes(probe, b"is there another name for this?")
    try:
        others = (f".PROBE-\u00c9-{token.upper()}", f".probe-e\u0301-{token}")
        return any(is_there(place.join(f"_lease/{other}")) for other in others)
    finally:
        remove(probe)
