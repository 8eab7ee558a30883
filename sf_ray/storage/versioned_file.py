"""A shard as bytes: read in ranges, and only in the version that was listed.

Knows no kind of shard, no Ray, no model.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from sf_ray.errors import BadShardError, SfRayError
from sf_ray.storage.files import File, version_of
from sf_ray.storage.location import Location


@contextmanager
def open_bytes(location: Location, file: File) -> Iterator[io.RawIOBase]:
    """Opens a shard, and sees to it that all that is read is of the version that was listed.

    Raises:
        BadShardError: It changed, or is gone.
        SfRayError: Storage failed.
    """
    _check_version(location, file)
    with unreadable_is_bad(file):
        handle = _Ranges(location, file) if location.is_remote else io.FileIO(file.path)
    with handle:
        yield handle
    _check_version(location, file)


@contextmanager
def unreadable_is_bad(file: File) -> Iterator[None]:
    """Turns what Arrow and the operating system say of a file's content into a `BadShardError`."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise BadShardError(file.relative, f"cannot be read ({first_line(error)})") from error


def read_range(location: Location, file: File, start: int, end: int) -> bytes:
    """Reads bytes [start, end) of a shard."""
    with _gone_is_bad(file):
        data: bytes = location.call("cat_file", file.path, start=start, end=end, size=end - start)
        return data


def first_line(error: BaseException) -> str:
    """What an error says, short enough to be part of another one's text."""
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__


def _check_version(location: Location, file: File) -> None:
    with _gone_is_bad(file):
        if version_of(location.call("info", file.path)) != file.version:
            raise BadShardError(file.relative, "changed while the job ran")


@contextmanager
def _gone_is_bad(file: File) -> Iterator[None]:
    try:
        yield
    except BadShardError:
        raise
    except SfRayError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise BadShardError(file.relative, "disappeared while the job ran") from error
        raise


class _Ranges(io.RawIOBase):
    """A remote file that is read in exactly the ranges that are asked for, each with retries."""

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
