"""Where bytes lie: list, tell versions apart, read, put atomically. No Ray, no model."""

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
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.core import has_magic
from fsspec.implementations.local import LocalFileSystem

from sf_ray.errors import SfRayError
from sf_ray.storage.location import Location, storage_errors

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class File:
    """A file as a listing shows it.

    Attributes:
        path: As the file system writes it.
        relative: Path below the listed location, with forward slashes.
        size: Bytes.
        version: Changes when the content does: ETag, else the modification time.
    """

    path: str
    relative: str
    size: int
    version: str


def version_of(info: Mapping[str, Any]) -> str:
    """What tells two contents of one path apart without reading them."""
    for key in ("ETag", "etag", "mtime", "LastModified", "updated", "created"):
        value = info.get(key)
        if isinstance(value, datetime):  # some file systems tell the same time in two ways
            value = value.timestamp()
        if value is not None:
            return str(value).strip('"')
    raise SfRayError(
        f"{info.get('name')}: this storage tells neither an ETag nor a modification time, so "
        "changed files could not be noticed"
    )


def list_files(location: Location, suffix: str = "") -> list[File]:
    """Lists the files at a directory, file or glob, recursively, sorted by relative path.

    Names that begin with `_` or `.` (markers, unfinished files) are passed over, as Hive, Spark
    and Hadoop do. What is not there has no files.
    """
    with storage_errors(location):
        fs, root = location.fs, location.path
        fs.invalidate_cache()
        if has_magic(root):
            infos = location.call("glob", root, detail=True)
            root = _glob_root(root)
        elif location.is_remote or os.path.exists(root):
            infos = location.call("find", root, detail=True)
        else:  # an absent bucket is an error; an absent directory has no files
            infos = {}
        # Of a link in a directory fsspec tells only that it is one.
        infos = {p: fs.info(p) if info.get("islink") else info for p, info in infos.items()}
    files = []
    for path, info in infos.items():
        if info["type"] != "file" or not path.endswith(suffix):
            continue
        relative = path.removeprefix(root).strip("/") or path.rpartition("/")[2]
        if not any(part.startswith(("_", ".")) for part in relative.split("/")):
            files.append(File(path, relative, int(info["size"]), version_of(info)))
    return sorted(files, key=lambda file: file.relative)


def has_wildcard(location: Location) -> bool:
    """Whether a location is a glob."""
    return bool(has_magic(location.path))


def _glob_root(pattern: str) -> str:
    """The directory above the first wildcard."""
    return pattern[: min(pattern.index(c) for c in "*?[" if c in pattern)].rpartition("/")[0]


def overlap(one: Location, other: Location) -> bool:
    """Whether one location lies inside the other, or they are the same."""
    if type(one.fs) is not type(other.fs):
        return False
    paths = []
    for location in (one, other):
        path = location.path
        if has_magic(path):
            path = _glob_root(path)
        if isinstance(location.fs, LocalFileSystem):
            path = os.path.realpath(path)
        paths.append(path.rstrip("/") + "/")
    return paths[0].startswith(paths[1]) or paths[1].startswith(paths[0])


def map_requests(
    location: Location,
    function: Callable[[_Item], _Result],
    items: Iterable[_Item],
    at_once: int = 16,
) -> Iterator[_Result]:
    """Applies a function that waits for storage to items, several at a time; results in order.

    No more than `at_once` results are held. Where storage is local there is nothing to wait for.
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
    """Reads a whole file; `size` bounds the time that it may take."""
    data: bytes = location.call("cat_file", location.path, size=size)
    return data


def read_bytes_or_none(location: Location) -> bytes | None:
    """Reads a whole small file; None where there is none."""
    try:
        return read_bytes(location)
    except SfRayError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise


def is_there(location: Location) -> bool:
    """Whether a file is there; asks for nothing else."""
    try:
        location.call("info", location.path)
    except SfRayError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return False
        raise
    return True


def copy_here(location: Location, file: File, target: Path) -> None:
    """Copies a file to this machine's disk."""
    location.call("get_file", file.path, str(target), size=file.size)


@contextmanager
def put_whole(location: Location) -> Iterator[Path]:
    """Gives a local path to write to; the file appears under its name whole, or not at all.

    Object stores have no rename, and an fsspec file that is closed by an exception would commit
    what it has: so the bytes are complete on local disk before the one call that uploads them.
    """
    with storage_errors(location):
        fs, path = location.fs, location.path
        is_local = isinstance(fs, LocalFileSystem)
        if is_local:
            fs.makedirs(os.path.dirname(path), exist_ok=True)
        handle, name = tempfile.mkstemp(
            dir=os.path.dirname(path) if is_local else None, prefix=".sf_ray-", suffix=".tmp"
        )
        os.close(handle)
    try:
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


def _flush_to_disk(name: str) -> None:
    """Before the rename: else a machine that loses power may keep the name and not the bytes."""
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
    """Writes a small file whole."""
    with put_whole(location) as path:
        path.write_bytes(data)


def put_table(location: Location, table: pa.Table, encoding: Mapping[str, Any]) -> None:
    """Writes a table as one Parquet file, whole; `encoding`: options of `pq.write_table`."""
    with put_whole(location) as path:
        pq.write_table(table, path, write_page_checksum=True, **encoding)


def remove(location: Location) -> None:
    """Removes a file; it may be gone already."""
    try:
        location.call("rm_file", location.path)
    except SfRayError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            raise


def now_utc() -> str:
    """The time, as manifests write it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
