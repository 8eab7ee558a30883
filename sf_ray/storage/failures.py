"""What an exception of a file system means: its kind, whether to try again, and what to say.

Libraries raise errors of their own for the same answer of a store, and wrap them in one another. So
an error and all that it was raised from are judged by what they are: the store's error code, the
HTTP status, the class, or the operating system's number; never by which library is installed.
Imports none of those libraries, and knows no file system, no Ray and no model.
"""

import errno
import re
import socket
import ssl
from dataclasses import dataclass
from itertools import islice

from sf_ray.errors import SfRayError
from sf_ray.storage.failure_signs import codes_of, errno_of, links_of, status_of
from sf_ray.storage.failure_tables import BY_CLASS, BY_CODE, BY_ERRNO, BY_STATUS, BY_WORDS
from sf_ray.storage.failure_words import CREDENTIALS_OF, SENTENCES, Kind

# Errors are wrapped three deep at most; the bound is for those that form a ring.
_MOST_LINKS = 12
_MAY_PASS = {
    Kind.BUSY, Kind.EXPIRED, Kind.HOST, Kind.SERVER, Kind.THROTTLED, Kind.TLS, Kind.UNREACHABLE
}  # fmt: skip
_OF_WRITING = {Kind.NO_SPACE, Kind.QUOTA, Kind.READ_ONLY, Kind.LIMIT, Kind.DISK}
# Lines of an answer that only the store's support can use.
_FOR_SUPPORT = ("RequestId:", "Time:", "ErrorCode:", "Content:", "Error:None", "<")
_MOST_CHARACTERS = 300
# What keeps two sides from agreeing on a secure connection: one of them speaks no TLS or another
# one, or wants a certificate. What may break in the middle of one is not among it.
_NO_TLS = re.compile(
    r"\[(?:X509|SSL\] PEM|SSL: \w*(?:WRONG_VERSION|UNSUPPORTED_PROTOCOL|NO_PROTOCOLS|PACKET_LENGTH|"
    r"HTTPS?_|HANDSHAKE_FAILURE|PROTOCOL_VERSION|UNKNOWN_CA|UNRECOGNIZED_NAME|"
    r"(?:BAD|NO)_CERTIFICATE|CERTIFICATE_(?:REQUIRED|EXPIRED|REVOKED|UNKNOWN)))"
)
# What this machine may say where a client says only that it has no connection.
_OF_THIS_MACHINE = {
    errno.ENOENT: Kind.OWN_FILE, errno.EMFILE: Kind.LIMIT, errno.ENFILE: Kind.LIMIT,
    errno.ENOMEM: Kind.LIMIT,
}  # fmt: skip


class OwnFileError(Exception):
    """A file of this machine is missing without which a store cannot be asked."""


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
    return judge(error) if BY_ERRNO.get(errno_of(link)) is kind else None


def failed_to_write(error: BaseException) -> bool:
    """Whether a disk of this machine takes no more, whoever wrote there."""
    failure = disk_failure(error)
    return failure is not None and failure.kind in _OF_WRITING


def _decide(error: BaseException) -> tuple[Kind, BaseException]:
    """The kind of an error, and the link of its chain that shows the kind."""
    links = list(islice(links_of(error), _MOST_LINKS))
    # What callers rely on, whatever the file system met on its way to this answer.
    for plain, plainly in ((FileNotFoundError, Kind.NOT_FOUND), (FileExistsError, Kind.EXISTS)):
        if isinstance(error, plain):
            return plainly, links[-1] if str(links[-1]) else error
    # A store's own answer tells more than the number that a library has translated it into.
    for of in (_of_answer, _of_connection, _of_class, _of_system):
        found = [(kind, link) for link in links if (kind := of(link))]
        if not found:
            continue
        if of is _of_class and found[0][0] is Kind.UNREACHABLE:
            return _why_unreachable(links, found)
        return found[0]
    return Kind.UNKNOWN, error


def _why_unreachable(
    links: list[BaseException], found: list[tuple[Kind, BaseException]]
) -> tuple[Kind, BaseException]:
    """Why there is no connection, where the links within say more than the outermost.

    Clients wrap so all that they meet on the way to a connection, also what no network can mend.
    """
    for link in links:
        if kind := _OF_THIS_MACHINE.get(errno_of(link)):
            return kind, link
    return next((each for each in found if each[0] is not Kind.UNREACHABLE), found[0])


def _of_answer(link: BaseException) -> Kind | None:
    """By the error code or the HTTP status in an answer of a store."""
    status = status_of(link)
    if type(link).__name__ == "ClientHttpProxyError" and (400 <= status < 500 or status == 501):
        return Kind.PROXY  # it has not asked the store
    if status in (400, 401, 403) and (kind := _of_words(link)):
        return kind
    for code in codes_of(link):
        if code.startswith(("KMS.", "KeyVault")):
            return Kind.KEY
        if code in BY_CODE:
            return BY_CODE[code]
    if status in BY_STATUS:
        return BY_STATUS[status]
    return Kind.SERVER if status >= 500 else Kind.BAD_REQUEST if status >= 400 else None


def _of_words(link: BaseException) -> Kind | None:
    """By words of a refusal, where one code stands for several causes."""
    text = str(link).lower()
    return next((kind for words, kind in BY_WORDS.items() if words in text), None)


def _of_connection(link: BaseException) -> Kind | None:
    """By what keeps a connection from being made, however often one tries."""
    if isinstance(link, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in str(link):
        return Kind.CERTIFICATE
    if _NO_TLS.search(str(link)):
        return Kind.TLS
    if isinstance(link, socket.gaierror) and link.errno in (socket.EAI_NONAME, socket.EAI_NODATA):
        return Kind.HOST
    return None


def _of_class(link: BaseException) -> Kind | None:
    """By the class that a library has for it, or one that it is derived from."""
    for base in type(link).__mro__:
        if kind := BY_CLASS.get((base.__module__.partition(".")[0], base.__name__)):
            is_of_keys = kind in (Kind.CREDENTIALS, Kind.EXPIRED)
            return (_of_words(link) if is_of_keys else None) or kind
    return None


def _of_system(link: BaseException) -> Kind | None:
    """By the number of the operating system, or by what Python derives from one."""
    # `ssl` and `socket.gaierror` have numbers of their own; their classes are in the table.
    if (number := errno_of(link)) in BY_ERRNO:
        return BY_ERRNO[number]
    if isinstance(link, RuntimeError) and "start new thread" in str(link):
        return Kind.LIMIT
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
        # aiobotocore follows a redirect that leads back to itself until Python stops it.
        RecursionError: Kind.REGION,
    }
    return next((kind for known, kind in plain.items() if isinstance(link, known)), None)


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
    code = next((code for code in codes_of(error) if code in BY_CODE and code not in text), None)
    # (No colon, as in a header: what follows on "Authorization...:" is hidden as a secret.)
    text = f"{code}, {text}" if code else text
    return f"{name}: {text}" if named and text else text or name
