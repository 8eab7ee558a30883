"""One writer: a lease on a place, renewed while its run lives, and taken over when it does not.

    PLACE/_lease/000007.json     who holds it and since when; written again every `_RENEW_S`

A run takes the place by creating the next number with an exclusive put, which one of several
wins. A number that was not renewed for `_EXPIRES_S` is dead: the next one may be taken. Whether the
holder on another machine lives is not guessed: it renews while we look, or its lease runs out. So a
retry on a new cluster goes on by itself. Nothing depends on this machine's clock: ages are told by
the store's, between the lease and a probe put just now.
"""

import json
import os
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.asyn import AsyncFileSystem

from sf_ray.errors import LeaseError, SfRayError
from sf_ray.runtime.log import say
from sf_ray.runtime.signals import interrupt
from sf_ray.storage.files import File, list_files, now_utc, put_bytes, read_bytes_or_none, remove
from sf_ray.storage.location import Location, storage_errors

_RENEW_S, _EXPIRES_S = 15.0, 60.0
_LOOK_S, _PATIENCE_S = 3.0, 5.0


@dataclass(frozen=True)
class Holder:
    """Who holds a lease.

    Attributes:
        run: A name that no other run has.
        host, pid: Where the driver runs.
        since: When it took the lease, UTC.
        process: What tells, on the same machine, whether it still runs.
    """

    run: str
    host: str
    pid: int
    since: str
    process: str

    @classmethod
    def this_run(cls) -> "Holder":
        """This process."""
        pid = os.getpid()
        return cls(secrets.token_hex(6), socket.gethostname(), pid, now_utc(), _process(pid))


