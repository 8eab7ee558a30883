"""The numbered files of a lease: list them, create one exclusively, and tell how old one is.

    PLACE/_lease/000007.json     the `Holder`, as JSON

Knows how storage creates a file that must not exist yet, and whose clock to trust. Does not know
when a lease is free: that is `lease`.
"""

import os
import re
import secrets
from datetime import UTC, datetime
from pathlib import Path
from time import sleep
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.asyn import AsyncFileSystem

from sf_ray.errors import SfRayError
from sf_ray.runtime.log import say
from sf_ray.storage.failures import is_missing, was_refused
from sf_ray.storage.files import put_bytes, read_bytes, read_bytes_or_none, remove
from sf_ray.storage.listing import File, list_files
from sf_ray.storage.location import Location, storage_errors

# No other digits than ASCII's, and no more than numbers that a run of ours could have counted to.
_NAME = re.compile(r"[0-9]{6,12}\.json")


def list_leases(folder: Location) -> list[File]:
    """The lease files in a `_lease` folder; the newest, which has the highest number, is last."""
    return [file for file in list_files(folder, ".json") if _NAME.fullmatch(file.relative)]


def lease_name(number: int) -> str:
    """Name of the file of a lease."""
    return f"{number:06d}.json"


def lease_number(file: File) -> int:
    """Number of the lease in a file."""
    return int(file.relative.removesuffix(".json"))


def put_lease(location: Location, data: bytes) -> None:
    """Writes a lease file whole, whether it exists or not.

    To a remote storage in one request from memory: the temporary disk of this machine may be full.
    """
    if location.is_remote:
        location.call("pipe_file", location.path, data, size=len(data))
    else:
        with storage_errors(location):
            put_bytes(location, data)


def create_lease(location: Location, data: bytes) -> bool:
    """Creates a lease file, unless it exists.

    Says so where the storage cannot promise that only one of several runs creates the file.

    Args:
        location: The file.
        data: Content that no other run writes.

    Returns:
        Whether the file holds `data` now.
    """
    if not exclusive_put(location, data):
        # The file may be ours: the answer to the put that created it may have been lost.
        return read_bytes_or_none(location) == data
    # A second exclusive put that succeeds shows that the store ignores the condition.
    if _checks_before_writing(location) or exclusive_put(location, data):
        say(
            f"note: {location.public_uri}: this storage has no conditional writes; two runs that "
            "start in the same second are not kept apart, later ones are"
        )
        sleep(1)  # time for a competing run to overwrite the file
        return read_bytes_or_none(location) == data
    return True


def exclusive_put(location: Location, data: bytes) -> bool:
    """Puts a file unless it exists; returns whether it did."""
    try:
        if location.is_remote:
            location.call("pipe_file", location.path, data, mode="create")
        else:  # on local disks fsspec checks first and writes then, so that several runs may win
            path = Path(location.path)
            with storage_errors(location):
                path.parent.mkdir(parents=True, exist_ok=True)
                _create_file(path, data)
    except SfRayError as error:
        # Some servers refuse in words that mean other things as well: the file tells.
        if was_refused(error) and read_bytes_or_none(location) is not None:
            return False
        raise
    return True


def try_rights(folder: Location) -> None:
    """Puts, reads and deletes a file in a folder, as a run will do.

    Deleting is tried first, on a name that is absent: what may not be deleted is not made.

    Raises:
        SfRayError: Names the right that is missing.
    """
    probe = folder.join(f".probe-{secrets.token_hex(6)}")
    remove(probe)
    put_lease(probe, b"may this run put, get and delete?")
    try:
        read_bytes(probe)
    finally:
        remove(probe)


def _create_file(path: Path, data: bytes) -> None:
    """Creates a local file with its content in one step, or raises `FileExistsError`.

    A run that looks at the lease at any moment must find in it who holds it.
    """
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        unfinished.write_bytes(data)
        try:
            os.link(unfinished, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links: here the file is empty for a moment
            with path.open("xb") as file:
                file.write(data)
    finally:
        unfinished.unlink(missing_ok=True)


def _checks_before_writing(location: Location) -> bool:
    """Whether fsspec has no exclusive put for this storage, and only checks before it writes."""
    fs = location.fs
    has_own = isinstance(fs, AsyncFileSystem) or (
        type(fs).pipe_file is not AbstractFileSystem.pipe_file
    )
    return location.is_remote and not has_own


def lease_age_s(folder: Location, file: File) -> float | None:
    """Seconds since a lease was renewed, by the clock of the storage; None where the file is gone.

    The clocks of machines differ. So the age is the time between the lease and a probe file that is
    put now, both as the storage reports them.

    Raises:
        SfRayError: The storage does not report when a file was written.
    """
    probe = folder.join(f".probe-{secrets.token_hex(6)}")
    put_lease(probe, b"now")
    try:
        now = _modified(probe)
        try:
            return (now - _modified(folder.join(file.relative))).total_seconds()
        except SfRayError as error:
            if is_missing(error):
                return None
            raise
    finally:
        remove(probe)


def _modified(location: Location) -> datetime:
    """When a file was written; every file system of fsspec has its own name and type for that."""
    info: dict[str, Any] = location.call("info", location.path)
    for key in ("LastModified", "last_modified", "mtime", "updated", "created"):
        value = info.get(key)
        if isinstance(value, datetime):
            return value
        if isinstance(value, (int, float)):
            return datetime.fromtimestamp(value, UTC)
        if isinstance(value, str):
            return datetime.fromisoformat(value)
    raise SfRayError(
        f"{location.public_uri}: this storage does not tell when a file was written, so that dead "
        f"runs cannot be told from living ones; remove {location.public_uri} by hand"
    )
