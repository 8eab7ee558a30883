"""Files of any storage: list them with their versions, read them, put them atomically.

Knows no Ray and no model, and nothing of what is in a file, except that `put_table` writes Parquet.
"""

import os
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from stat import S_ISDIR
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from sf_ray.errors import SfRayError
from sf_ray.storage.clients import hides_missing_buckets
from sf_ray.storage.failures import failed_to_write, is_missing
from sf_ray.storage.globs import depth_of, matcher, split_glob, whole_pattern
from sf_ray.storage.local_tree import is_hidden, walk
from sf_ray.storage.location import Location, storage_errors
from sf_ray.storage.rights import find_below

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


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


def map_requests(
    location: Location,
    function: Callable[[_Item], _Result],
    items: Iterable[_Item],
    at_once: int = 16,
) -> Iterator[_Result]:
    """Applies a function that waits for storage to many items; yields the results in order.

    Local storage answers at once, so there the calls run one after the other in this thread.

    Args:
        location: The storage that the function waits for.
        function: Called in a thread.
        items: Its arguments.
        at_once: Calls in flight at a time; also how many results are held at most.
    """
    if not location.is_remote:
        yield from map(function, items)
        return
    waiting: deque[Future[_Result]] = deque()
    with ThreadPoolExecutor(at_once) as threads:
        for item in items:
            waiting.append(threads.submit(function, item))
            if len(waiting) == at_once:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def read_bytes(location: Location, size: int = 0) -> bytes:
    """Reads a whole file.

    Args:
        location: The file.
        size: Bytes of the file, where known: the time-out of an attempt grows with them.

    Raises:
        SfRayError: The file does not exist (`is_missing` says so), or storage failed.
    """
    data: bytes = location.call("cat_file", location.path, size=size)
    return data


def read_bytes_or_none(location: Location) -> bytes | None:
    """Reads a whole small file; None where it does not exist."""
    try:
        return read_bytes(location)
    except SfRayError as error:
        if is_missing(error):
            return None
        raise


class TooLargeError(SfRayError):
    """A file has more bytes than any of its kind that sf_ray wrote."""


def read_bounded(location: Location, limit: int) -> bytes:
    """Reads a whole file that should be small.

    One request for the first bytes, and none for the size: a size could change until the read, and
    some who may read a file may not ask about it.

    Args:
        location: The file.
        limit: Bytes that the file may have.

    Raises:
        TooLargeError: The file is larger.
        SfRayError: It does not exist (`FileNotFoundError` is the cause), or storage failed.
    """
    try:
        data: bytes = location.call("cat_file", location.path, start=0, end=limit + 1)
    except SfRayError as error:
        # Stores refuse a range of an empty object.
        if isinstance(error.__cause__, (FileNotFoundError, PermissionError)) or _size(location):
            raise
        return b""
    if len(data) > limit:
        raise TooLargeError(
            f"{location.public_uri}: larger than {limit:,} bytes, which no file of this name has "
            "that sf_ray wrote; move it away"
        )
    return data


def read_bounded_or_none(location: Location, limit: int) -> bytes | None:
    """Reads a whole small file; None where it does not exist."""
    try:
        return read_bounded(location, limit)
    except SfRayError as error:
        if is_missing(error):
            return None
        raise


def _size(location: Location) -> int:
    size: int = location.call("info", location.path)["size"]
    return size


def is_there(location: Location) -> bool:
    """Whether a file exists, found by one request without reading the file."""
    try:
        location.call("info", location.path)
    except SfRayError as error:
        if is_missing(error):
            return False
        raise
    return True


def size_or_none(location: Location) -> int | None:
    """Bytes of a file, found by one request; None where it does not exist."""
    try:
        return int(location.call("info", location.path)["size"])
    except SfRayError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise


def copy_here(location: Location, file: File, target: Path) -> None:
    """Copies a file to this machine's disk."""
    try:
        location.call("get_file", file.path, str(target), size=file.size)
    except SfRayError as error:
        if error.__cause__ is None or not failed_to_write(error.__cause__):
            raise
        with storage_errors(Location(str(target))):
            raise error.__cause__ from None


@contextmanager
def put_whole(location: Location) -> Iterator[Path]:
    """Yields a local path to write to; afterwards the file appears whole at `location`.

    Where the block raises, nothing appears. Object stores have no rename, and an fsspec file that
    an exception closes would commit a part of the content. Therefore the content is complete on the
    local disk before one call uploads it.
    """
    is_local = not location.is_remote
    # What goes wrong before the upload goes wrong on this machine's disk, and is said of that.
    disk = location if is_local else Location(tempfile.gettempdir())
    where = "" if is_local else f"{disk.uri} (TMPDIR, before the upload to {location.public_uri})"
    with storage_errors(disk, where):
        fs, path = location.fs, location.path
        folder = os.path.dirname(path) if is_local else disk.path
        if is_local:
            fs.makedirs(folder, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder, prefix=".sf_ray-", suffix=".tmp")
        os.close(handle)
    try:
        with _disk_errors(disk, where):
            yield Path(name)
        with storage_errors(location):
            if is_local:
                os.chmod(name, 0o666 & ~_umask())
                _flush_to_disk(name)
                os.replace(name, path)
            else:
                location.call("put_file", name, path, size=os.path.getsize(name))
    finally:
        Path(name).unlink(missing_ok=True)


@contextmanager
def _disk_errors(disk: Location, where: str) -> Iterator[None]:
    """Says which disk is full or fails, of what a block writes there; other errors pass.

    A block may also read, and what it cannot read is not for the disk to explain.
    """
    try:
        yield
    except OSError as error:
        if not failed_to_write(error):
            raise
        with storage_errors(disk, where):
            raise


def _flush_to_disk(name: str) -> None:
    """Flushes before the rename: else a power failure may leave the new name without the bytes."""
    handle = os.open(name, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def put_bytes(location: Location, data: bytes) -> None:
    """Writes a small file; it appears whole or not at all."""
    with put_whole(location) as path:
        path.write_bytes(data)


def put_table(location: Location, table: pa.Table, encoding: Mapping[str, Any]) -> None:
    """Writes a table as one Parquet file; it appears whole or not at all.

    Args:
        location: The file.
        table: The rows.
        encoding: Options of `pyarrow.parquet.write_table`, e.g. the compression.
    """
    with put_whole(location) as path:
        pq.write_table(table, path, write_page_checksum=True, **encoding)


def remove(location: Location) -> None:
    """Removes a file; does nothing where it is gone already."""
    try:
        location.call("rm_file", location.path)
    except SfRayError as error:
        if not is_missing(error):
            raise


def now_utc() -> str:
    """The time in UTC, in the form of manifests: "2026-11-24T01:02:03Z"."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
