"""Whether another machine sees the same files at a path: what one looks for, and what one answers.

A place that is written to gets a token, which every machine must find and answer. Of files that are
only read, sizes and some bytes are compared, so that equal copies on several disks are as good as a
shared one. Knows no Ray: who asks which machines is `commands.shared_places`.
"""

import os
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TypeVar

from sf_ray.storage.location import Location, storage_errors

_Item = TypeVar("_Item")
_PREFIX = ".sf_ray-probe-"
# Files whose sizes are compared, and those among them that are opened: enough to notice a disk that
# lacks some shards, few enough for a corpus of a million files.
_FILES, _OPENED = 2000, 64
_END_BYTES = 4096
# A file system that is shared over a network may show a new file late.
_TRIES, _PAUSE_S = 4, 1.0
# A token of a run that was killed: no machine takes as long to answer.
_STALE_S = 3600.0


def local_path(location: Location) -> str | None:
    """The path on a disk of this machine that a location leads to; None where it is elsewhere.

    In a chain, as `zip://a.jsonl::/data/b.zip`, the last link is what lies on a disk.
    """
    if not location.is_remote:
        return location.path
    last = Location(location.uri.rpartition("::")[2])
    if last.is_remote or last.uri == location.uri or not os.path.exists(last.path):
        return None
    return last.path


@dataclass(frozen=True)
class SeenFile:
    """A file as one machine sees it.

    Attributes:
        path: Absolute path.
        size: Bytes.
        ends: Hash of its first and last bytes; "" where it was not opened.
    """

    path: str
    size: int
    ends: str

    def problem(self) -> str:
        """What is wrong with the file on the machine that asks; "" where it is the same there."""
        try:
            size = os.path.getsize(self.path)
            if size != self.size:
                return f"has {size:,} bytes instead of {self.size:,} in {self.path}"
            if self.ends and _ends(self.path, size) != self.ends:
                return f"has another content in {self.path}"
        except FileNotFoundError:
            return f"has no {self.path}"
        except OSError as error:
            return f"cannot read {self.path} ({error.strerror})"
        return ""


def look(paths: Sequence[str]) -> list[SeenFile]:
    """The files as this machine sees them; of very many, some that are spread over all.

    Raises:
        OSError: One of them cannot be read.
    """
    chosen = spread(paths, _FILES)
    opened = set(spread(chosen, _OPENED))
    seen = []
    for path in chosen:
        size = os.path.getsize(path)
        seen.append(SeenFile(path, size, _ends(path, size) if path in opened else ""))
    return seen


def spread(items: Sequence[_Item], most: int) -> list[_Item]:
    """At most so many of the items, evenly spread, with the first and the last one."""
    if len(items) <= most:
        return list(items)
    return [items[at * (len(items) - 1) // (most - 1)] for at in range(most)]


def _ends(path: str, size: int) -> str:
    with open(path, "rb") as file:
        first = file.read(_END_BYTES)
        file.seek(max(0, size - _END_BYTES))
        return blake2b(first + file.read(_END_BYTES), digest_size=8).hexdigest()


@dataclass(frozen=True)
class Token:
    """A folder that a machine has put into a place, for others to find and to answer.

    Attributes:
        folder: Its absolute path.
    """

    folder: str

    def answer(self, name: str) -> str:
        """Puts an answer beside the token; returns what is wrong, or "".

        Args:
            name: Of the machine that answers.
        """
        for _ in range(_TRIES):
            try:
                # The folder is not made: where it is absent, this is another disk.
                Path(self.folder, name).write_bytes(name.encode())
                return ""
            except FileNotFoundError:
                time.sleep(_PAUSE_S)
            except OSError as error:
                return f"cannot write there ({error.strerror})"
        return "does not see what this machine writes there"

    def is_answered_by(self, name: str) -> bool:
        """Whether the answer of a machine has arrived."""
        for _ in range(_TRIES):
            try:
                return Path(self.folder, name).read_bytes() == name.encode()
            except OSError:
                time.sleep(_PAUSE_S)
        return False


@contextmanager
def token_in(place: Location) -> Iterator[Token]:
    """Puts a token into a local place, and removes it with the folders that were made for it.

    Raises:
        SfRayError: Nothing can be written there.
    """
    root = Path(place.path)
    made = []
    with storage_errors(place):
        for folder in [root, *root.parents]:
            if folder.exists():
                break
            made.append(folder)
        root.mkdir(parents=True, exist_ok=True)
        _remove_stale(root)
        token = root / f"{_PREFIX}{secrets.token_hex(8)}"
        token.mkdir()
    try:
        yield Token(str(token))
    finally:
        shutil.rmtree(token, ignore_errors=True)
        for folder in made:  # the deepest first; what holds anything by now stays
            with suppress(OSError):
                folder.rmdir()


def _remove_stale(root: Path) -> None:
    for old in root.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            if time.time() - old.stat().st_mtime > _STALE_S:
                shutil.rmtree(old, ignore_errors=True)
