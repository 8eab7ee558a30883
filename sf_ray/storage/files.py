"""Files of any storage: read them, put them atomically, ask whether they are there.

Knows no Ray and no model, and nothing of what is in a file, except that `put_table` writes Parquet.
"""

import os
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from sf_ray.errors import SfRayError
from sf_ray.storage.failures import failed_to_write, is_missing
from sf_ray.storage.listing import File
from sf_ray.storage.location import Location, storage_errors

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
# How often, and after what pause, a file is looked for that was written just now.
_LOOKS, _PAUSE_S = 4, 2.0


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
    return _or_none(lambda: read_bytes(location))


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
    except SfRayError:
        if size_or_none(location) != 0:
            raise
        data = b""  # stores refuse a range of an empty object
    if len(data) > limit:
        raise TooLargeError(
            f"{location.public_uri}: larger than {limit:,} bytes, which no file of this name has "
            "that sf_ray wrote; move it away"
        )
    return data


def read_bounded_or_none(location: Location, limit: int) -> bytes | None:
    """Reads a whole file that should be small; None where it does not exist."""
    return _or_none(lambda: read_bounded(location, limit))


def is_there(location: Location) -> bool:
    """Whether a file exists, found by one request without reading the file."""
    return _or_none(lambda: location.call("info", location.path)) is not None


def size_or_none(location: Location) -> int | None:
    """Bytes of a file, found by one request without reading it; None where it does not exist."""
    return _or_none(lambda: int(location.call("info", location.path)["size"]))


def _or_none(request: Callable[[], _Result]) -> _Result | None:
    """What a request for a file gives; None where the file does not exist."""
    try:
        return request()
    except SfRayError as error:
        if is_missing(error):
            return None
        raise


def never_as_wanted(
    places: Mapping[str, Location], wanted: Callable[[str, int | None], bool]
) -> dict[str, int | None]:
    """Looks several times for files that were written, until all of them are as they should be.

    They are asked for by name, because a listing may be older than a file. A store may have a new
    file late, and so may a network disk.

    Args:
        places: What a file is called -> where it is; all at one storage.
        wanted: Whether a file of that name may have so many bytes; None where it is not there.

    Returns:
        The files that are not as wanted, and their bytes.
    """
    wrong: dict[str, int | None] = {}
    for look in range(_LOOKS):
        if not places:
            break
        if look:
            time.sleep(_PAUSE_S)
        one = next(iter(places.values()))
        sizes = map_requests(one, size_or_none, places.values())
        found = dict(zip(places, sizes, strict=True))
        wrong = {name: size for name, size in found.items() if not wanted(name, size)}
        places = {name: places[name] for name in wrong}
    return wrong


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
    _or_none(lambda: location.call("rm_file", location.path))


def now_utc() -> str:
    """The time in UTC, in the form of manifests: "2026-11-24T01:02:03Z"."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