@contextmanager
def lease(place: Location) -> Iterator[None]:
    """Holds a place; no other run writes there meanwhile.

    Raises:
        LeaseError: Another run holds it. Also raised in the main thread, when storage kept this
            run from renewing for so long that another one took over.
    """
    folder, holder = place.join("_lease"), Holder.this_run()
    number = _take(folder, holder)
    # From here on storage that stays away must not hold up the end of the run.
    folder = replace(folder, retry_s=min(folder.retry_s, _PATIENCE_S))
    done = threading.Event()
    thread = threading.Thread(target=_renew, args=(folder, number, holder, done), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(timeout=_PATIENCE_S)
        _release(folder.join(_name(number)), holder)


def refuse_if_held(place: Location) -> None:
    """A look whether another run writes there, before work is spent on a plan.

    Where that is not known at once, for as long as a lease lasts at most.

    Raises:
        LeaseError: Another run holds it.
    """
    folder = place.join("_lease")
    if leases := _leases(folder):
        _refuse_if_alive(folder, leases[-1])


def _take(folder: Location, holder: Holder) -> int:
    for _ in range(3):
        leases = _leases(folder)
        number, dead = 1, ""
        if leases:
            dead = _refuse_if_alive(folder, leases[-1])
            number += _number(leases[-1])
        mine = folder.join(_name(number))
        if not _create(mine, holder):
            continue
        # Who slept between the look and the put may find that others have come and gone since.
        if _number(_leases(folder)[-1]) == number:
            if dead:
                say(f"note: took over from a run {dead}: {_place(folder)}")
            for file in leases:
                remove(folder.join(file.relative))
            return number
        remove(mine)
    raise LeaseError(f"{folder.public_uri}: other runs are starting here at this moment; try later")


def _refuse_if_alive(folder: Location, file: File) -> str:
    """Returns what to say of a run that is dead; nothing where it has given its lease back.

    Raises:
        LeaseError: It lives.
    """
    data = read_bytes_or_none(folder.join(file.relative))
    if data is None:
        return ""
    try:
        other = Holder(**json.loads(data))
    except (ValueError, TypeError):
        other = Holder("?", "unknown", 0, "unknown", "")
    lives_here = _lives_here(other)
    if lives_here is False:
        return f"that died (process {other.pid} of this machine)"
    age_s = _age_s(folder, file) if lives_here else _watch(folder, file, other.host)
    if age_s is None:
        return ""
    if age_s > _EXPIRES_S:
        return f"on {other.host} that was silent for {age_s:.0f} s"
    raise LeaseError(
        f"{_place(folder)}: another run writes there: process {other.pid} on {other.host}, since "
        f"{other.since}, last seen {age_s:.0f} s ago. Wait for it or stop it; its lease expires "
        f"after {_EXPIRES_S:.0f} s without a sign of life"
    )


def _watch(folder: Location, file: File, host: str) -> float | None:
    """Waits until the holder of a lease renews it, or has been silent for longer than it lasts.

    Returns:
        Seconds since it was renewed; None where it is gone.
    """
    age_s = _age_s(folder, file)
    if age_s is not None and age_s <= _EXPIRES_S:
        say(
            f"note: {_place(folder)}: a run on {host} was seen {age_s:.0f} s ago; waiting until it "
            f"is seen again or has been silent for {_EXPIRES_S:.0f} s"
        )
    before_s = 0.0
    while age_s is not None and before_s <= age_s <= _EXPIRES_S:
        sleep(_LOOK_S)
        before_s, age_s = age_s, _age_s(folder, file)
    return age_s


def _create(location: Location, holder: Holder) -> bool:
    """Creates the lease unless it is there; tells where the store cannot promise that."""
    data = json.dumps(asdict(holder), indent=2).encode()
    if not _exclusive_put(location, data):
        # It may be ours: the answer to the put that made it may have been lost.
        return read_bytes_or_none(location) == data
    if _only_looks(location) or _exclusive_put(location, data):
        say(
            f"note: {location.public_uri}: this storage has no conditional writes; two runs that "
            "start in the same second are not kept apart, later ones are"
        )
        sleep(1)
        return read_bytes_or_none(location) == data
    return True


def _exclusive_put(location: Location, data: bytes) -> bool:
    """Puts a file unless it is there; returns whether it did."""
    try:
        if location.is_remote:
            location.call("pipe_file", location.path, data, mode="create")
        else:  # where fsspec looks first and writes then
            path = Path(location.path)
            with storage_errors(location):
                path.parent.mkdir(parents=True, exist_ok=True)
                _put_file(path, data)
    except SfRayError as error:
        # A server refuses with FileExistsError, or with a plain OSError: look.
        if isinstance(error.__cause__, OSError) and read_bytes_or_none(location) is not None:
            return False
        raise
    return True


def _put_file(path: Path, data: bytes) -> None:
    """Makes a file that is not there, with its content: a run that looks sees whose lease it is."""
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        unfinished.write_bytes(data)
        os.link(unfinished, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links: for a moment the file is empty
        with path.open("xb") as file:
            file.write(data)
    finally:
        unfinished.unlink(missing_ok=True)


def _only_looks(location: Location) -> bool:
    """Whether fsspec has no exclusive put for this storage, and looks before it writes."""
    fs = location.fs
    has_own = isinstance(fs, AsyncFileSystem) or (
        type(fs).pipe_file is not AbstractFileSystem.pipe_file
    )
    return location.is_remote and not has_own


def _renew(folder: Location, number: int, holder: Holder, done: threading.Event) -> None:
    """Puts the lease again and again; ends the run when another one has taken over."""
    data = json.dumps(asdict(holder), indent=2).encode()
    renewed = monotonic()
    while not done.wait(_RENEW_S):
        try:
            _check(folder, number, holder)
            put_bytes(folder.join(_name(number)), data)
            renewed = monotonic()
        except LeaseError as error:
            interrupt(error)
            return
        except SfRayError as error:
            silent_s = monotonic() - renewed
            if silent_s > _EXPIRES_S:
                say(f"note: the lease could not be renewed for {silent_s:.0f} s ({error})")


def _check(folder: Location, number: int, holder: Holder) -> None:
    leases = _leases(folder)
    if not leases or _number(leases[-1]) != number:
        raise LeaseError(
            f"{_place(folder)}: run {holder.run} lost its lease to "
            "another run, after it could not renew it in time; nothing more is written"
        )


def _release(mine: Location, holder: Holder) -> None:
    try:
        data = read_bytes_or_none(mine)
        if data is not None and json.loads(data)["run"] == holder.run:
            remove(mine)
    except (SfRayError, ValueError, KeyError) as error:
        say(f"note: the lease could not be given back and will expire ({error})")


def _leases(folder: Location) -> list[File]:
    """The leases that are there, the newest last."""
    return [file for file in list_files(folder, ".json") if file.relative[:-5].isdigit()]


def _place(folder: Location) -> str:
    return folder.public_uri.removesuffix("/_lease")


def _name(number: int) -> str:
    return f"{number:06d}.json"


def _number(file: File) -> int:
    return int(file.relative.removesuffix(".json"))


def _age_s(folder: Location, file: File) -> float | None:
    """Seconds by the store's own clock since a lease was renewed; None where it is gone."""
    probe = folder.join(f".probe-{secrets.token_hex(6)}")
    put_bytes(probe, b"now")
    try:
        now = _modified(probe)
        try:
            return (now - _modified(folder.join(file.relative))).total_seconds()
        except SfRayError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise
    finally:
        remove(probe)


def _modified(location: Location) -> datetime:
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


def _process(pid: int) -> str:
    """Names a process so that no later one has the same name; empty where the system cannot."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        space = os.readlink(f"/proc/{pid}/ns/pid")
        started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""
    return f"{boot} {space} {started}"


def _lives_here(other: Holder) -> bool | None:
    """Whether the holder still runs; None where it is of another machine or process space."""
    here = _process(os.getpid()).rpartition(" ")[0]
    if not here or other.process.rpartition(" ")[0] != here:
        return None
    return _process(other.pid) == other.process
