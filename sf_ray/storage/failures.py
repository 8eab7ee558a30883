"""What an exception of a file system means: its kind, whether to try again, and what to say.

Libraries raise errors of their own for the same answer of a store, and wrap them in one another. So
an error and all that it was raised from are judged by what they are: the store's error code, the
HTTP status, the class, or the operating system's number; never by which library is installed.
Imports none of those libraries, and knows no file system, no Ray and no model.
"""

import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sf_ray.errors import SfRayError
from sf_ray.storage.failure_tables import (
    BY_CLASS,
    BY_CODE,
    BY_ERRNO,
    BY_STATUS,
    CREDENTIALS_OF,
    SENTENCES,
    Kind,
)

# Errors are wrapped three deep at most; the bound is for those that form a ring.
_MOST_LINKS = 12
_MAY_PASS = {
    Kind.BUSY, Kind.EXPIRED, Kind.HOST, Kind.SERVER, Kind.THROTTLED, Kind.UNREACHABLE
}  # fmt: skip
_OF_WRITING = {Kind.NO_SPACE, Kind.QUOTA, Kind.READ_ONLY, Kind.LIMIT, Kind.DISK}
# Lines of an answer that only the store's support can use.
_FOR_SUPPORT = ("RequestId:", "Time:", "ErrorCode:", "Content:", "Error:None", "<")
_MOST_CHARACTERS = 300


@dataclass(frozen=True)
class Failure:
    """An exception of a file system, judged.

    Attributes:
        kind: What happened.
        may_pass: Whether the same request may succeed later.
        answer: What the store or the operating system says of it, in one line.
    """

    kind: Kind
    may_pass: bool
    answer: str

    def sentence(self, where: str, is_remote: bool, lasted_s: float = 0) -> str:
        """What happened, where, and what to do.

        Args:
            where: The place, without secrets.
            is_remote: Whether the place is on no disk of this machine.
            lasted_s: For how long it was tried again.
        """
        happened, on_disk, in_store = SENTENCES[self.kind]
        lasted = f" for {lasted_s:g} s" if lasted_s else ""
        advice = (in_store if is_remote else on_disk).format(
            credentials=CREDENTIALS_OF.get(where.partition("://")[0], "its own variables")
        )
        return f"{where}: {happened}{lasted} ({self.answer}); {advice}"


def judge(error: BaseException) -> Failure:
    """Judges an exception that a file system raised."""
    kind, decisive = _decide(error)
    # An error of the operating system or of a socket that nobody knows may be one of the network.
    may_pass = kind in _MAY_PASS or (kind is Kind.UNKNOWN and isinstance(error, OSError))
    return Failure(kind, may_pass, _answer(decisive, named=kind is Kind.UNKNOWN))


def may_pass(error: SfRayError) -> bool:
    """Whether an error of storage is one that a later try may not meet."""
    return error.__cause__ is not None and judge(error.__cause__).may_pass


def was_refused(error: SfRayError) -> bool:
    """Whether an error of a conditional put may say that the file exists.

    Stores have many words for that; those that surely mean something else are left out.
    """
    words = {Kind.EXISTS, Kind.BUSY, Kind.CHANGED, Kind.BAD_REQUEST, Kind.UNKNOWN, Kind.PATH}
    return error.__cause__ is not None and judge(error.__cause__).kind in words


def is_missing(error: SfRayError) -> bool:
    """Whether an error of storage says that nothing is there."""
    return error.__cause__ is not None and judge(error.__cause__).kind is Kind.NOT_FOUND


def disk_failure(error: BaseException) -> Failure | None:
    """The failure, where this machine's operating system has raised it; None where a store has."""
    kind, link = _decide(error)
    return judge(error) if BY_ERRNO.get(_errno(link)) is kind else None


def failed_to_write(error: BaseException) -> bool:
    """Whether a disk of this machine takes no more, whoever wrote there."""
    failure = disk_failure(error)
    return failure is not None and failure.kind in _OF_WRITING


def _decide(error: BaseException) -> tuple[Kind, BaseException]:
    """The kind of an error, and the link of its chain that shows the kind."""
    links = list(islice(_links(error), _MOST_LINKS))
    # What callers rely on, whatever the file system met on its way to this answer.
    for plain, plainly in ((FileNotFoundError, Kind.NOT_FOUND), (FileExistsError, Kind.EXISTS)):
        if isinstance(error, plain):
            return plainly, links[-1] if str(links[-1]) else error
    # A store's own answer tells more than the number that a library has translated it into.
    for of in (_of_answer, _of_connection, _of_class, _of_system):
        for link in links:
            if kind := of(link):
                return kind, link
    return Kind.UNKNOWN, error


def _links(error: BaseException) -> Iterator[BaseException]:
    """An error and all that it was raised from, outermost first."""
    waiting, seen = [error], set()
    while waiting:
        link = waiting.pop(0)
        if id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        raised_from = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
        # aiohttp, requests and urllib keep the error of the socket as an argument, azure and
        # botocore under these names.
        kept = getattr(link, "kwargs", None)
        wrapped = (
            raised_from,
            *link.args,
            getattr(link, "inner_exception", None),
            kept.get("error") if isinstance(kept, Mapping) else None,
        )
        waiting += [inner for inner in wrapped if isinstance(inner, BaseException)]


