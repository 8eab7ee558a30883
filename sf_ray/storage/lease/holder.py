"""Who holds a lease, and whether that process still runs on this machine.

Knows nothing of the storage that the lease lies in.
"""

import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from sf_ray.storage.files import now_utc
from sf_ray.storage.json_files import parse_json


@dataclass(frozen=True)
class Holder:
    """The process that holds a lease; the content of a lease file.

    Attributes:
        run: Random name that no other run has.
        host: Host name of the machine. Containers on one machine may share it.
        pid: Process id of the driver.
        since: When the run took the lease, UTC.
        process: Name of the process as `process_name` returns it.
    """

    run: str
    host: str
    pid: int
    since: str
    process: str

    @classmethod
    def this_run(cls) -> "Holder":
        """The holder that stands for this process."""
        pid = os.getpid()
        return cls(secrets.token_hex(6), socket.gethostname(), pid, now_utc(), process_name(pid))

    @classmethod
    def from_json(cls, data: bytes) -> "Holder":
        """The holder that a lease file describes; an unknown one where it describes none.

        Such a file is a lease all the same: who wrote it may live, and its age tells.
        """
        try:
            return TypeAdapter(cls).validate_python(parse_json(data))
        except ValueError:  # a ValidationError is one
            return cls("?", "unknown", 0, "unknown", "")

    def lives_here(self) -> bool | None:
        """Whether the process still runs; None where this machine cannot see it.

        It cannot where the process belongs to another machine or to another process namespace.
        """
        here = process_name(os.getpid()).rpartition(" ")[0]
        if not here or self.process.rpartition(" ")[0] != here:
            return None
        return process_name(self.pid) == self.process


def process_name(pid: int) -> str:
    """Names a process so that no other process ever has the same name.

    A process id alone is not enough: it is used again after a reboot, in every container, and by a
    later process.

    Returns:
        "<id of the boot> <process namespace> <start time>"; "" where the process does not exist or
        the system has no /proc.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = os.readlink(f"/proc/{pid}/ns/pid")
        started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""
    return f"{boot} {namespace} {started}"
