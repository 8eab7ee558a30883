"""One Parquet shard: its footer, its rows, and what may be wrong with it. No Ray, no model."""

import io
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from sf_ray.errors import BadShardError, SfRayError
from sf_ray.locations import Location
from sf_ray.storage import File, version_of

# A Parquet footer is most often smaller than this, so that one request reads it.
_FOOTER_BYTES = 64 * 1024


def read_footer(location: Location, file: File) -> pq.FileMetaData:
    """Reads a Parquet footer with one ranged read, or two where it is large.

    Raises:
        BadShardError: The file is not Parquet, is cut off, or is gone.
        SfRayError: Storage failed.
    """
    tail, length = b"", 0
    if file.size > 12:  # two magic numbers and a length; servers refuse a range of nothing
        tail = _read_range(location, file, max(file.size - _FOOTER_BYTES, 0), file.size)
        length = int.from_bytes(tail[-8:-4], "little") + 8
        if length > len(tail) and length + 4 <= file.size:
            tail = _read_range(location, file, file.size - length, file.size)
    if tail[-4:] != b"PAR1" or length > len(tail):
        raise BadShardError(
            file.relative, f"not a whole Parquet file ({file.size} bytes without a valid footer)"
        )
    try:
        # The footer between two magic numbers is all that the metadata reader looks at.
        return pq.read_metadata(pa.BufferReader(b"PAR1" + tail[-length:]))
    except (pa.ArrowException, OSError) as error:
        raise BadShardError(
            file.relative, f"its Parquet footer cannot be read ({_first_line(error)})"
        ) from error


@contextmanager
def open_shard(location: Location, file: File) -> Iterator[pq.ParquetFile]:
    """Opens a shard, and sees to it that all that is read is of the version that was listed.

    Raises:
        BadShardError: It changed, is gone, or holds what is not Parquet.
        SfRayError: Storage failed.
    """
    _check_version(location, file)
    try:
        with (
            _Ranges(location, file) if location.is_remote else open(file.path, "rb") as handle,
            pq.ParquetFile(handle, pre_buffer=True, page_checksum_verification=True) as parquet,
        ):
            yield parquet
    except (pa.ArrowException, OSError) as error:
        raise BadShardError(file.relative, f"cannot be read ({_first_line(error)})") from error
    _check_version(location, file)


def _check_version(location: Location, file: File) -> None:
    with _gone_is_bad(file):
        if version_of(location.call("info", file.path)) != file.version:
            raise BadShardError(file.relative, "changed while the job ran")


def _read_range(location: Location, file: File, start: int, end: int) -> bytes:
    with _gone_is_bad(file):
        data: bytes = location.call("cat_file", file.path, start=start, end=end, size=end - start)
        return data


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
    """A remote file that is read in exactly the ranges that Arrow asks for, each with retries."""

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
        data = _read_range(self._location, self._file, self._position, end)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__
