"""What lies at a place: files of any storage, with their versions. Reads none of them."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from stat import S_ISDIR
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from sf_ray.errors import SfRayError
from sf_ray.storage.clients import hides_missing_buckets
from sf_ray.storage.globs import depth_of, matcher, split_glob, whole_pattern
from sf_ray.storage.local_tree import is_hidden, walk
from sf_ray.storage.location import Location, storage_errors
from sf_ray.storage.rights import find_below


@dataclass(frozen=True)
class File:
    """A file in a listing.

    Attributes:
        path: Path in the spelling of the file system.
        relative: Path below the listed location, with forward slashes.
        size: Bytes.
        version: Changes when the content does: see `version_of`.
    """

    path: str
    relative: str
    size: int
    version: str

    def is_version(self, info: Mapping[str, Any]) -> bool:
        """Whether fsspec's details of the file, asked for later, are of the listed version."""
        return version_of(info) == self.version


# Where file systems tell the version of a file. Score pieces are named after versions, so a key
# keeps its place before those that the same file system also has; content goes before times.
_VERSION_KEYS = (
    "ETag", "etag",  # S3, Google, Azure, HTTP, and our view of the hub
    "blob_id", "xet_hash",  # huggingface_hub
    "mtime", "LastModified", "updated", "created",  # disks, SFTP, SMB, HDFS, memory
    "md5Checksum", "md5Hash", "content_md5", "Content-MD5", "Digest", "sha256", "sha", "hex",
    "checksum", "crc32c", "CRC", "generation", "version_id",  # Google Drive, GitHub, git, zip
    "modificationTime", "modification_time", "modifiedTime", "last_modified", "Last-Modified",
    "modified", "modify", "date_modified", "uploaded_at",  # WebHDFS, WebDAV, FTP, HTTP, buckets
    "last_commit",  # the hub again; a commit may leave the content as it was
)  # fmt: skip


@dataclass(frozen=True)
class Listing:
    """What lies at a place.

    Attributes:
        files: Sorted by relative path.
        left_out: Relative path -> why the files there are not listed.
    """

    files: list[File]
    left_out: dict[str, str]


def version_of(info: Mapping[str, Any]) -> str:
    """The version of a file: differs where the content does, and needs no reading.

    It is the file system's own: a hash of the content where there is one, else the time of the
    last change.

    Args:
        info: Details of the file, as fsspec's `info` returns them.

    Raises:
        SfRayError: The storage knows neither a hash nor a time.
    """
    for key in _VERSION_KEYS:
        value = info.get(key)
        if isinstance(value, datetime):  # one moment may print in two ways
            value = value.timestamp()
        if value is not None and value != "":
            return str(value).strip('"')
    raise SfRayError(
        f"{info.get('name')}: this storage tells neither an ETag nor another hash or time of the "
        f"file, only {', '.join(map(str, info))}: changed files could not be noticed; copy them "
        "to a disk or a bucket"
    )


def list_files(location: Location, suffix: str = "") -> list[File]:
    """Lists the files at a directory or file, recursively, sorted by relative path.

    Names that begin with `_` or `.` (markers, unfinished files) are skipped, as Hive, Spark and
    Hadoop do. A directory that does not exist has no files.

    Args:
        location: A directory or file. A `*` in it is part of a name.
        suffix: Only files whose path ends with this.

    Raises:
        SfRayError: The bucket does not exist, a link leads nowhere, or storage failed.
    """
    return _listing(location, location.path, None, suffix).files


def list_input(location: Location) -> Listing:
    """Lists as `list_files` does, at a place that may be a glob; says what cannot be listed.

    Args:
        location: A directory, file or glob.

    Raises:
        SfRayError: The bucket does not exist, a link leads nowhere, or storage failed.
    """
    root, pattern = split_glob(location)
    listing = _listing(location, root, pattern, "")
    if not listing.files and hides_missing_buckets(location.fs):
        location.call("info", root.partition("/")[0])
    return listing


def _listing(location: Location, root: str, pattern: str | None, suffix: str) -> Listing:
    """Lists the files below `root`, of which those that match `root`/`pattern`."""
    left_out: dict[str, str] = {}
    with storage_errors(location):
        fs = location.fs
        fs.invalidate_cache()
        if isinstance(fs, LocalFileSystem):
            infos, left_out = _local_infos(fs, root, pattern)
        elif pattern is None:
            infos = find_below(location, root)
        else:
            # Without folders: a folder would stand in the place of a file of the same name.
            glob = whole_pattern(root, pattern)
            infos = location.call("glob", glob, detail=True, withdirs=False)
    files = []
    for path, info in infos.items():
        relative = _relative(path, root)
        # fsspec's own `find` names a file that it was asked for, and does not describe it.
        info = info or location.call("info", path)
        if info["type"] != "file" or _has_hidden_part(relative):
            continue
        if relative.endswith("/"):  # a bucket's own way to have an empty folder
            if info["size"]:
                left_out[path] = "its name ends in '/', as those of folders do"
        elif path.endswith(suffix):
            files.append(File(path, relative, int(info["size"]), version_of(info)))
    return Listing(
        sorted(files, key=lambda file: file.relative),
        {_relative(path, root): reason for path, reason in sorted(left_out.items())},
    )


def _local_infos(
    fs: LocalFileSystem, root: str, pattern: str | None
) -> tuple[dict[str, Any], dict[str, str]]:
    """Path -> fsspec's details of the files below a local folder; path -> why it is left out."""
    try:
        is_folder = S_ISDIR(os.stat(root).st_mode)
    except FileNotFoundError:  # an absent directory has no files
        return {}, {}
    if not is_folder:
        return ({root: fs.info(root)} if pattern is None else {}), {}
    tree = walk(root, depth_of(pattern))
    paths = tree.files
    if pattern is not None:
        matches = matcher(root, pattern)
        paths = [path for path in paths if matches(path)]
    infos = {}
    for path in paths:
        try:
            infos[path] = fs.info(path)
        except FileNotFoundError:
            if os.path.islink(path):
                raise
            continue  # removed since its name was read
    return infos, tree.left_out


def _relative(path: str, root: str) -> str:
    if path == root:
        return path.rpartition("/")[2]
    # One slash only: in a bucket `a//b` is another file than `a/b`.
    return path.removeprefix(root.rstrip("/") + "/")


def _has_hidden_part(relative: str) -> bool:
    return any(map(is_hidden, relative.split("/")))


def overlap(one: Location, other: Location, one_is_input: bool = False) -> bool:
    """Whether the two locations are the same, or one lies inside the other.

    Args:
        one: A place.
        other: Another place.
        one_is_input: Whether `one` may be a glob, as the input may and nothing else.
    """
    if type(one.fs) is not type(other.fs):
        return False
    root = split_glob(one)[0] if one_is_input else one.path
    roots, other_path = [root], other.path
    if isinstance(one.fs, LocalFileSystem):
        if one_is_input and os.path.isdir(root):  # links to folders are read as well
            roots += walk(root).links
        roots, other_path = [os.path.realpath(path) for path in roots], os.path.realpath(other_path)
    other_path = other_path.rstrip("/") + "/"
    return any(
        path.startswith(other_path) or other_path.startswith(path)
        for path in (root.rstrip("/") + "/" for root in roots)
    )
