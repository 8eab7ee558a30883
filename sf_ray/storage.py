"""Where bytes lie: list, tell versions apart, read, put atomically. No Ray, no model.

Everything goes through fsspec, so a local path, `s3://`, `gs://` and the rest are alike.
"""

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.core import has_magic
from fsspec.implementations.local import LocalFileSystem

from sf_ray.errors import SfRayError

# A Parquet footer is most often smaller than this, so that one request reads it.
_FOOTER_BYTES = 64 * 1024


@dataclass(frozen=True)
class Location:
    """A path or URI and how to reach it; small, and may be sent to another process."""

    uri: str
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def fs(self) -> fsspec.AbstractFileSystem:
        """The file system; fsspec keeps one instance for equal options."""
        with storage_errors(self):
            return self._resolved()[0]

    @property
    def path(self) -> str:
        """The path as `fs` writes it, without a slash at the end."""
        with storage_errors(self):
            return self._resolved()[1].rstrip("/")

    def _resolved(self) -> tuple[fsspec.AbstractFileSystem, str]:
        # Local paths take no options: those given are for the other side of the job.
        options = self.storage_options if self.is_remote else {}
        fs, path = fsspec.core.url_to_fs(self.uri, **options)
        return fs, path

    @property
    def is_remote(self) -> bool:
        """Whether the URI names another file system than this machine's."""
        return "://" in self.uri and not self.uri.startswith(("file://", "local://"))

    @property
    def public_uri(self) -> str:
        """The URI without user name and password, fit for manifests, logs and errors."""
        parts = urlsplit(self.uri)
        if not self.is_remote or "@" not in parts.netloc:
            return self.uri
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))

    def join(self, name: str) -> "Location":
        """The location of `name` below this one."""
        return Location(f"{self.uri.rstrip('/')}/{name}", self.storage_options)


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


@contextmanager
def storage_errors(location: Location) -> Iterator[None]:
    """Turns what storage raises into errors that say what, where and what next."""
    where = location.public_uri
    try:
        yield
    except SfRayError:
        raise
    except FileNotFoundError as error:
        raise SfRayError(
            f"{where}: not found ({_short(error)}); check the name, and that the bucket exists"
        ) from error
    except PermissionError as error:
        raise SfRayError(
            f"{where}: access denied ({_short(error)}); check the credentials in the environment "
            "or --storage-options"
        ) from error
    except _storage_exceptions() as error:
        raise SfRayError(
            f"{where}: storage failed ({type(error).__name__}: {_short(error)}); check the "
            "endpoint, the network and the credentials"
        ) from error
    except (ImportError, ValueError) as error:
        raise SfRayError(f"{where}: cannot be opened ({_short(error)})") from error


def _storage_exceptions() -> tuple[type[Exception], ...]:
    """What file systems raise; s3fs passes some on untranslated: no credentials, no connection."""
    if "botocore" not in sys.modules:
        return (OSError,)
    from botocore.exceptions import BotoCoreError, ClientError

    return (OSError, BotoCoreError, ClientError)


def _short(error: BaseException) -> str:
    """The first line of what storage says; s3fs says it in the cause only."""
    text = str(error.__cause__ or error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__


def version_of(info: Mapping[str, Any]) -> str:
    """What tells two contents of one path apart without reading them."""
    for key in ("ETag", "etag", "mtime", "LastModified", "updated", "created"):
        if info.get(key) is not None:
            return str(info[key]).strip('"')
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
            infos = fs.glob(root, detail=True)
            root = _glob_root(root)
        else:
            try:
                infos = fs.find(root, detail=True)
            except FileNotFoundError:
                # An absent bucket is an error; an absent directory has no files.
                if location.is_remote:
                    raise
                infos = {}
    files = []
    for path, info in infos.items():
        if info["type"] != "file" or not path.endswith(suffix):
            continue
        relative = path.removeprefix(root).strip("/") or path.rpartition("/")[2]
        if not any(part.startswith(("_", ".")) for part in relative.split("/")):
            files.append(File(path, relative, int(info["size"]), version_of(info)))
    return sorted(files, key=lambda file: file.relative)


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


def read_footer(location: Location, file: File) -> pq.FileMetaData:
    """Reads a Parquet footer with one ranged read, or two where it is large.

    Raises:
        SfRayError: The file is not Parquet, is cut off, or cannot be read.
    """
    tail, length = b"", 0
    if file.size > 12:  # two magic numbers and a length; servers refuse a range of nothing
        with storage_errors(Location(file.path)):
            fs = location.fs
            tail = fs.cat_file(file.path, start=max(file.size - _FOOTER_BYTES, 0), end=file.size)
            length = int.from_bytes(tail[-8:-4], "little") + 8
            if length > len(tail) and length + 4 <= file.size:
                tail = fs.cat_file(file.path, start=file.size - length, end=file.size)
    if tail[-4:] != b"PAR1" or length > len(tail):
        raise SfRayError(
            f"shard {file.relative}: not a whole Parquet file ({file.size} bytes without a valid "
            "footer); write it again or take it out of the corpus"
        )
    try:
        # The footer between two magic numbers is all that the metadata reader looks at.
        return pq.read_metadata(pa.BufferReader(b"PAR1" + tail[-length:]))
    except (pa.ArrowException, OSError) as error:
        raise SfRayError(
            f"shard {file.relative}: its Parquet footer cannot be read ({_short(error)}); write it "
            "again or take it out of the corpus"
        ) from error


@contextmanager
def open_shard(location: Location, file: File) -> Iterator[pq.ParquetFile]:
    """Opens a shard for reading, after a look that it is still the one that was listed."""
    with storage_errors(Location(file.path)):
        if version_of(location.fs.info(file.path)) != file.version:
            raise SfRayError(
                f"shard {file.relative} changed while the job ran; run the same command again"
            )
        handle = location.fs.open(file.path, "rb")
    try:
        with handle, pq.ParquetFile(handle, pre_buffer=True) as parquet:
            yield parquet
    except (pa.ArrowException, OSError) as error:
        raise SfRayError(f"shard {file.relative}: cannot be read ({_short(error)})") from error


def read_bytes(location: Location) -> bytes:
    """Reads a whole small file."""
    with storage_errors(location):
        data: bytes = location.fs.cat_file(location.path)
        return data


def read_bytes_or_none(location: Location) -> bytes | None:
    """Reads a whole small file; None where there is none."""
    try:
        return read_bytes(location)
    except SfRayError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise


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
                os.replace(name, path)
            else:
                fs.put_file(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def put_bytes(location: Location, data: bytes) -> None:
    """Writes a small file whole."""
    with put_whole(location) as path:
        path.write_bytes(data)


def put_table(location: Location, table: pa.Table) -> None:
    """Writes a table as one Parquet file, whole."""
    with put_whole(location) as path:
        pq.write_table(table, path, compression="zstd")


def remove(location: Location) -> None:
    """Removes a file; it may be gone already."""
    with storage_errors(location):
        try:
            location.fs.rm_file(location.path)
        except FileNotFoundError:
            return


def now_utc() -> str:
    """The time, as manifests write it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
