"""The bytes of a shard: read in ranges, and only from the version that a listing showed.

Knows no file type, no Ray and no model.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from sf_ray.errors import BadShardError, SfRayError, first_line
from sf_ray.storage.failures import is_missing
from sf_ray.storage.listing import File
from sf_ray.storage.location import Location


@contextmanager
def open_bytes(location: Location, file: File) -> Iterator[io.RawIOBase]:
    """Opens a shard as a binary stream that may seek.

    The version is compared with the listing's before the first byte is read and after the last one,
    so that no caller goes on with a mixture of two versions.

    Raises:
        BadShardError: The shard changed since the listing, or is gone.
        SfRayError: Storage failed.
    """
    _check_version(location, file)
    with unreadable_is_bad(file):
        handle = _RemoteFile(location, file) if location.is_remote else io.FileIO(file.path)
    with handle:
        yield handle
    _check_version(location, file)


@contextmanager
def unreadable_is_bad(file: File) -> Iterator[None]:
    """Turns errors of Arrow and of the operating system about a shard into a `BadShardError`.

    So are `ValueError`s: Arrow decodes names of columns when they are asked for, and what is parsed
    here raises some too.
    """
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BadShardError(file.relative, f"cannot be read ({first_line(error)})") from error


def read_range(location: Location, file: File, start: int, end: int) -> bytes:
    """Reads bytes [start, end) of a shard.

    Raises:
        BadShardError: The shard is gone.
        SfRayError: Storage failed.
    """
    with _gone_is_bad(file):
        data: bytes = location.call("cat_file", file.path, start=start, end=end, size=end - start)
        return data


def _check_version(location: Location, file: File) -> None:
    with _gone_is_bad(file):
        if not file.is_version(location.call("info", file.path)):
            raise BadShardError(file.relative, "changed while the job ran")


@contextmanager
def _gone_is_bad(file: File) -> Iterator[None]:
    """Turns the "not found" of a shard that was listed into a `BadShardError`."""
    try:
        yield
    except BadShardError:
        raise
    except SfRayError as error:
        if is_missing(error):
            raise BadShardError(file.relative, "disappeared while the job ran") from error
        raise


class _RemoteFile(io.RawIOBase):
    """A remote file as a stream: each read requests exactly the bytes asked for, with retries."""

    def __init__(self, location: Location, file: File) -> None:
        self._location, self._file, self._position = location, file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._file.size}
        self._position = origin[whence] + offset
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        end = min(self._position + len(buffer), self._file.size)
        if end <= self._position:
            return 0
        data = read_range(self._location, self._file, self._position, end)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