def _of_answer(link: BaseException) -> Kind | None:
    """By the error code or the HTTP status in an answer of a store."""
    text = str(link)
    for code in _codes(link):
        if code.startswith(("KMS.", "KeyVault")) or (code == "AccessDenied" and "kms:" in text):
            return Kind.KEY
        if code in BY_CODE:
            return BY_CODE[code]
    status = _status(link)
    if status == 400 and "requester pays" in text:
        return Kind.DENIED
    if status in BY_STATUS:
        return BY_STATUS[status]
    return Kind.SERVER if status >= 500 else Kind.BAD_REQUEST if status >= 400 else None


def _codes(link: BaseException) -> Iterator[str]:
    response = getattr(link, "response", None)
    if isinstance(response, Mapping):  # botocore
        yield str(response.get("Error", {}).get("Code"))
    if code := getattr(link, "error_code", None):  # azure
        yield str(getattr(code, "value", code))
    answer = getattr(link, "_error_response", None)  # gcsfs
    if isinstance(answer, Mapping):
        for part in answer.get("errors") or ():
            if isinstance(part, Mapping):
                yield str(part.get("reason"))


def _status(link: BaseException) -> int:
    """The HTTP status of a store's answer; 0 where the error is none."""
    if type(link).__module__ == "aiohttp.http_exceptions":
        return 0  # its 400 is of an answer that arrived broken, e.g. cut short
    response = getattr(link, "response", None)
    if isinstance(response, Mapping):  # botocore
        return _as_status(response.get("ResponseMetadata", {}).get("HTTPStatusCode"))
    # In this order: azure, aiohttp, gcsfs and urllib, requests and httpx. ("code" and "status" are
    # names that other exceptions use for other things, so the number has to be one of HTTP's.)
    names = ("status_code", "status", "code")
    for holder, name in [(link, name) for name in names] + [(response, "status_code")]:
        if status := _as_status(getattr(holder, name, None)):
            return status
    text = str(link)
    # gcsfs turns these into errors without a number.
    if isinstance(link, OSError) and link.errno is None and text.startswith("Forbidden: "):
        return 403
    return 400 if isinstance(link, ValueError) and text.startswith("Bad Request: ") else 0


def _as_status(value: Any) -> int:
    try:
        status = int(value)
    except (TypeError, ValueError):
        return 0
    return status if 300 <= status < 600 else 0


def _of_connection(link: BaseException) -> Kind | None:
    """By what keeps a connection from being made, however often one tries."""
    if isinstance(link, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in str(link):
        return Kind.CERTIFICATE
    if isinstance(link, socket.gaierror) and link.errno in (socket.EAI_NONAME, socket.EAI_NODATA):
        return Kind.HOST
    return None


def _of_class(link: BaseException) -> Kind | None:
    """By the class that a library has for it, or one that it is derived from."""
    for base in type(link).__mro__:
        if kind := BY_CLASS.get((base.__module__.partition(".")[0], base.__name__)):
            return kind
    return None


def _of_system(link: BaseException) -> Kind | None:
    """By the number of the operating system, or by what Python derives from one."""
    # `ssl` and `socket.gaierror` have numbers of their own; their classes are in the table.
    if (number := _errno(link)) in BY_ERRNO:
        return BY_ERRNO[number]
    plain = {
        FileNotFoundError: Kind.NOT_FOUND,
        PermissionError: Kind.DENIED,
        NotADirectoryError: Kind.PATH,
        IsADirectoryError: Kind.PATH,
        ConnectionError: Kind.UNREACHABLE,
        TimeoutError: Kind.UNREACHABLE,
        ImportError: Kind.UNUSABLE,
        ValueError: Kind.UNUSABLE,
        NotImplementedError: Kind.UNUSABLE,
    }
    return next((kind for known, kind in plain.items() if isinstance(link, known)), None)


def _errno(link: BaseException) -> int:
    """The number of the operating system; 0 where there is none."""
    if isinstance(link, (ssl.SSLError, socket.gaierror)):
        return 0
    if isinstance(link, OSError) and link.errno:
        return link.errno
    # Libraries in Rust, such as safetensors, have errors of their own with the number in the text.
    found = re.search(r"\(os error (\d+)\)", str(link))
    return int(found[1]) if found else 0


def _answer(error: BaseException, named: bool) -> str:
    """What an error says, in one line.

    Args:
        error: The error.
        named: Put its class before the text.
    """
    if isinstance(error, OSError) and error.strerror and error.filename2 is None:
        text = str(error)
    else:
        # Of a rename, the unfinished file's name would be noise.
        text = str(getattr(error, "strerror", None) or error)
    lines = [line.strip() for line in text.splitlines()]
    wanted = [line for line in lines if line and not line.startswith(_FOR_SUPPORT)]
    text = " ".join(wanted or lines[:1])[:_MOST_CHARACTERS]
    name = type(error).__name__
    if isinstance(error, TimeoutError) and not text:
        return "no answer in time"
    code = next((code for code in _codes(error) if code in BY_CODE and code not in text), None)
    text = f"{code}: {text}" if code else text
    return f"{name}: {text}" if named and text else text or name
